"""The spool of several nodes: one PostgreSQL database that all of them put mail into and lease it from.

A put returns only after its commit. A lease is a row's node, and void once that node shows no sign of life; what is
decided here about other nodes is decided by the database and its clock.
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
from typing import Final

from routing.events import emit
from spool import postgres_schema as schema
from spool import postgres_statements as statements
from spool.at_hand import AtHand
from spool.contract import (
    Arrival,
    Backlog,
    Leased,
    Settlement,
    SpoolFull,
    SpoolUnavailable,
    SpoolUnusable,
    id_text,
    require_whole,
)
from spool.holding import Held
from spool.ids import Numbers, next_moment
from spool.inbox import SETTLE_WITHIN, SMALL_MAIL, FlushTimer, Put, fail, same
from spool.postgres_node import Beat, Pulse, holds_of, this_process
from spool.postgres_shared import SharedSpool
from spool.postgres_worker import Again, Session, Settle, Trouble, Writer
from spool.statements import Unreadable

_LOG = logging.getLogger("relay.spool")
_WRITE_AGAIN_AFTER: Final = 1.0
_UNNOTED: Final = 100
_BEHIND: Final = 0.5
"""So many settlements, of which the oldest waits for the disk for so many seconds: then nothing more is leased."""
_CHANCE_BITS: Final = 20
_SLOT_BITS: Final = 14
"""Chance in a mail's number below the node's slot: nodes never make the same one."""
_SKEW: Final = 1.0
"""Seconds between a node's clock and the database's from which on people are told."""
_BACKLOG: Final = """
SELECT route, count(*), min(received_at), min(due_at),
 EXISTS (SELECT FROM hold WHERE scope = 'route' AND subject = waiting.route)
FROM waiting WHERE node IS NULL GROUP BY route"""
_NEXT_DUE: Final = """
SELECT min(due_at) FROM waiting WHERE route = %(route)s AND node IS NULL
 AND NOT EXISTS (SELECT FROM hold WHERE scope = 'route' AND subject = %(route)s)"""


class PostgresSpool(SharedSpool):
    """Made by `open`. Every method is for the loop it was opened on."""

    def __init__(
        self, url: str, options: dict[str, str], size_limit: int, memory: int, lease: float, clock: Callable[[], float]
    ) -> None:
        trouble = Trouble(schema.shown(url))
        super().__init__(options, trouble, clock)
        self._size_limit = size_limit
        self._leased: set[int] = set()
        self._lost: set[int] = set()
        """Under way here, but the lease is void: another node may have the mail."""
        self._to_return: set[str] = set()
        """Routes of which this node may have mail that nobody sends: the answer to a lease was lost, or it was not sure
        of it. That is given back before more is asked for; no two leases of a route are asked for at a time.
        """
        self._at_hand = AtHand(memory)
        self._settling: dict[int, float] = {}
        """What came of these mails is not on disk yet, since then (`time.monotonic()` seconds); the oldest first."""
        self._others = self._incoming = 0
        self._waits = False
        self._put_off: set[str] = set()
        """Routes that got no mail while too much was not noted."""
        self._numbers = Numbers(clock, self._chance, run=_SLOT_BITS)
        self._skewed = False
        self._random = random.SystemRandom()
        self._about = ("", "")
        self._pulse = Pulse(options, self._loop, self, self._identity, this_process(lease), clock, lambda: self._about)
        self._writer = Writer(Session(options, trouble, patient=True), self._loop, self, self._identity, clock)
        self._flush = FlushTimer(self._loop, self._writer.flush)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        size_limit: int,
        password: str | None = None,
        memory: int = 16 << 20,
        lease: float = 30.0,
        clock: Callable[[], float] = time.time,
        visit: bool = False,
    ) -> PostgresSpool:
        """Open or create the spool in the database at `url`, and become one of its nodes; or with `visit` only give
        orders to those there are.

        `size_limit` (octets) is how much content may wait for all nodes together, `memory` how much of what came here
        is kept at hand; `lease` is for how many seconds without a sign of life this node keeps what it leased. Raises
        SpoolUnusable with what to do.
        """
        options = schema.options_of(url, password)
        await asyncio.to_thread(schema.prepare, options)
        spool = cls(url, options, size_limit, memory, lease, clock)
        try:
            if visit:
                spool._believe(Held(await spool._ask(holds_of)))
            else:
                spool.beat(await asyncio.to_thread(spool._pulse.start))
                await spool._skip_known()
        except BaseException as error:
            await asyncio.to_thread(spool._stop)
            if isinstance(error, SpoolUnavailable):
                raise SpoolUnusable(str(error)) from error
            raise
        return spool

    def next_id(self) -> int:
        return self._numbers.next()

    async def _skip_known(self) -> None:
        """A clock may have been set back: go on behind the last number, in this node's part of the next millisecond."""
        row = await self._ask(lambda connection: connection.execute("SELECT max(id) FROM mail").fetchone())
        self._numbers.skip_to(next_moment(statements.first(row)) | self._chance(_CHANCE_BITS))

    def _chance(self, bits: int) -> int:
        slot = max(0, self._identity.slot)
        return (slot << _SLOT_BITS | self._random.getrandbits(_SLOT_BITS)) & ((1 << bits) - 1)

    async def put(self, arrival: Arrival) -> None:
        await self._put(Put(arrival, self._loop.create_future()))

    async def put_again(self, arrival: Arrival) -> None:
        """As `put`, of a mail that may be here already: then it stays as it is. Raises NumberTaken too."""
        await self._put(Again(arrival, self._loop.create_future()))

    async def _put(self, put: Put) -> None:
        size = len(put.arrival.content)
        self._require_room(size)
        self._incoming += size
        self._writer.put(put)
        await put.future

    async def probe(self) -> None:
        self._require_room(SMALL_MAIL)
        await self._ask(partial(statements.count, slot=self._identity.slot, octets=0))

    def _require_room(self, size: int) -> None:
        if self.octets + self._incoming + size > self._size_limit:
            raise SpoolFull(f"mail of {self.octets} octets waits; the limit is {self._size_limit}")

    @property
    def octets(self) -> int:
        """See `Spool.octets`. What other nodes did is known after some seconds."""
        return max(0, self._own + self._others)

    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        """See `Spool.lease`. Raises SpoolUnavailable."""
        if self._held.route(route) or not self._identity.sure:
            return []
        if self._behind:
            self._put_off.add(route)
            return []
        node = self._identity.node
        if route in self._to_return:
            mine = [*self._leased, *self._lost]
            await self._leases.ask(partial(statements.give_back, route=route, node=node, but=mine), same, single=True)
            self._to_return.discard(route)
        question = partial(statements.take, node=node, route=route, limit=limit, now=now, at_hand=self._at_hand.find)
        try:
            taken = await self._leases.ask(question, partial(self._took, node, route), single=True)
        except SpoolUnavailable:
            self._to_return.add(route)
            raise
        for broken in [mail for mail in taken if isinstance(mail, Unreadable)]:
            # It stays leased, so that it does not come up again until the next start.
            emit(_LOG, "spool.mail_unreadable", logging.CRITICAL, mail=id_text(broken.id), error=broken.error)
        mails = [mail for mail in taken if isinstance(mail, Leased)]
        for mail in [mail for mail in mails if not mail.recipients]:
            self.settle(Settlement(mail, note="finished by two nodes together", counted=False))
        return [mail for mail in mails if mail.recipients]

    def _took(self, node: int, route: str, mails: list[Leased | Unreadable]) -> list[Leased | Unreadable]:
        if node != self._identity.node:
            return []  # this node was declared dead meanwhile
        self._at_hand.forget(mail.id for mail in mails)
        # Those that are here are being sent: that counts, and once. Their lease was void, or a crash of the database
        # forgot it, which syncs none.
        fresh = [mail for mail in mails if mail.id not in self._lost and mail.id not in self._leased]
        if len(fresh) < len(mails):
            self._to_return.add(route)  # one may have ended this very moment
        self._leased.update(mail.id for mail in fresh)
        return fresh

    @property
    def _behind(self) -> bool:
        """Much was sent that is not noted: if this process died now it would go out twice, so it takes no more."""
        return len(self._settling) >= _UNNOTED and time.monotonic() - next(iter(self._settling.values())) > _BEHIND

    def tell_about(self, version: str, rules: str) -> None:
        self._about = version, rules

    def ours(self, mail: Leased) -> bool:
        if mail.id in self._leased and self._identity.sure:
            return True
        self._to_return.add(mail.route)  # it may be this node's all the same, and nobody else would ever get it
        self._leased.discard(mail.id)
        self._lost.discard(mail.id)
        return False

    def settle(self, settlement: Settlement) -> Future[None]:
        """See `Spool.settle`. Raises ValueError for a settlement that cannot be (our own bug)."""
        self._check(settlement)
        self._settling[settlement.mail.id] = time.monotonic()
        future: Future[None] = self._loop.create_future()
        self._writer.settle(Settle(settlement, future))
        self._flush.within(SETTLE_WITHIN)
        return future

    async def next_due(self, route: str) -> float | None:
        question = lambda connection: connection.execute(_NEXT_DUE, {"route": route}).fetchone()  # noqa: E731
        row = await self._leases.ask(question, same, single=True)
        return None if row is None or row[0] in (None, inf) else float(row[0])

    async def backlog(self) -> dict[str, Backlog]:
        rows = await self._leases.ask(lambda connection: connection.execute(_BACKLOG).fetchall(), same, single=True)
        return {route: Backlog(count, oldest, inf if held else due) for route, count, oldest, due, held in rows}

    async def close(self) -> None:
        for settle in await asyncio.to_thread(self._stop):
            fail(settle.future, SpoolUnavailable("closed before it could be written"))

    def _stop(self) -> list[Settle]:
        left = self._writer.stop()
        self._leases.stop()
        self._books.stop()
        self._slow.stop()
        self._pulse.stop()
        return left

    # ---- what the threads tell ---------------------------------------------------------------------------------

    def kept(self, puts: Sequence[Put], settles: Sequence[Settle], done: statements.Settles) -> None:
        self._own = done.own
        routes = [put.arrival.route for put in puts]
        for put in puts:
            self._incoming -= len(put.arrival.content)
            self._at_hand.keep(put.arrival.id, put.arrival.content)
            if not put.future.done():
                put.future.set_result(None)
        self._waits = self._waits and not settles
        for settle in settles:
            number = settle.settlement.mail.id
            self._settling.pop(number, None)
            self._leased.discard(number)
            self._lost.discard(number)
            if number in done.routes:
                routes.append(done.routes[number])
            elif settle.settlement.due_at is None:
                self._mail_ended(number)
            if number in done.late and settle.settlement.attempts:
                emit(
                    _LOG, "spool.lease_lost", logging.WARNING, mail=id_text(number), why="another node may send it too"
                )
            if not settle.future.done():
                settle.future.set_result(None)
        if self._put_off and not self._behind:
            put_off, self._put_off = self._put_off, set()
            routes += put_off
        for route in dict.fromkeys(routes):
            self._arrived(route)
        self._tell_others(routes)

    def refused(self, puts: Sequence[Put], error: Exception) -> None:
        for put in puts:
            self._incoming -= len(put.arrival.content)
            fail(put.future, error)

    def unsettled(self, settle: Settle, error: Exception) -> None:
        self._settling.pop(settle.settlement.mail.id, None)
        if not settle.future.done():
            settle.future.set_exception(error)

    def unwritten(self, count: int) -> None:
        if not self._waits:  # once: every try to write anything tells it again
            emit(_LOG, "spool.settlements_wait", logging.ERROR, mails=count, again_in=_WRITE_AGAIN_AFTER)
        self._waits = True
        self._flush.within(_WRITE_AGAIN_AFTER)

    def beat(self, beat: Beat) -> None:
        self._alone = beat.alone
        self._own, self._others = beat.own_octets, beat.others_octets
        if beat.reborn:
            emit(_LOG, "spool.declared_dead", logging.ERROR, leased=len(self._leased), why="the database was away")
            self._lost |= self._leased
            self._leased.clear()
        for name in beat.dead:
            emit(_LOG, "spool.node_dead", logging.WARNING, node=name, mails=beat.freed, why="no sign of life")
        if abs(beat.skew) > _SKEW and not self._skewed:
            emit(_LOG, "spool.clock_skew", logging.WARNING, seconds=round(beat.skew, 1), do="set this machine's clock")
        self._skewed = abs(beat.skew) > _SKEW
        self._believe(Held(beat.holds))
        self._write_passed()
        self._cluster.beat(beat.reborn)
        for route in {*beat.due_routes, *self._to_return}:
            self._arrived(route)

    # ---- the rest ----------------------------------------------------------------------------------------------

    def _check(self, settlement: Settlement) -> None:
        number = settlement.mail.id
        if number in self._settling or (number not in self._leased and number not in self._lost):
            raise ValueError(f"mail {number} is not leased")
        require_whole(settlement)
