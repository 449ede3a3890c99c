"""The PostgreSQL spool as people ask about it, beside running nodes and without them. It cannot write.

Everything it asks is answered from an index or by walking mail in the order it came; it must never read content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from types import MappingProxyType
from typing import Any, Final

import psycopg

from routing.mail import domain_of
from routing.outcome import Outcome
from spool import postgres_books as books
from spool import postgres_schema as schema
from spool.contract import SpoolUnusable, id_text
from spool.holding import Hold, Scope, keys_of
from spool.postgres_filtering import PARTS, Values, conditions
from spool.postgres_node import HOLDS
from spool.postgres_pace import NOW
from spool.records import last_outcomes, read_results
from spool.view import (
    FailureLine,
    Filter,
    GivenOrder,
    Load,
    MailLine,
    NodeLine,
    RecipientLine,
    SlowMail,
    Spent,
    SpoolView,
    Story,
    Taken,
    TimelineEntry,
    Volume,
)

_Lines = list[MailLine]
_OF_MAIL: Final = "SELECT mail.id, mail.route, mail.sender, mail.received_at, mail.attempts, mail.size"
_AT_ONCE: Final = 5000
_DUE: Final = "waiting.due_at, waiting.node IS NOT NULL"
_SOURCES: Final[Mapping[bool | None, tuple[str, str, str]]] = MappingProxyType(
    {
        False: (_DUE, "waiting JOIN mail ON mail.id = waiting.id", "waiting"),
        True: ("NULL::float8, false", "mail", "mail"),
        None: (_DUE, "mail LEFT JOIN waiting ON waiting.id = mail.id", "mail"),
    }
)
"""By `Filter.settled`: the columns beside the mail's, where they come from, and the table that is walked."""
_FAILURES: Final = """
SELECT recipient.mail, mail.settled_at, mail.route, mail.sender, recipient.address, recipient.state
FROM recipient JOIN mail ON mail.id = recipient.mail
WHERE recipient.state IN ('failed', 'expired', 'dropped') AND coalesce(mail.settled_at, %(since)s) >= %(since)s
ORDER BY recipient.mail, recipient.address COLLATE "C\""""
_BAD_NEWS: Final = """
SELECT event.mail, event.at, mail.route, mail.sender, event.recipient, event.told, event.upstream, event.text
FROM event JOIN mail ON mail.id = event.mail
WHERE event.told IN ('bounced', 'dropped', 'complained') AND event.at >= %s ORDER BY event.mail, event.number"""
_LOADS: Final = """
SELECT route, count(*), sum((SELECT count(*) FROM recipient WHERE mail = waiting.id AND state = 'waiting'))::bigint
FROM waiting GROUP BY route"""
_NODES: Final = f"""
SELECT id, name, version, rules, started_at, {NOW} - seen_at, skew, lease FROM node ORDER BY started_at, id"""
_TAKEN: Final = """
SELECT node, route, count(*), min(received_at) FROM waiting WHERE node IS NOT NULL
GROUP BY node, route ORDER BY node, route COLLATE "C\""""
_EVENTS: Final = """
SELECT at, text, upstream, seconds, results, told, recipient FROM event WHERE mail = %s ORDER BY number"""


class PostgresView(SpoolView):
    """Reads the spool at `url`. Raises SpoolUnusable when there is none, or none that can be read."""

    def __init__(self, url: str, password: str | None = None) -> None:
        try:
            self._connection = schema.connect(schema.options_of(url, password) | {"target_session_attrs": "any"})
            schema.check(self._connection)
            self._connection.execute("SET default_transaction_read_only = on")
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        except psycopg.Error as error:
            raise SpoolUnusable(schema.unusable(error)) from error

    def list(self, which: Filter, limit: int, after: int = 0, *, newest_first: bool = False) -> Sequence[MailLine]:
        """See `SpoolView.list`. Raises SpoolUnusable."""
        with self._reading():
            if which.asks_for_a_domain_alone:
                return self._to_domain(which, limit, after, newest_first)
            return self._listed(which, limit, after, newest_first)

    def _listed(self, which: Filter, limit: int, after: int, newest_first: bool) -> _Lines:
        return [self._line(row) for row in self._rows(*_list(which, limit, after, newest_first))]

    def _to_domain(self, which: Filter, limit: int, after: int, newest_first: bool) -> _Lines:
        """Most mail may go to that domain: its mails are taken in their order until there are enough."""
        found: _Lines = []
        statement = _mails_to_domain("DESC" if newest_first else "ASC")
        domain, past, step = domain_of(which.recipient or ""), 0, limit
        while len(found) < limit:
            values: Values = {"domain": domain, "after": after, "upto": past + step, "step": step, "past": past}
            some = tuple(number for (number,) in self._rows(statement, values))
            if not some:
                break
            found += self._listed(Filter(settled=which.settled, ids=some), limit - len(found), 0, newest_first)
            past, step = past + step, min(2 * step, _AT_ONCE)
        return found

    def loads(self) -> dict[str, Load]:
        """See `SpoolView.loads`. Raises SpoolUnusable."""
        with self._reading():
            return {route: Load(mails, recipients) for route, mails, recipients in self._rows(_LOADS)}

    def spent(self, since: float) -> Sequence[Spent]:
        """See `SpoolView.spent`. Raises SpoolUnusable."""
        with self._reading():
            return books.spent(self._connection, since)

    def volumes(self, edges: Sequence[float]) -> Sequence[Volume]:
        """See `SpoolView.volumes`. Raises SpoolUnusable."""
        with self._reading():
            return books.volumes(self._connection, edges)

    def orders(self, limit: int) -> Sequence[GivenOrder]:
        """See `SpoolView.orders`. Raises SpoolUnusable."""
        with self._reading():
            return books.orders(self._connection, limit)

    def slowest(self, since: float, limit: int) -> Sequence[SlowMail]:
        """See `SpoolView.slowest`. Raises SpoolUnusable."""
        with self._reading():
            return books.slowest(self._connection, since, limit)

    def nodes(self) -> Sequence[NodeLine]:
        """See `SpoolView.nodes`. Raises SpoolUnusable."""
        with self._reading():
            return [NodeLine(*row) for row in self._rows(_NODES)]

    def taken(self) -> Sequence[Taken]:
        """See `SpoolView.taken`. Raises SpoolUnusable."""
        with self._reading():
            return [Taken(*row) for row in self._rows(_TAKEN)]

    def show(self, number: int) -> Story | None:
        """See `SpoolView.show`. Raises SpoolUnusable."""
        with self._reading():
            rows = self._rows(*_list(Filter(settled=None, ids=(number,)), 1, 0, False))
            return self._story(self._line(rows[0])) if rows else None

    def count(self, which: Filter) -> int:
        """See `SpoolView.count`. Raises SpoolUnusable."""
        _, tables, first = _SOURCES[which.settled]
        where, values = conditions(which, first, 0)
        with self._reading():
            return int(self._rows(f"SELECT count(*) FROM {tables} WHERE {where}", values)[0][0])

    def holds(self) -> Sequence[Hold]:
        """See `SpoolView.holds`. Raises SpoolUnusable."""
        with self._reading():
            return [_hold(row) for row in self._rows(f"{HOLDS} ORDER BY since, scope, subject")]

    def failures(self, since: float) -> Iterator[FailureLine]:
        """See `SpoolView.failures`. Raises SpoolUnusable."""
        with self._reading():
            yield from merge(self._failures(since), self._bad_news(since), key=attrgetter("mail"))

    def _failures(self, since: float) -> Iterator[FailureLine]:
        cursor = self._connection.cursor("failures")
        for number, failures in groupby(cursor.execute(_FAILURES, {"since": since}), itemgetter(0)):
            told = self._told(number)
            for row in failures:
                line = _failure(row, told)
                if line.at >= since:
                    yield line

    def _bad_news(self, since: float) -> Iterator[FailureLine]:
        rows = self._connection.cursor("bad_news").execute(_BAD_NEWS, (since,))
        for number, at, route, sender, recipient, told, upstream, words in rows:
            yield FailureLine(number, at, route, sender, recipient, told, told_by=upstream, words=words)

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One moment of the spool for all that is read in it."""
        try:
            with self._connection.transaction(force_rollback=True):
                yield
        except psycopg.Error as error:
            raise SpoolUnusable(schema.unusable(error)) from error

    def _rows(self, statement: str, values: Values | tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def _line(self, row: tuple[Any, ...]) -> MailLine:
        number, route, sender, received_at, attempts, size, due_at, leased = row
        last = last_outcomes(event[4] for event in self._rows(_EVENTS, (number,)) if event[4])
        query = 'SELECT address, state FROM recipient WHERE mail = %s ORDER BY address COLLATE "C"'
        people = tuple(
            RecipientLine(address, state, last.get(address)) for address, state in self._rows(query, (number,))
        )
        hold = None if due_at is None else self._hold_on(number, route, sender)
        return MailLine(number, route, sender, people, received_at, due_at, attempts, size, bool(leased), hold)

    def _hold_on(self, number: int, route: str, sender: str) -> Hold | None:
        for key in keys_of(id_text(number), route, sender):
            rows = self._rows(f"{HOLDS} WHERE scope = %s AND subject = %s", key)
            if rows:
                return _hold(rows[0])
        return None

    def _told(self, number: int) -> dict[str, tuple[float, Outcome]]:
        """The newest outcome of each recipient of a mail, and when it came."""
        newest: dict[str, tuple[float, Outcome]] = {}
        for event in self._rows(_EVENTS, (number,)):
            for address, outcome in read_results(event[4]) if event[4] else ():
                newest[address] = event[0] + (event[3] or 0.0), outcome
        return newest

    def _story(self, line: MailLine) -> Story:
        query = "SELECT message_id, peer, helo, repairs FROM mail WHERE id = %s"
        message_id, peer, helo, repairs = self._rows(query, (line.id,))[0]
        entries = [TimelineEntry(line.received_at, "received", f"from {peer} ({helo}), {line.size} octets")]
        if repairs:
            entries.append(TimelineEntry(line.received_at, "repaired", ", ".join(repairs.split("\n"))))
        for at, text, upstream, seconds, results, told, recipient in self._rows(_EVENTS, (line.id,)):
            outcomes = tuple(read_results(results)) if results else ()
            event = told or ("note" if upstream is None else "attempt")
            entries.append(TimelineEntry(at, event, text, upstream, seconds, outcomes, recipient))
        return Story(line, message_id, peer, helo, tuple(entries))


def _hold(row: tuple[Any, ...]) -> Hold:
    return Hold(Scope(row[0]), *row[1:])


def _failure(row: tuple[Any, ...], told: Mapping[str, tuple[float, Outcome]]) -> FailureLine:
    """A mail is settled with its last recipient: this one may have failed days before, at its own last attempt."""
    number, settled_at, route, sender, address, how = row
    at, last = told.get(address, (settled_at or 0.0, None))
    return FailureLine(number, settled_at or at if how == "dropped" else at, route, sender, address, how, last)


def _mails_to_domain(order: str) -> str:
    """The numbers of a domain's mails in their order, from the ends of its parts: how many there are takes no time."""
    return f"""
SELECT DISTINCT one.mail FROM generate_series(0, {PARTS - 1}) AS number, LATERAL (
  SELECT DISTINCT mail FROM recipient WHERE domain = %(domain)s AND part = number AND mail > %(after)s
  ORDER BY mail {order} LIMIT %(upto)s) AS one
ORDER BY one.mail {order} LIMIT %(step)s OFFSET %(past)s"""


def _list(which: Filter, limit: int, after: int, newest_first: bool) -> tuple[str, Values]:
    columns, tables, first = _SOURCES[which.settled]
    where, values = conditions(which, first, after)
    order = f"{first}.id DESC" if newest_first else f"{first}.id"
    statement = f"{_OF_MAIL}, {columns} FROM {tables} WHERE {where} ORDER BY {order} LIMIT %(limit)s"
    return statement, {**values, "limit": limit}
