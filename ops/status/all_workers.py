"""How all workers of one relay are, and their numbers: whoever is asked asks the others, each at a socket of its own.

Must never let a worker that is stuck or gone hold up the answer, which says so instead.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from ops.http_listener import Request, Response
from ops.status.health import Check, Report, State

STATE: Final = "/state"
"""Where a worker tells the others how it is."""
PEER: Final = "x-callpro-relay-peer"
"""The header in which a worker that hands a request on says whose it is."""
_PATIENCE: Final = 2.5
"""Seconds; a worker looks for at most two of them."""


async def states(pages: Mapping[int, bytes]) -> dict[int, State | None]:
    """How each is; None for one that does not answer."""
    return {number: _state(said) if said else None for number, said in (await _ask_all(pages, STATE)).items()}


async def numbers(pages: Mapping[int, bytes]) -> dict[int, bytes | None]:
    """The metrics of each; None for one that does not answer."""
    return await _ask_all(pages, "/metrics")


def together(workers: Mapping[int, State | None]) -> State:
    """How the relay is. It takes mail while one worker does, and as long as none that does is in trouble: one that
    starts, drains, hangs or is gone takes no new clients, so the others have them all.
    """
    there = {number: state.report for number, state in workers.items() if state}
    serving = {number for number, report in there.items() if report.serving}
    found: dict[str, Check] = {}
    for number in sorted(there):
        for check in there[number].checks:
            bars = check.bars and (number in serving or not serving)
            found[check.name] = _joined(found.get(check.name), check, number, bars)
    silent = [str(number) for number, state in workers.items() if state is None]
    wrong = f"no answer from {', '.join(silent)}" if silent else None
    found["workers"] = Check("workers", wrong, ill=bool(serving), bars=False)  # whoever has drained is gone
    in_flight: Counter[str] = Counter()
    for state in workers.values():
        in_flight.update(state.in_flight if state else {})
    return State(Report(tuple(found.values())), in_flight)


def _joined(before: Check | None, check: Check, number: int, bars: bool) -> Check:
    """One line for all workers, which names those where something is the matter."""
    if check.wrong is None:
        return before or check
    said = f"worker {number}: {check.wrong}"
    if before is None or before.wrong is None:
        return Check(check.name, said, check.ill, bars)
    return Check(check.name, f"{before.wrong}; {said}", before.ill or check.ill, before.bars or bars)


async def hand_on(page: bytes, request: Request) -> Response:
    """What the worker behind `page` answers to a request that came in here.

    Raises OSError when it is gone meanwhile, and BodyTooLarge.
    """
    body = await request.body()
    kept = {name: value for name, value in request.headers.items() if name not in ("transfer-encoding", "expect")}
    headers = {**kept, "connection": "close", "content-length": str(len(body)), PEER: request.peer}
    method = "GET" if request.method == "HEAD" else request.method
    status, fields, octets = await _exchange(page, method, request.target, headers, body)
    ours = ("content-length", "connection")
    return Response(status, octets, tuple(field for field in fields if field[0].lower() not in ours))


def _state(said: bytes) -> State:
    read = json.loads(said)
    return State(Report(tuple(Check(*one) for one in read["checks"])), read["in_flight"])


async def _ask_all(pages: Mapping[int, bytes], path: str) -> dict[int, bytes | None]:
    return dict(zip(pages, await asyncio.gather(*(_ask(page, path) for page in pages.values())), strict=True))


async def _ask(page: bytes, path: str) -> bytes | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            status, _, body = await _exchange(page, "GET", path, {"host": "localhost", "connection": "close"})
    except (OSError, TimeoutError):
        return None
    return body if status == 200 else None


async def _exchange(
    page: bytes, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, Sequence[tuple[str, str]], bytes]:
    """One request to another worker: status, headers and body of what it answers."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    try:
        client.connect(page)  # at once, or there is no room
    except OSError:
        client.close()
        raise
    reader, writer = await asyncio.open_unix_connection(sock=client)
    try:
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        head, _, answer = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    first, *fields = head.decode("latin-1").split("\r\n")
    if not first:
        raise ConnectionError("it went away")
    pairs = [field.partition(":") for field in fields]
    return int(first.split()[1]), [(name, value.strip()) for name, _, value in pairs], answer
