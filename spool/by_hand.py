"""What people do to waiting mail in the SQLite spool: hold it, let it go, hurry it, drop it.

A hold counts from before the disk knows it. Mail that is leased is never touched: its attempt ends as it began. All
goes in chunks, so that new mail waits for no more than one of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import groupby
from operator import attrgetter
from sqlite3 import Connection
from typing import Final

from spool import hand_statements as statements
from spool.contract import Leased, Steps, Tally, id_number, id_text
from spool.hand_statements import Row
from spool.holding import Held, Hold, Key, Scope
from spool.inbox import Ask, disregard, same
from spool.shelves import Shelves
from spool.statements import Due
from spool.view import Filter

_CHUNK: Final = 1000


class ByHand:
    """`ask` puts a question to the database, `arrived` tells that a route may have mail that can be leased."""

    def __init__(self, shelves: Shelves, ask: Ask, arrived: Callable[[str], None]) -> None:
        self._shelves = shelves
        self._ask = ask
        self._arrived = arrived
        self.held = Held()

    async def load(self) -> None:
        """Take up the holds of earlier processes."""
        self.held = Held(await self._ask(statements.holds, same))

    async def hold(self, hold: Hold, note: str | None, told: Steps) -> bool:
        known, self.held = self.held.get(hold.key), self.held.plus(hold)
        kept = False
        try:
            kept = await self._ask(partial(_keep, hold=hold, note=note), same)
        finally:
            if not kept:
                self.held = self.held.plus(known) if known else self.held.minus(hold.key)
        if not kept:
            return False
        if hold.scope is not Scope.ROUTE:
            async for rows in self._chunks(_covered(hold.key), told):
                await self._ask(partial(statements.park_held, rows=rows, held=self.held), same)
        self._look_again()
        return True

    async def release(self, key: Key, note: str | None, now: float, told: Steps) -> Hold | None:
        """The mails first and the hold last: after a crash in between it is still there, and can be ended again."""
        hold = self.held.get(key)
        if hold is None:
            return None
        if hold.scope is not Scope.ROUTE:  # or its mail would be parked again as soon as it is due
            self.held = self.held.minus(key)
        try:
            async for rows in self._chunks(_covered(key), told):
                await self._ask(partial(_let_go, rows=rows, scope=hold.scope, held=self.held, now=now), same)
            await self._ask(partial(_forget, key=key, note=note, now=now), same)
        except BaseException:
            self.held = self.held.plus(hold)
            raise
        self.held = self.held.minus(key)
        self._look_again()
        return hold

    async def hurry(self, which: Filter, note: str | None, now: float, told: Steps) -> Tally:
        done = left = 0
        async for rows in self._chunks(which, told):
            free = [row for row in rows if not (row.parked or self.held.route(row.route))]
            idle = [row for row in free if row.id not in self._shelves.leased]
            await self._ask(partial(_hurry, rows=idle, note=note if which.ids else None, now=now), same)
            done, left = done + len(idle), left + len(rows) - len(idle)
        self._look_again()
        return Tally(done, left)

    async def drop(self, which: Filter, note: str, now: float, told: Steps) -> Tally:
        """Each chunk is taken as a lease would take it, so that nobody else can."""
        done = left = after = 0
        while True:
            question = partial(statements.select, which=which, after=after, limit=_CHUNK)
            rows, taken = await self._ask(question, self._take)
            if not rows:
                return Tally(done, left)
            try:
                await self._ask(partial(statements.drop, rows=taken, text=note, now=now), same)
            except BaseException:
                self._shelves.give_back(row.id for row in taken)
                raise
            self._shelves.dropped({row.id: row.size for row in taken})
            for row in taken:
                self._end(row.id)
            after, done, left = rows[-1].id, done + len(taken), left + len(rows) - len(taken)
            told(done + left)

    async def keep_back(self, route: str, mails: list[Leased]) -> list[Leased]:
        """Of mails just leased those that may go. The others are given back; those held for themselves or for their
        sender are due no more.
        """
        while mails:
            whole = self.held.route(route) is not None
            held = mails if whole else [mail for mail in mails if self.held.mail(id_text(mail.id), mail.sender)]
            if not held:
                break
            ids = {mail.id for mail in held}
            try:
                if not whole:
                    await self._ask(partial(statements.park, ids=ids), same)
            except BaseException:
                self._shelves.give_back(mail.id for mail in mails)
                raise
            self._shelves.give_back(ids)
            mails = [mail for mail in mails if mail.id not in ids]
            self._arrived(route)  # there may be others behind them
        return mails

    def settled(self, number: int) -> None:
        """A mail is finished; a hold of its own, which came too late, goes with it."""
        if self.held.mails and self._end(number):
            forgotten = self._ask(partial(statements.forget_hold, key=(Scope.MAIL, id_text(number))), same)
            # A hold on a mail that is gone does no harm, and the writer has logged why it is still there.
            forgotten.add_done_callback(disregard)

    def _end(self, number: int) -> bool:
        key = (Scope.MAIL, id_text(number))
        found = self.held.get(key)
        if found is not None:
            self.held = self.held.minus(key)
        return found is not None

    async def _chunks(self, which: Filter, told: Steps) -> AsyncIterator[list[Row]]:
        after = through = 0
        while rows := await self._ask(partial(statements.select, which=which, after=after, limit=_CHUNK), same):
            yield rows
            after, through = rows[-1].id, through + len(rows)
            told(through)

    def _take(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """All, and those that nobody had and nobody can have now."""
        taken: list[Row] = []
        for route, group in groupby(rows, attrgetter("route")):
            asked = list(group)
            claimed = self._shelves.claim(route, Due(tuple(row.id for row in asked), None), len(asked))
            ids = {mail if isinstance(mail, int) else mail.id for mail in claimed}
            taken += [row for row in asked if row.id in ids]
        return rows, taken

    def _look_again(self) -> None:
        for route in self._shelves.routes():
            self._shelves.read_again(route)
            self._arrived(route)


def _covered(key: Key) -> Filter:
    """Where mail under a hold is looked for. Senders are told apart as the hold does it, so all mail is looked at."""
    scope, subject = key
    match scope:
        case Scope.MAIL:
            return Filter(ids=(id_number(subject),))
        case Scope.ROUTE:
            return Filter(route=subject)
        case Scope.SENDER:
            return Filter()


def _keep(connection: Connection, hold: Hold, note: str | None) -> bool:
    """False for a mail that does not wait: a hold on it would never end."""
    if hold.scope is Scope.MAIL and not statements.select(connection, _covered(hold.key), 0, 1):
        return False
    statements.keep_hold(connection, hold)
    _write_note(connection, hold.key, note, hold.since)
    return True


def _forget(connection: Connection, key: Key, note: str | None, now: float) -> None:
    statements.forget_hold(connection, key)
    _write_note(connection, key, note, now)


def _write_note(connection: Connection, key: Key, note: str | None, now: float) -> None:
    if note is not None and key[0] is Scope.MAIL:
        statements.note(connection, [id_number(key[1])], note, now)


def _let_go(connection: Connection, rows: list[Row], scope: Scope, held: Held, now: float) -> None:
    if scope is Scope.ROUTE:
        statements.release_route(connection, rows, now)
    else:
        statements.unpark(connection, rows, held, now)


def _hurry(connection: Connection, rows: list[Row], note: str | None, now: float) -> None:
    statements.hurry(connection, rows, now)
    if note is not None:
        statements.note(connection, [row.id for row in rows], note, now)
