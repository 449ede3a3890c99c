"""The SQLite spool as people ask about it, beside a running relay and without it. It cannot write.

Everything it asks is answered from an index or by walking mail in the order it came; it must never read content.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Final

from routing.mail import domain_of
from routing.outcome import Outcome
from spool import ledger, statements
from spool.contract import SpoolUnusable, id_text
from spool.filtering import MAILS_OF_PART, PARTS, Values, conditions
from spool.holding import Hold, Scope, keys_of
from spool.records import last_outcomes, read_results
from spool.schema import connect_for_reading, path_of
from spool.view import (
    FailureLine,
    Filter,
    GivenOrder,
    Load,
    MailLine,
    RecipientLine,
    SlowMail,
    Spent,
    SpoolView,
    Story,
    TimelineEntry,
    Volume,
)

_Lines = list[MailLine]
_Event = tuple[float, str, str | None, float | None, str | None, str | None, str | None]
_Failed = tuple[int, float | None, str, str, str, str]
_OF_MAIL: Final = "SELECT mail.id, mail.route, mail.sender, mail.received_at, mail.attempts, mail.size"
_DUE: Final = "waiting.due_at, waiting.leased"
_SOURCES: Final[Mapping[bool | None, tuple[str, str]]] = MappingProxyType(
    {
        False: (f"{_DUE} FROM waiting JOIN mail ON mail.id = waiting.id", "waiting"),
        True: ("NULL, 0 FROM mail", "mail"),
        None: (f"{_DUE} FROM mail LEFT JOIN waiting ON waiting.id = mail.id", "mail"),
    }
)
"""By `Filter.settled`: where the columns of a list come from, and the table that is walked."""
FAILURES: Final = """
SELECT recipient.mail, mail.settled_at, mail.route, mail.sender, recipient.address, recipient.state
FROM recipient INDEXED BY failure CROSS JOIN mail ON mail.id = recipient.mail
WHERE recipient.state IN ('failed', 'expired', 'dropped') AND coalesce(mail.settled_at, :since) >= :since
ORDER BY recipient.mail"""
BAD_NEWS: Final = """
SELECT event.mail, event.at, mail.route, mail.sender, event.recipient, event.told, event.upstream, event.text
FROM event INDEXED BY bad_news CROSS JOIN mail ON mail.id = event.mail
WHERE event.told IN ('bounced', 'dropped', 'complained') AND event.at >= ?
ORDER BY event.mail"""
_AT_ONCE: Final = 5000
_HOLD: Final = "SELECT scope, subject, since, who, reason FROM hold"


def _hold(row: tuple[str, str, float, str, str]) -> Hold:
    return Hold(Scope(row[0]), *row[1:])


def _failure(row: _Failed, told: Mapping[str, tuple[float, Outcome]]) -> FailureLine:
    """A mail is settled with its last recipient: this one may have failed days before, at its own last attempt."""
    number, settled_at, route, sender, address, how = row
    at, last = told.get(address, (settled_at or 0.0, None))
    return FailureLine(number, settled_at or at if how == "dropped" else at, route, sender, address, how, last)


class SqliteView(SpoolView):
    """Reads the spool at `url`. Raises SpoolUnusable when there is none, or none that can be read."""

    def __init__(self, url: str) -> None:
        self._path = path_of(url)
        self._connection = connect_for_reading(self._path)

    def list(self, which: Filter, limit: int, after: int = 0, *, newest_first: bool = False) -> Sequence[MailLine]:
        """See `SpoolView.list`. Raises SpoolUnusable."""
        with self._reading():
            if which.asks_for_a_domain_alone:
                return self._to_domain(which, limit, after, newest_first)
            return self._listed(which, limit, after, newest_first)

    def _listed(self, which: Filter, limit: int, after: int, newest_first: bool) -> Sequence[MailLine]:
        statement, values = list_statement(which, limit, after, newest_first=newest_first)
        return [self._line(row) for row in self._connection.execute(statement, values).fetchall()]

    def _to_domain(self, which: Filter, limit: int, after: int, newest_first: bool) -> Sequence[MailLine]:
        """Most mail may go to that domain: its mails are taken in their order until there are enough."""
        found: _Lines = []
        with ExitStack() as stack:
            values = [(domain_of(which.recipient or ""), part, after) for part in PARTS]
            statement = f"{MAILS_OF_PART} DESC" if newest_first else MAILS_OF_PART
            cursors = [stack.enter_context(closing(self._connection.execute(statement, each))) for each in values]
            numbers = (number for (number,), _ in groupby(merge(*cursors, reverse=newest_first)))
            step = limit
            while len(found) < limit and (some := tuple(islice(numbers, step))):
                found += self._listed(Filter(settled=which.settled, ids=some), limit - len(found), 0, newest_first)
                step = min(2 * step, _AT_ONCE)
        return found

    def loads(self) -> dict[str, Load]:
        """See `SpoolView.loads`: one walk over what waits. Raises SpoolUnusable."""
        with self._reading():
            rows = self._connection.execute(statements.LOADS).fetchall()
        return {route: Load(mails, recipients) for route, mails, recipients in rows}

    def spent(self, since: float) -> Sequence[Spent]:
        """See `SpoolView.spent`. Raises SpoolUnusable."""
        with self._reading():
            return statements.spent(self._connection, since)

    def volumes(self, edges: Sequence[float]) -> Sequence[Volume]:
        """See `SpoolView.volumes`. Raises SpoolUnusable."""
        with self._reading():
            return ledger.volumes(self._connection, edges)

    def orders(self, limit: int) -> Sequence[GivenOrder]:
        """See `SpoolView.orders`. Raises SpoolUnusable."""
        with self._reading():
            return ledger.orders(self._connection, limit)

    def slowest(self, since: float, limit: int) -> Sequence[SlowMail]:
        """See `SpoolView.slowest`. Raises SpoolUnusable."""
        with self._reading():
            return ledger.slowest(self._connection, since, limit)

    def show(self, number: int) -> Story | None:
        """See `SpoolView.show`. Raises SpoolUnusable."""
        with self._reading():
            statement, values = list_statement(Filter(settled=None, ids=(number,)), 1, 0)
            row = self._connection.execute(statement, values).fetchone()
            return None if row is None else self._story(self._line(row))

    def count(self, which: Filter) -> int:
        """See `SpoolView.count`. Raises SpoolUnusable."""
        with self._reading():
            return int(self._connection.execute(*count_statement(which)).fetchone()[0])

    def holds(self) -> Sequence[Hold]:
        """See `SpoolView.holds`. Raises SpoolUnusable."""
        with self._reading():
            rows = self._connection.execute(f"{_HOLD} ORDER BY since, scope, subject").fetchall()
        return [_hold(row) for row in rows]

    def failures(self, since: float) -> Iterator[FailureLine]:
        """See `SpoolView.failures`. Raises SpoolUnusable."""
        with self._reading():
            yield from merge(self._failures(since), self._bad_news(since), key=attrgetter("mail"))

    def _failures(self, since: float) -> Iterator[FailureLine]:
        rows = self._connection.execute(FAILURES, {"since": since})
        for number, failures in groupby(rows, itemgetter(0)):
            told = self._told(number)
            for row in failures:
                line = _failure(row, told)
                if line.at >= since:
                    yield line

    def _bad_news(self, since: float) -> Iterator[FailureLine]:
        for number, at, route, sender, recipient, told, upstream, words in self._connection.execute(BAD_NEWS, (since,)):
            yield FailureLine(number, at, route, sender, recipient, told, told_by=upstream, words=words)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One moment of the spool for all that is read in it."""
        try:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise SpoolUnusable(f"the spool {self._path} cannot be read: {error}") from error

    def _line(self, row: tuple[int, str, str, float, int, int, float | None, int | None]) -> MailLine:
        number, route, sender, received_at, attempts, size, due_at, leased = row
        last = last_outcomes(row[4] for row in self._events(number) if row[4])
        recipients = tuple(
            RecipientLine(address, state, last.get(address))
            for address, state in self._connection.execute(
                "SELECT address, state FROM recipient WHERE mail = ? ORDER BY address", (number,)
            )
        )
        hold = None if due_at is None else self._hold_on(number, route, sender)
        return MailLine(number, route, sender, recipients, received_at, due_at, attempts, size, bool(leased), hold)

    def _hold_on(self, number: int, route: str, sender: str) -> Hold | None:
        for key in keys_of(id_text(number), route, sender):
            row = self._connection.execute(f"{_HOLD} WHERE scope = ? AND subject = ?", key).fetchone()
            if row is not None:
                return _hold(row)
        return None

    def _told(self, number: int) -> dict[str, tuple[float, Outcome]]:
        """The newest outcome of each recipient of a mail, and when it came."""
        newest: dict[str, tuple[float, Outcome]] = {}
        for event in self._events(number):
            for address, outcome in read_results(event[4]) if event[4] else ():
                newest[address] = event[0] + (event[3] or 0.0), outcome
        return newest

    def _story(self, line: MailLine) -> Story:
        message_id, peer, helo, repairs = self._connection.execute(
            "SELECT message_id, peer, helo, repairs FROM mail WHERE id = ?", (line.id,)
        ).fetchone()
        entries = [TimelineEntry(line.received_at, "received", f"from {peer} ({helo}), {line.size} octets")]
        if repairs:
            entries.append(TimelineEntry(line.received_at, "repaired", ", ".join(repairs.split("\n"))))
        for at, text, upstream, seconds, results, told, recipient in self._events(line.id):
            outcomes = tuple(read_results(results)) if results else ()
            event = told or ("note" if upstream is None else "attempt")
            entries.append(TimelineEntry(at, event, text, upstream, seconds, outcomes, recipient))
        return Story(line, message_id, peer, helo, tuple(entries))

    def _events(self, number: int) -> Sequence[_Event]:
        return self._connection.execute(
            "SELECT at, text, upstream, seconds, results, told, recipient FROM event WHERE mail = ? ORDER BY number",
            (number,),
        ).fetchall()


def list_statement(which: Filter, limit: int, after: int, *, newest_first: bool = False) -> tuple[str, Values]:
    """The query behind `SqliteView.list`."""
    source, first = _SOURCES[which.settled]
    where, values = conditions(which, first, after)
    order = f"{first}.id DESC" if newest_first else f"{first}.id"
    return f"{_OF_MAIL}, {source} WHERE {where} ORDER BY {order} LIMIT :limit", {**values, "limit": limit}


def count_statement(which: Filter) -> tuple[str, Values]:
    """The query behind `SqliteView.count`."""
    source, first = _SOURCES[which.settled]
    where, values = conditions(which, first, 0)
    tables = source.partition(" FROM ")[2]
    return f"SELECT count(*) FROM {tables} WHERE {where}", values  # noqa: S608 (constants only)
