"""The part of the PostgreSQL spool that several nodes talk through: orders, holds, wakes, and the books.

What people order happens in the database, in one transaction; every node hears of it there. Nothing here hands out
mail.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from psycopg import Connection

from spool import postgres_books as books
from spool import postgres_hands as hands
from spool import postgres_pace
from spool.cluster import Cluster
from spool.contract import Noted, Notice, Spool, SpoolUnavailable, Steps, Tally, Toll, id_text, unheard
from spool.holding import Held, Hold, Key, Scope
from spool.ids import GREATEST
from spool.inbox import disregard, same
from spool.postgres_cluster import PostgresCluster
from spool.postgres_node import Identity, due_routes, holds_of, tell
from spool.postgres_worker import Asker, Session, Trouble
from spool.view import Filter, GivenOrder, Spent, Volume

Answer = TypeVar("Answer")

_TELL_WITHIN: Final = 0.05
_FIRST_KEPT: Final = "SELECT id FROM mail WHERE received_at >= %s AND received_at <= %s ORDER BY id LIMIT 1"
_FORGET: Final = """
WITH old AS (
 SELECT id FROM mail WHERE id < %s AND settled_at < %s ORDER BY id LIMIT 5000 FOR UPDATE SKIP LOCKED), events AS (
 DELETE FROM event USING old WHERE event.mail = old.id), recipients AS (
 DELETE FROM recipient USING old WHERE recipient.mail = old.id)
DELETE FROM mail USING old WHERE mail.id = old.id"""


class SharedSpool(Spool):
    """`options` are libpq's."""

    def __init__(self, options: dict[str, str], trouble: Trouble, clock: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._identity = Identity()
        self._own = 0
        self._held = Held()
        self._alone = False
        self._callbacks: list[Callable[[str], None]] = []
        self._hold_callbacks: list[Callable[[Hold], None]] = []
        self._to_tell: set[str] = set()
        self._tell_due = False
        self._to_pass: dict[bool, list[int]] = {True: [], False: []}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases = Asker(Session(options, trouble, durable=False), self._loop, "spool-leases")
        self._cluster = PostgresCluster(self._leases, self._identity, self._loop)
        self._books = Asker(Session(options, trouble), self._loop, "spool-books")
        self._slow = Asker(Session(options, trouble), self._loop, "spool-orders")
        """For what may take long: nothing that delivery waits for stands behind it."""

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    async def note(self, notice: Notice) -> tuple[Noted, ...] | None:
        return await self._ask(partial(books.note, notice=notice, now=self._clock()))

    async def wake(self, route: str, now: float) -> None:
        await self._order(partial(hands.wake, route=route, now=now))
        self._arrived(route)

    async def reroute(self, match: Callable[[str], str | None]) -> int:
        moved = await self._order(partial(hands.reroute, match=match))
        for route in moved:
            self._arrived(route)
        return sum(moved.values())

    def on_arrival(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def on_hold(self, callback: Callable[[Hold], None]) -> None:
        self._hold_callbacks.append(callback)

    async def spend(self, spent: Sequence[Spent]) -> None:
        if spent:
            await self._ask(partial(books.spend, spent=spent))

    async def spent(self, since: float) -> list[Spent]:
        return await self._ask(partial(books.spent, since=since))

    async def admit(self, tolls: Sequence[Toll]) -> tuple[int, ...] | float:
        wanted = True

        def then(answer: tuple[int, ...] | postgres_pace.Full) -> tuple[int, ...] | float:
            if isinstance(answer, postgres_pace.Full):
                return answer.wait
            if not wanted:
                self.passed(answer, counted=False)
            return answer

        try:
            question = partial(postgres_pace.admit, node=self._identity.node, tolls=tolls)
            return await self._books.ask(question, then)
        except asyncio.CancelledError:
            wanted = False
            raise

    def passed(self, tickets: Sequence[int], *, counted: bool) -> None:
        """See `Spool.passed`. What cannot be written now goes with the next sign of life."""
        self._to_pass[counted] += tickets
        if len(self._to_pass[True]) + len(self._to_pass[False]) == len(tickets):
            self._loop.call_soon(self._write_passed)

    def _write_passed(self) -> None:
        for counted, numbers in self._to_pass.items():
            if numbers:
                mine, numbers[:] = tuple(numbers), []
                written = self._books.ask(partial(postgres_pace.passed, numbers=mine, counted=counted), same)
                written.add_done_callback(partial(self._keep_passed, mine, counted))

    def _keep_passed(self, numbers: Sequence[int], counted: bool, written: Future[None]) -> None:
        if not written.cancelled() and written.exception() is not None:
            self._to_pass[counted] += numbers

    async def tally(self, volumes: Sequence[Volume]) -> None:
        if volumes:
            await self._ask(partial(books.add, volumes=volumes))

    async def record(self, order: GivenOrder) -> None:
        await self._ask(partial(books.record, order=order))

    @property
    def held(self) -> Held:
        return self._held

    async def hold(self, hold: Hold, note: str | None = None, told: Steps = unheard) -> bool:  # noqa: ARG002 - one step
        def question(connection: Connection) -> bool:
            tell(connection, self._identity.node, ["holds"])
            return hands.hold(connection, hold, note)

        kept = await self._order(question)
        if kept:
            self._believe(self._held.plus(hold))
            await self._look_again()
        return kept

    async def release(
        self,
        key: Key,
        now: float,
        note: str | None = None,
        told: Steps = unheard,  # noqa: ARG002 - one step
    ) -> Hold | None:
        def question(connection: Connection) -> Hold | None:
            tell(connection, self._identity.node, ["holds"])
            return hands.release(connection, key, note, now)

        ended = await self._order(question)
        self._believe(self._held.minus(key))
        await self._look_again()
        return ended

    async def hurry(self, which: Filter, note: str | None, now: float, told: Steps = unheard) -> Tally:
        tally = await self._order(partial(hands.hurry, which=which, note=note, now=now))
        told(tally.done + tally.left)
        await self._look_again()
        return tally

    async def drop(self, which: Filter, note: str, now: float, told: Steps = unheard) -> Tally:
        question = partial(hands.drop, which=which, note=note, now=now, slot=self._identity.slot)
        tally, own = await self._order(question)
        told(tally.done + tally.left)
        self._own = own
        await self._read_holds()
        return tally

    async def prune(self, before: float) -> int:
        await self._order(partial(books.forget_orders, before=before))
        total = 0
        values = await self._order(partial(_first_kept, since=before, now=self._clock())), before
        while forgotten := await self._order(lambda connection: connection.execute(_FORGET, values).rowcount):
            total += forgotten
        return total

    def heard(self, words: Sequence[str]) -> None:
        """What other nodes said."""
        self._cluster.heard(words)
        for word in words:
            if word == "holds":
                task = self._loop.create_task(self._read_holds())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif word == "node":
                self._alone = False
            elif word.startswith("mail "):
                self._arrived(word.removeprefix("mail "))

    def _ask(self, question: Callable[[Connection], Answer]) -> Future[Answer]:
        return self._books.ask(question, same)

    def _order(self, question: Callable[[Connection], Answer]) -> Future[Answer]:
        return self._slow.ask(question, same)

    async def _read_holds(self) -> None:
        try:
            self._believe(Held(await self._ask(holds_of)))
        except SpoolUnavailable:
            return  # the next sign of life brings them
        await self._look_again()

    def _believe(self, held: Held) -> None:
        """These are the holds now. Mail at hand that a new one covers goes back."""
        before, self._held = self._held, held
        for hold in held.all():
            if before.get(hold.key) != hold:
                for callback in self._hold_callbacks:
                    callback(hold)

    def _mail_ended(self, number: int) -> None:
        """A mail is finished; a hold of its own, which came too late, goes with it."""
        key = (Scope.MAIL, id_text(number))
        if self._held.mails and self._held.get(key):
            self._held = self._held.minus(key)

    def _arrived(self, route: str) -> None:
        for callback in self._callbacks:
            callback(route)

    async def _look_again(self) -> None:
        """Something was done to waiting mail: whoever can send it looks for it."""
        routes = await self._leases.ask(partial(due_routes, now=self._clock()), same, single=True)
        for route in routes:
            self._arrived(route)
        self._tell_others(routes)

    def _tell_others(self, routes: Sequence[str]) -> None:
        """Wake the other nodes, after the commit and seldom: a notification inside it would make commits wait in a
        row, and what is lost by a crash comes with their next look.
        """
        self._to_tell.update(routes)
        if self._to_tell and not self._tell_due:
            self._tell_due = True
            self._loop.call_later(_TELL_WITHIN, self._say)

    def _say(self) -> None:
        self._tell_due = False
        words, self._to_tell = [f"mail {route}" for route in sorted(self._to_tell)], set()
        if not self._alone:
            told = self._leases.ask(partial(tell, node=self._identity.node, words=words), same, single=True)
            told.add_done_callback(disregard)  # who did not hear it looks within seconds


def _first_kept(connection: Connection, since: float, now: float) -> int:
    """See `spool.statements.first_kept`."""
    row = connection.execute(_FIRST_KEPT, (since, now)).fetchone()
    return GREATEST if row is None else int(row[0])
