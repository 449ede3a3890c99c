"""A database with a local buffer in front of it: while the database takes no mail, new mail is kept on this machine.

The 250 for it means the same: it is on a disk. It goes to the database later, in the order in which it came, and leaves
the buffer only when it is there. Nothing is delivered from the buffer, so no limit, hold or lease is passed by.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future, Task
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Final

import psycopg

from routing.events import emit
from spool.buffer import Buffer
from spool.cluster import Cluster
from spool.contract import (
    Arrival,
    Backlog,
    Buffered,
    Leased,
    Noted,
    Notice,
    Settlement,
    Spool,
    SpoolFull,
    SpoolUnavailable,
    SpoolUnusable,
    Steps,
    Tally,
    Toll,
    unheard,
)
from spool.draining import Drain
from spool.holding import Held, Hold, Key
from spool.late_cluster import LateCluster
from spool.postgres import PostgresSpool
from spool.view import Filter, GivenOrder, Spent, Volume

_LOG = logging.getLogger("relay.spool")
SLOW: Final = 3.0
"""Seconds that the database may take for a commit; then the mail goes into the buffer."""
_TOO_SLOW: Final = f"the database did not commit within {SLOW:g} seconds"
_STAY: Final = 10.0
"""Seconds that a database which was too slow is left alone."""
_LOOK_EVERY: Final = 1.0
Connect = Callable[[], Coroutine[Any, Any, PostgresSpool]]


class BufferedSpool(Spool):
    """Made by `open`. `_there` is the database since it was first reached; `_state` has a `since` while it is away."""

    def __init__(self, buffer: Buffer, connect: Connect, clock: Callable[[], float]) -> None:
        self._buffer = buffer
        self._drain = Drain(buffer)
        self._connect = connect
        self._clock = clock
        self._there: PostgresSpool | None = None
        self._cluster = LateCluster()
        self._state = Buffered(0)
        self._not_before = 0.0
        self._began = clock()
        self._arrivals: list[Callable[[str], None]] = []
        self._holds: list[Callable[[Hold], None]] = []
        self._about = ("", "")
        self._told = ""
        self._tasks: list[Task[None]] = []

    @classmethod
    async def open(
        cls, connect: Connect, path: Path, *, size_limit: int, clock: Callable[[], float] = time.time
    ) -> BufferedSpool:
        """`connect` opens the database, `path` is the buffer's file, which may hold `size_limit` octets of content.

        A database that cannot be reached is tried again and again. Raises SpoolUnusable when the file cannot be used,
        or the database is there and of no use.
        """
        spool = cls(await Buffer.open(path, size_limit, clock), connect, clock)
        try:
            await spool._begin()
        except BaseException:
            await spool.close()
            raise
        return spool

    async def _begin(self) -> None:
        joining = asyncio.create_task(self._join())
        self._tasks.append(joining)
        await asyncio.wait((joining,), timeout=SLOW)
        error = joining.exception() if joining.done() else None
        if error is not None and not _is_away(error):
            raise error
        if self._there is None:
            self._go_away(str(error or "the database does not answer"))
        self._tasks.append(asyncio.create_task(self._watch(joining)))

    # ---- new mail ----------------------------------------------------------------------------------------------

    def next_id(self) -> int:
        return self._buffer.next_id() if self._there is None or self._away else self._there.next_id()

    async def put(self, arrival: Arrival) -> None:
        if self._away or not await self._done_there(self._database.put(arrival)):
            await self._buffer.put(arrival)

    async def probe(self) -> None:
        if self._away or not await self._done_there(self._database.probe()):
            await self._buffer.spool.probe()

    async def _done_there(self, commit: Coroutine[Any, Any, None]) -> bool:
        """False when the database could not, or not in time. Then it is away from now on; it may do it all the same."""
        try:
            async with asyncio.timeout(SLOW):
                await commit
        except SpoolUnavailable as error:
            self._go_away(str(error))
        except TimeoutError:
            self._go_away(_TOO_SLOW, _STAY)
        else:
            return True
        return False

    @property
    def octets(self) -> int:
        return self._buffer.spool.octets + (self._there.octets if self._there else 0)

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    @property
    def troubles(self) -> frozenset[str]:
        return self._buffer.spool.troubles

    @property
    def buffered(self) -> Buffered:
        return replace(self._state, mails=self._buffer.mails)

    @property
    def _away(self) -> bool:
        return self._state.since is not None

    @property
    def _database(self) -> PostgresSpool:
        if self._there is None:
            raise SpoolUnavailable(f"the database was not reached since the start: {self._state.why}")
        return self._there

    # ---- the database goes and comes ---------------------------------------------------------------------------

    def _go_away(self, why: str, stay: float = 0.0) -> None:
        if self._away:
            return
        self._state = Buffered(0, self._clock(), why)
        self._not_before = time.monotonic() + stay
        self._told = ""
        if not self._drain.left:
            self._began = self._clock()
        do = "mail is kept here, and goes to the database when it is back; nothing is sent meanwhile"
        emit(_LOG, "spool.buffering", logging.ERROR, why=why, file=str(self._buffer.path), do=do)

    async def _join(self) -> None:
        there = await self._connect()
        for arrived in self._arrivals:
            there.on_arrival(arrived)
        for held in self._holds:
            there.on_hold(held)
        there.tell_about(*self._about)
        self._cluster.join(there.cluster)
        self._there = there

    async def _watch(self, joining: Task[None]) -> None:
        await asyncio.gather(joining, return_exceptions=True)
        while True:
            try:
                await self._look()
            except (SpoolUnavailable, TimeoutError) as error:
                self._go_away(str(error) or _TOO_SLOW)
            except (SpoolFull, SpoolUnusable) as error:
                if not _is_away(error):
                    self._tell_once("spool.drain_waits" if isinstance(error, SpoolFull) else "spool.buffering", error)
            except Exception:
                _LOG.exception("looking after the buffer failed by a bug of ours; it goes on")
            await asyncio.sleep(_LOOK_EVERY)

    def _tell_once(self, event: str, why: Exception) -> None:
        """What keeps the buffer's mail here, if nothing else was said since."""
        if event != self._told:
            self._told = event
            emit(_LOG, event, logging.ERROR, why=str(why), mails=self._drain.left, file=str(self._buffer.path))

    async def _look(self) -> None:
        """Go to the database if it is there, and take along what waits here."""
        if self._there is None:
            await self._join()
        if not self._away and not self._drain.left:
            return
        if self._away:
            if time.monotonic() < self._not_before:
                return
            async with asyncio.timeout(SLOW):
                await self._database.probe()
            self._state = Buffered(0)
        if not self._told:
            self._told = "spool.draining"
            emit(_LOG, "spool.draining", logging.WARNING, mails=self._drain.left)
        while await self._drain.step(self._database):
            pass
        await self._buffer.tidy()
        self._told = ""
        moved, self._drain.moved = self._drain.moved, 0
        emit(_LOG, "spool.buffer_drained", logging.WARNING, mails=moved, seconds=round(self._clock() - self._began, 1))

    # ---- what only the database can do -------------------------------------------------------------------------

    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        """See `Spool.lease`. Raises SpoolUnavailable."""
        return await self._there.lease(route, limit, now) if self._there else []

    def ours(self, mail: Leased) -> bool:
        return self._database.ours(mail)

    def settle(self, settlement: Settlement) -> Future[None]:
        """See `Spool.settle`. Raises ValueError for a settlement that cannot be (our own bug)."""
        return self._database.settle(settlement)

    async def note(self, notice: Notice) -> tuple[Noted, ...] | None:
        return await self._database.note(notice)

    async def next_due(self, route: str) -> float | None:
        return await self._there.next_due(route) if self._there else None

    async def backlog(self) -> dict[str, Backlog]:
        """See `Spool.backlog`. While the database is away only what lies here is known, and nobody can send it."""
        found: dict[str, Backlog] = {}
        if not self._away:
            try:
                found = await self._database.backlog()
            except SpoolUnavailable as error:
                self._go_away(str(error))
        if self._buffer.mails:
            nothing = Backlog(0, inf, inf)
            for route, here in (await self._buffer.spool.backlog()).items():
                known = found.get(route, nothing)
                oldest = min(known.oldest, here.oldest)
                found[route] = Backlog(known.waiting + here.waiting, oldest, known.next_due)
        return found

    async def wake(self, route: str, now: float) -> None:
        if self._there:
            await self._there.wake(route, now)

    async def reroute(self, match: Callable[[str], str | None]) -> int:
        """See `Spool.reroute`. Mail of the buffer gets its route when it is leased."""
        return await self._there.reroute(match) if self._there else 0

    def on_arrival(self, callback: Callable[[str], None]) -> None:
        self._arrivals.append(callback)
        if self._there:
            self._there.on_arrival(callback)

    def on_hold(self, callback: Callable[[Hold], None]) -> None:
        self._holds.append(callback)
        if self._there:
            self._there.on_hold(callback)

    def tell_about(self, version: str, rules: str) -> None:
        self._about = version, rules
        if self._there:
            self._there.tell_about(version, rules)

    @property
    def held(self) -> Held:
        return self._there.held if self._there else Held()

    async def hold(self, hold: Hold, note: str | None = None, told: Steps = unheard) -> bool:
        return await self._database.hold(hold, note, told)

    async def release(self, key: Key, now: float, note: str | None = None, told: Steps = unheard) -> Hold | None:
        return await self._database.release(key, now, note, told)

    async def hurry(self, which: Filter, note: str | None, now: float, told: Steps = unheard) -> Tally:
        return await self._database.hurry(which, note, now, told)

    async def drop(self, which: Filter, note: str, now: float, told: Steps = unheard) -> Tally:
        return await self._database.drop(which, note, now, told)

    async def spend(self, spent: Sequence[Spent]) -> None:
        await self._database.spend(spent)

    async def spent(self, since: float) -> list[Spent]:
        """See `Spool.spent`. A relay that starts without the database knows of nothing; the database counts anyway."""
        return await self._there.spent(since) if self._there else []

    async def admit(self, tolls: Sequence[Toll]) -> tuple[int, ...] | float:
        return await self._database.admit(tolls)

    def passed(self, tickets: Sequence[int], *, counted: bool) -> None:
        self._database.passed(tickets, counted=counted)

    async def tally(self, volumes: Sequence[Volume]) -> None:
        await self._database.tally(volumes)

    async def record(self, order: GivenOrder) -> None:
        await self._database.record(order)

    async def prune(self, before: float) -> int:
        return await self._there.prune(before) if self._there else 0

    async def shown(self) -> None:
        await self._buffer.spool.shown()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._there:
            await self._there.close()
        await self._buffer.spool.close()


def _is_away(error: BaseException) -> bool:
    """True when it is the database's state and not the config: whatever the server or the network said."""
    return isinstance(error.__cause__, psycopg.Error | SpoolUnavailable)
