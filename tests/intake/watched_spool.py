"""The real SQLite spool, watched: what it was handed, and a way to hold a commit up or make it fail."""

from __future__ import annotations

import asyncio
from typing import Any

from spool.contract import Arrival
from spool.sqlite import SqliteSpool


class WatchedSpool(SqliteSpool):
    """`arrivals` are those whose commit is on disk, in order. `failing` is raised by every put instead; a put waits
    while `gate` is not set, and sets `entered`.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.arrivals: list[Arrival] = []
        self.failing: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def put(self, arrival: Arrival) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        await super().put(arrival)
        self.arrivals.append(arrival)
