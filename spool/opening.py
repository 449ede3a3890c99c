"""Which engine a spool's url asks for. What only PostgreSQL needs is loaded only for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from spool.contract import Spool
from spool.view import SpoolView

_MEMORY: Final = 16 << 20
"""Octets of content that a relay keeps at hand."""


def is_shared(url: str) -> bool:
    """True when several relays may have the spool open: it is a database server's."""
    return url.partition("://")[0] in ("postgresql", "postgres")


async def open_spool(
    url: str,
    *,
    size_limit: int,
    password: str | None = None,
    lease: float = 30.0,
    buffer: Path | None = None,
    processes: int = 1,
) -> Spool:
    """Open or create the spool at `url` for a relay. `size_limit` in octets; `password`, `lease` (seconds) and the file
    of a `buffer` are for PostgreSQL, and so are `processes`, which share the memory of one. Raises SpoolUnusable with
    what to do.
    """
    if is_shared(url):
        from spool.postgres import PostgresSpool

        memory = _MEMORY // processes
        connect = partial(PostgresSpool.open, url, size_limit=size_limit, password=password, memory=memory, lease=lease)
        if buffer is None:
            return await connect()
        from spool.buffered import BufferedSpool

        return await BufferedSpool.open(connect, buffer, size_limit=size_limit)
    from spool.sqlite import SqliteSpool

    return await SqliteSpool.open(url, size_limit=size_limit)


async def open_for_orders(url: str, password: str | None = None) -> Spool:
    """Open a spool that is there, to act on it: one that no relay has open, or one that several share."""
    if is_shared(url):
        from spool.postgres import PostgresSpool

        return await PostgresSpool.open(url, size_limit=1 << 62, password=password, visit=True)
    from spool.sqlite import SqliteSpool

    return await SqliteSpool.open(url, size_limit=1 << 62)


def open_for_reading(url: str, password: str | None = None) -> SpoolView:
    """The spool beside the relays that work on it. Raises SpoolUnusable."""
    if is_shared(url):
        from spool.postgres_view import PostgresView

        return PostgresView(url, password)
    from spool.sqlite_view import SqliteView

    return SqliteView(url)
