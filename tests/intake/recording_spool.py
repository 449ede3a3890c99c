"""A spool that only records arrivals, to see what intake hands over; it can be told to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from spool.contract import Arrival, Backlog, Leased, Settlement, Spool


class RecordingSpool(Spool):
    """`arrivals` in order. `failing` is raised by every put; a put waits while `gate` is not set."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.failing: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self._last = 1 << 40

    def next_id(self) -> int:
        self._last += 1
        return self._last

    async def put(self, arrival: Arrival) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        self.arrivals.append(arrival)

    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        raise NotImplementedError

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        raise NotImplementedError

    async def next_due(self, route: str) -> float | None:
        raise NotImplementedError

    async def backlog(self) -> dict[str, Backlog]:
        raise NotImplementedError

    async def wake(self, route: str, now: float) -> None:
        raise NotImplementedError

    async def reroute(self, match: Callable[[str], str | None]) -> int:
        raise NotImplementedError

    def on_arrival(self, callback: Callable[[str], Any]) -> None:
        raise NotImplementedError

    async def prune(self, before: float) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
