"""The SQLite spool as people ask about it, beside a running relay and without it. It cannot write.

Everything it asks is answered from an index or by walking mail in the order it came; it must never read content.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from heapq import merge
from itertools import groupby, islice
from types import MappingProxyType
from typing import Any, Final

from routing.mail import domain_of
from spool import ledger, statements
from spool.contract import SpoolUnusable
from spool.filtering import MAILS_OF_PART, PARTS, Values, conditions
from spool.rows_view import Lines, Row, RowsView, Statements
from spool.schema import connect_for_reading, path_of
from spool.view import Filter, GivenOrder, SlowMail, Spent, Volume

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


class SqliteView(RowsView):
    """Reads the spool at `url`. Raises SpoolUnusable when there is none, or none that can be read."""

    _sql = Statements(
        events="SELECT at, text, upstream, seconds, results, told, recipient FROM event WHERE mail = ? ORDER BY number",
        people="SELECT address, state FROM recipient WHERE mail = ? ORDER BY address",
        about="SELECT message_id, peer, helo, repairs FROM mail WHERE id = ?",
        hold=f"{_HOLD} WHERE scope = ? AND subject = ?",
        holds=f"{_HOLD} ORDER BY since, scope, subject",
        loads=statements.LOADS,
        failures=FAILURES,
        bad_news=BAD_NEWS,
    )

    def __init__(self, url: str) -> None:
        self._path = path_of(url)
        self._connection = connect_for_reading(self._path)

    def _listed(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        return [self._line(row) for row in self._rows(*list_statement(which, limit, after, newest_first=newest_first))]

    def _to_domain(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        found: Lines = []
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

    def count(self, which: Filter) -> int:
        """See `SpoolView.count`. Raises SpoolUnusable."""
        with self._reading():
            return int(self._connection.execute(*count_statement(which)).fetchone()[0])

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

    def _rows(self, statement: str, values: Any = ()) -> Sequence[Row]:
        return self._connection.execute(statement, values).fetchall()

    def _stream(self, _name: str, statement: str, values: Any) -> Iterable[Row]:
        return self._connection.execute(statement, values)


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
