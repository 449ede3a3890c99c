"""The embedded spool: one SQLite file, one thread that writes it, and what is needed to hand mail out fast.

A put returns only after its commit is on disk. Leases live in memory: when the process is gone, they are void.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from sqlite3 import Connection
from typing import Final, TypeVar

from routing.events import emit
from spool import ledger, notices, schema, statements
from spool.absorbing import Unabsorbed
from spool.by_hand import ByHand
from spool.contract import (
    Arrival,
    Backlog,
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
    id_text,
    require_whole,
    unheard,
)
from spool.holding import Held, Hold, Key
from spool.ids import Numbers
from spool.inbox import SETTLE_WITHIN, SMALL_MAIL, Call, FlushTimer, Put, Settle, fail, same
from spool.log_records import settlement_record
from spool.marks import LeaseMarks
from spool.ownership import Ownership
from spool.shelves import Shelves
from spool.statements import Count, Due, Unreadable
from spool.view import Filter, GivenOrder, Spent, Volume
from spool.writer import Writer

Answer = TypeVar("Answer")
Told = TypeVar("Told")
Ends = tuple[list[tuple[int, float]], list[tuple[int, float]]]

_LOG = logging.getLogger("relay.spool")
_LOOK_EVERY: Final = 2.0
_CHUNK: Final = 1000
_ROOM: Final = 64
"""Rows read beyond those leased, for mails leased while the answer was on its way."""


class SqliteSpool(Spool):
    """Made by `open`. Every method is for the loop it was opened on."""

    def __init__(
        self,
        path: Path,
        unabsorbed: Unabsorbed,
        ownership: Ownership,
        size_limit: int,
        memory: int,
        reserve: int,
        clock: Callable[[], float],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ownership = ownership
        self._size_limit = size_limit
        self._clock = clock
        self._shelves = Shelves(memory)
        self._incoming = 0
        self._numbers = Numbers(clock, random.Random().getrandbits)  # noqa: S311 - seeded by the system; an id is no secret
        self._callbacks: list[Callable[[str], None]] = []
        self._settling: set[int] = set()
        self._writer = Writer(path, unabsorbed, self._loop, self, reserve)
        self._flush = FlushTimer(self._loop, self._writer.flush)
        self._numbers.skip_to(unabsorbed.greatest())
        self._by_hand = ByHand(self._shelves, self._ask, self._arrived)
        self._marks = LeaseMarks(self._shelves.leased, self._ask)
        self._next_look = self._loop.call_later(_LOOK_EVERY, self._look)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        size_limit: int,
        memory: int = 8 << 20,
        reserve: int = 64 << 20,
        clock: Callable[[], float] = time.time,
    ) -> SqliteSpool:
        """Open or create the spool at `url` (`sqlite:////path` or a path) and void all leases.

        All sizes are in octets: `size_limit` is how much content may wait, `memory` how much of it is kept at hand for
        delivery, `reserve` how much of the disk new mail leaves free. `clock` gives unix seconds. Raises SpoolUnusable
        with what to do.
        """
        path = schema.path_of(url)
        ownership = Ownership(path)
        try:
            await asyncio.to_thread(schema.prepare, path)
            unabsorbed = await asyncio.to_thread(Unabsorbed.load, path)
            spool = cls(path, unabsorbed, ownership, size_limit, memory, reserve, clock)
            spool._writer.start()
        except BaseException:
            ownership.release()
            raise
        try:
            await spool._ask(statements.begin, spool._numbers.skip_to)
            await spool._by_hand.load()
        except SpoolUnavailable as error:
            await spool.close()
            raise SpoolUnusable(f"the spool cannot be read: {error}") from error
        return spool

    def next_id(self) -> int:
        return self._numbers.next()

    async def put(self, arrival: Arrival) -> None:
        size = len(arrival.content)
        self._require_room(size)
        self._incoming += size
        future: Future[None] = self._loop.create_future()
        self._writer.put(Put(arrival, future))
        await future

    async def probe(self) -> None:
        self._require_room(SMALL_MAIL)
        await self._ask(schema.write_nothing, same, grows=True, about_mail=False)

    def _require_room(self, size: int) -> None:
        if self._shelves.octets + self._incoming + size > self._size_limit:
            raise SpoolFull(f"mail of {self._shelves.octets} octets waits; the limit is {self._size_limit}")

    @property
    def octets(self) -> int:
        return self._shelves.octets

    @property
    def troubles(self) -> frozenset[str]:
        return self._writer.troubles

    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        """See `Spool.lease`. Raises SpoolUnavailable when mail on disk cannot be read just now."""
        if self.held.route(route):
            return []
        mails = await self._take(route, limit, now)
        return mails if self.held.nothing else await self._by_hand.keep_back(route, mails)

    def lease_at_hand(self, route: str, limit: int, now: float) -> list[Leased] | None:
        """See `Spool.lease_at_hand`."""
        return self._fresh(route, limit, now) if self.held.nothing else None

    def _fresh(self, route: str, limit: int, now: float) -> list[Leased] | None:
        """Mail at hand; None when some on disk is due before it."""
        return None if self._shelves.of(route).has_due_on_disk(now) else self._shelves.take_fresh(route, limit)

    async def _take(self, route: str, limit: int, now: float) -> list[Leased]:
        fresh = self._fresh(route, limit, now)
        if fresh is not None:
            return fresh
        shelf = self._shelves.of(route)
        claimed: list[Leased | int] = []

        def claim(due: Due) -> None:
            claimed.extend(self._shelves.claim(route, due, limit))

        try:
            await self._ask(partial(statements.due, route=route, now=now, limit=limit + shelf.leased), claim)
            wanted = [mail for mail in claimed if isinstance(mail, int)]
            loaded = await self._ask(partial(statements.load, ids=wanted), same) if wanted else []
        except BaseException:
            self._shelves.give_back(mail if isinstance(mail, int) else mail.id for mail in claimed)
            raise
        for mail in loaded:
            if isinstance(mail, Unreadable):
                # It stays leased, so that it does not come up again until the next start.
                emit(_LOG, "spool.mail_unreadable", logging.CRITICAL, mail=id_text(mail.id), error=mail.error)
        by_id = {mail.id: mail for mail in loaded}
        mails = [by_id[mail] if isinstance(mail, int) else mail for mail in claimed]
        return [mail for mail in mails if isinstance(mail, Leased)]

    def settle(self, settlement: Settlement) -> Future[None]:
        """See `Spool.settle`. Raises ValueError for a settlement that cannot be (our own bug)."""
        self._check(settlement)
        record = settlement_record(settlement, self._clock())
        self._settling.add(record.id)
        future: Future[None] = self._loop.create_future()
        self._writer.settle(Settle(record, future, len(settlement.mail.content)))
        self._flush.within(SETTLE_WITHIN)
        return future

    async def note(self, notice: Notice) -> tuple[Noted, ...] | None:
        return await self._ask(partial(notices.note, notice=notice, now=self._clock()), same, grows=True)

    async def next_due(self, route: str) -> float | None:
        if self.held.route(route):
            return None
        shelf = self._shelves.of(route)
        known = shelf.next_due()
        if known is None:
            question = partial(statements.first_due, route=route, limit=shelf.leased + _ROOM)
            known = await self._ask(question, partial(self._learn_due, route))
        return None if known == inf else known

    async def backlog(self) -> dict[str, Backlog]:
        found: dict[str, Backlog] = {}
        for route, shelf in self._shelves.unleased().items():
            limit = shelf.leased + _ROOM
            entry = await self._ask(partial(_ends, route=route, limit=limit), partial(self._backlog_of, route))
            if entry is not None:
                found[route] = entry
        return found

    async def wake(self, route: str, now: float) -> None:
        changed = _CHUNK
        while changed == _CHUNK:
            changed = await self._ask(partial(statements.wake, route=route, now=now, limit=_CHUNK), same)
            self._shelves.of(route).due_on_disk = None
        self._arrived(route)

    async def reroute(self, match: Callable[[str], str | None]) -> int:
        return sum([await self._reroute_from(route, match) for route in self._shelves.routes()])

    def on_arrival(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    async def spend(self, spent: Sequence[Spent]) -> None:
        if spent:
            await self._ask(partial(statements.spend, spent=spent), same, about_mail=False)

    async def spent(self, since: float) -> list[Spent]:
        return await self._ask(partial(statements.spent, since=since), same, about_mail=False)

    async def tally(self, volumes: Sequence[Volume]) -> None:
        if volumes:
            await self._ask(partial(ledger.add, volumes=volumes), same, about_mail=False)

    async def record(self, order: GivenOrder) -> None:
        await self._ask(partial(ledger.record, order=order), same, about_mail=False)

    @property
    def held(self) -> Held:
        return self._by_hand.held

    async def hold(self, hold: Hold, note: str | None = None, told: Steps = unheard) -> bool:
        return await self._by_hand.hold(hold, note, told)

    async def release(self, key: Key, now: float, note: str | None = None, told: Steps = unheard) -> Hold | None:
        return await self._by_hand.release(key, note, now, told)

    async def hurry(self, which: Filter, note: str | None, now: float, told: Steps = unheard) -> Tally:
        return await self._by_hand.hurry(which, note, now, told)

    async def drop(self, which: Filter, note: str, now: float, told: Steps = unheard) -> Tally:
        return await self._by_hand.drop(which, note, now, told)

    async def prune(self, before: float) -> int:
        await self._ask(partial(ledger.forget_orders, before=before), same)
        first_kept = await self._ask(partial(statements.first_kept, since=before, now=self._clock()), same)
        question = partial(statements.forget, first_kept=first_kept, before=before, limit=_CHUNK)
        total = 0
        while forgotten := await self._ask(question, same):
            total += forgotten
        return total

    async def shown(self) -> None:
        await self._ask(lambda _: None, same)

    async def close(self) -> None:
        self._next_look.cancel()
        for settle in await asyncio.to_thread(self._writer.stop):
            fail(settle.future, SpoolUnavailable("closed before it could be written"))
        self._ownership.release()

    # ---- what the writer tells ---------------------------------------------------------------------------------

    def opened(self, count: Count) -> None:
        self._shelves.recount(count)
        for route in self._shelves.routes():
            self._arrived(route)

    def kept(self, puts: Sequence[Put], settles: Sequence[Settle]) -> None:
        now = self._clock()
        routes: set[str] = set()
        for put in puts:
            self._incoming -= len(put.arrival.content)
            self._shelves.accept(put.arrival, now)
            routes.add(put.arrival.route)
            if not put.future.done():
                put.future.set_result(None)
        for settle in settles:
            self._settling.discard(settle.record.id)
            self._marks.ended(settle.record.id)
            route = self._shelves.settled(settle.record, settle.octets)
            if route is not None:
                routes.add(route)
            else:
                self._by_hand.settled(settle.record.id)
            if not settle.future.done():
                settle.future.set_result(None)
        for route in routes:
            self._arrived(route)

    def refused(self, puts: Sequence[Put], error: Exception) -> None:
        for put in puts:
            self._incoming -= len(put.arrival.content)
            fail(put.future, error)

    def unwritten(self, count: int) -> None:
        emit(_LOG, "spool.settlements_wait", logging.ERROR, mails=count)

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _ask(
        self,
        question: Callable[[Connection], Answer],
        then: Callable[[Answer], Told],
        *,
        grows: bool = False,
        about_mail: bool = True,
    ) -> Future[Told]:
        """Ask the database. `then` runs on the loop before any later commit is told, so that it may change shelves."""
        future: Future[Told] = self._loop.create_future()
        self._writer.call(Call(question, then, future, grows, about_mail))
        return future

    def _look(self) -> None:
        self._marks.look()
        self._next_look = self._loop.call_later(_LOOK_EVERY, self._look)

    def _arrived(self, route: str) -> None:
        for callback in self._callbacks:
            callback(route)

    def _check(self, settlement: Settlement) -> None:
        number = settlement.mail.id
        if number not in self._shelves.leased or number in self._settling:
            raise ValueError(f"mail {number} is not leased")
        require_whole(settlement)

    def _learn_due(self, route: str, rows: Sequence[tuple[int, float]]) -> float:
        shelf = self._shelves.of(route)
        for number, at in rows:
            if number not in self._shelves.leased:
                if number not in shelf.fresh:
                    shelf.due_on_disk = at
                return at
        return rows[-1][1] if rows else inf

    def _backlog_of(self, route: str, ends: Ends) -> Backlog | None:
        oldest, next_due = (self._shelves.first_free(rows) for rows in ends)
        shelf = self._shelves.of(route)
        if oldest is None or next_due is None:
            return None
        next_due = inf if self.held.route(route) else next_due
        return Backlog(shelf.waiting - shelf.leased, oldest, next_due)

    async def _reroute_from(self, old: str, match: Callable[[str], str | None]) -> int:
        """In chunks, so that new mail waits for no more than one of them."""
        after = total = 0
        while rows := await self._ask(partial(statements.senders, route=old, after=after, limit=_CHUNK), same):
            after = rows[-1][0]
            matches = {sender: match(sender) for sender in {sender for _, sender in rows}}
            moves = {number: new for number, sender in rows if (new := matches[sender]) is not None and new != old}
            if moves:
                total += await self._ask(partial(statements.move, old=old, moves=moves), partial(self._moved, old))
        return total

    def _moved(self, old: str, moved: dict[str, list[int]]) -> int:
        for new, ids in moved.items():
            self._shelves.moved(ids, old, new)
            self._arrived(new)
        return sum(len(ids) for ids in moved.values())


def _ends(connection: Connection, route: str, limit: int) -> Ends:
    """The mails that came first, and those due first."""
    return statements.oldest(connection, route, limit), statements.first_due(connection, route, limit)
