"""The numbers of all workers of one relay in one scrape: the first asks the others, each at a socket of its own.

Must never let a worker that is stuck or gone hold up the scrape: `callpro_relay_worker_up` says so instead.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_PATIENCE: Final = 2.0
_UP: Final = "callpro_relay_worker_up"
_REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def ask_all(pages: Mapping[int, bytes]) -> dict[int, str | None]:
    """What each says; None for one that does not answer."""
    return dict(zip(pages, await asyncio.gather(*(_ask(page) for page in pages.values())), strict=True))


def together(own: Iterable[Metric], number: int, others: Mapping[int, str | None]) -> list[Metric]:
    """Our families with theirs in them; every number says by `worker` whose it is."""
    found = {family.name: family for family in labelled(own, number)}
    for text in others.values():
        for family in text_string_to_metric_families(text or ""):
            found.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            ).samples += family.samples
    for worker, there in {number: True, **{one: text is not None for one, text in others.items()}}.items():
        found[_UP].add_sample(_UP, {"worker": str(worker)}, float(there))
    return [*found.values()]


def labelled(families: Iterable[Metric], number: int) -> list[Metric]:
    """The same, said by this worker."""
    found = []
    for family in families:
        made = Metric(family.name, family.documentation, family.type)
        made.samples = [one._replace(labels={**one.labels, "worker": str(number)}) for one in family.samples]
        found.append(made)
    return found


async def _ask(page: bytes) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            client.connect(page)  # at once, or there is no room
            reader, writer = await asyncio.open_unix_connection(sock=client)
            writer.write(_REQUEST)
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            writer.close()
    except (OSError, TimeoutError):
        return None
    return body.decode() if b" 200 " in head.partition(b"\r\n")[0] else None
