"""What relays tell one another, for one that may start before it reaches their database: until then it hears nothing.

Must never forget who listens, nor keep what was said too early: that is said again when there are news.
"""

from __future__ import annotations

from spool.cluster import Closed, ClosedNow, Cluster, Ears, News, WayKey
from spool.contract import SpoolUnavailable


class LateCluster(Cluster):
    """The other relays, once `join` was called."""

    def __init__(self) -> None:
        self._there: Cluster | None = None
        self._ears: Ears | None = None

    def join(self, there: Cluster) -> None:
        """The database is reached."""
        self._there = there
        if self._ears is not None:
            there.listen(self._ears)

    @property
    def _cluster(self) -> Cluster:
        if self._there is None:
            raise SpoolUnavailable("the database was not reached since the start")
        return self._there

    def listen(self, ears: Ears) -> None:
        self._ears = ears
        if self._there is not None:
            self._there.listen(ears)

    async def take(self, limit: str, size: int, wanted: int) -> int:
        return await self._cluster.take(limit, size, wanted)

    def give_back(self, limit: str, count: int) -> None:
        if self._there is not None:
            self._there.give_back(limit, count)

    def claim(self, limit: str, count: int) -> None:
        if self._there is not None:
            self._there.claim(limit, count)

    async def attempt(self, route: str, upstream: str) -> tuple[bool, tuple[ClosedNow, ...]]:
        return await self._cluster.attempt(route, upstream)

    async def close(self, closed: Closed) -> ClosedNow:
        return await self._cluster.close(closed)

    async def open(self, key: WayKey, *, works: bool) -> None:
        await self._cluster.open(key, works=works)

    async def open_route(self, route: str) -> tuple[Closed, ...]:
        return await self._cluster.open_route(route)

    async def adopt(self, key: WayKey) -> bool:
        return await self._cluster.adopt(key)

    def probed(self, key: WayKey, failures: int, next_probe: float) -> None:
        if self._there is not None:
            self._there.probed(key, failures, next_probe)

    def leave(self, key: WayKey) -> None:
        if self._there is not None:
            self._there.leave(key)

    def silent(self, place: str, since: float, reply: str, asked_at: float) -> None:
        if self._there is not None:
            self._there.silent(place, since, reply, asked_at)

    def answered(self, place: str) -> None:
        if self._there is not None:
            self._there.answered(place)

    async def look(self) -> News:
        return await self._cluster.look()

    async def salt(self) -> bytes:
        return await self._cluster.salt()
