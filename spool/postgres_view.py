"""The PostgreSQL spool as people ask about it, beside running nodes and without them. It cannot write.

Everything it asks is answered from an index or by walking mail in the order it came; it must never read content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import psycopg

from routing.mail import domain_of
from spool import postgres_books as books
from spool import postgres_schema as schema
from spool.contract import SpoolUnusable
from spool.postgres_filtering import PARTS, Values, conditions
from spool.postgres_node import HOLDS
from spool.postgres_pace import NOW
from spool.rows_view import Lines, Row, RowsView, Statements
from spool.view import Filter, GivenOrder, NodeLine, SlowMail, Spent, Taken, Volume

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


class PostgresView(RowsView):
    """Reads the spool at `url`. Raises SpoolUnusable when there is none, or none that can be read."""

    _sql = Statements(
        events=_EVENTS,
        people='SELECT address, state FROM recipient WHERE mail = %s ORDER BY address COLLATE "C"',
        about="SELECT message_id, peer, helo, repairs FROM mail WHERE id = %s",
        hold=f"{HOLDS} WHERE scope = %s AND subject = %s",
        holds=f"{HOLDS} ORDER BY since, scope, subject",
        loads=_LOADS,
        failures=_FAILURES,
        bad_news=_BAD_NEWS,
    )

    def __init__(self, url: str, password: str | None = None) -> None:
        try:
            self._connection = schema.connect(schema.options_of(url, password) | {"target_session_attrs": "any"})
            schema.check(self._connection)
            self._connection.execute("SET default_transaction_read_only = on")
            self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        except psycopg.Error as error:
            raise SpoolUnusable(schema.unusable(error)) from error

    def _listed(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        return [self._line(row) for row in self._rows(*_list(which, limit, after, newest_first))]

    def _to_domain(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        found: Lines = []
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

    def count(self, which: Filter) -> int:
        """See `SpoolView.count`. Raises SpoolUnusable."""
        _, tables, first = _SOURCES[which.settled]
        where, values = conditions(which, first, 0)
        with self._reading():
            return int(self._rows(f"SELECT count(*) FROM {tables} WHERE {where}", values)[0][0])

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

    def _rows(self, statement: str, values: Any = ()) -> Sequence[Row]:
        return self._connection.execute(statement, values).fetchall()

    def _stream(self, name: str, statement: str, values: Any) -> Iterable[Row]:
        return self._connection.cursor(name).execute(statement, values)


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
