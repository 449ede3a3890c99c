"""The SQLite spool as people ask about it, beside a running relay and without it. It cannot write.

Everything it asks is answered from an index or by walking mail in the order it came; it must never read content.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from routing.mail import domain_of
from spool.contract import SpoolUnusable
from spool.records import last_outcomes, read_results
from spool.schema import connect_for_reading, path_of
from spool.view import Filter, MailLine, RecipientLine, SpoolView, Story, TimelineEntry

_Event = tuple[float, str, str | None, float | None, str | None, str | None, str | None]
_OF_MAIL: Final = "SELECT mail.id, mail.route, mail.sender, mail.received_at, mail.attempts, mail.size"
_WAITING: Final = f"{_OF_MAIL}, waiting.due_at, waiting.leased FROM waiting JOIN mail ON mail.id = waiting.id"
_SETTLED: Final = f"{_OF_MAIL}, NULL, 0 FROM mail"
_ANY: Final = f"{_OF_MAIL}, waiting.due_at, waiting.leased FROM mail LEFT JOIN waiting ON waiting.id = mail.id"
_TO_DOMAIN: Final = "(SELECT mail FROM recipient WHERE domain = :domain AND mail > :after)"
_TO_ADDRESS: Final = _TO_DOMAIN.replace(")", " AND address = :recipient COLLATE NOCASE)")


class SqliteView(SpoolView):
    """Reads the spool at `url`. Raises SpoolUnusable when there is none, or none that can be read."""

    def __init__(self, url: str) -> None:
        self._path = path_of(url)
        self._connection = connect_for_reading(self._path)

    def list(self, which: Filter, limit: int, after: int = 0) -> Sequence[MailLine]:
        """Waiting mail, or with `which.settled` the mail that is settled. Raises SpoolUnusable."""
        statement, values = list_statement(which, limit, after)
        with self._reading():
            return [self._line(row) for row in self._connection.execute(statement, values).fetchall()]

    def show(self, number: int) -> Story | None:
        """See `SpoolView.show`. Raises SpoolUnusable."""
        with self._reading():
            row = self._connection.execute(f"{_ANY} WHERE mail.id = ?", (number,)).fetchone()
            return None if row is None else self._story(self._line(row))

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
        return MailLine(number, route, sender, recipients, received_at, due_at, attempts, size, bool(leased))

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


def list_statement(which: Filter, limit: int, after: int) -> tuple[str, dict[str, object]]:
    """The query behind `SqliteView.list`: text made of constants, values apart."""
    first = "mail" if which.settled else "waiting"
    where = [f"{first}.id > :after"]
    if which.settled:
        where.append("mail.settled_at IS NOT NULL")
    if which.route is not None:
        where.append(f"{first}.route = :route")
    if which.older_than is not None:
        where.append("mail.received_at < :older_than")
    if which.sender is not None:
        pattern = "mail.sender = :sender COLLATE NOCASE"
        where.append("mail.sender LIKE :sender_domain ESCAPE '\\'" if which.sender.startswith("@") else pattern)
    if which.recipient is not None:
        where.append(f"{first}.id IN {_TO_DOMAIN if which.recipient.startswith('@') else _TO_ADDRESS}")
    source = _SETTLED if which.settled else _WAITING
    values: dict[str, object] = {
        "after": after,
        "route": which.route,
        "older_than": which.older_than,
        "sender": which.sender,
        "sender_domain": "%" + _literal(which.sender or ""),
        "recipient": which.recipient,
        "domain": domain_of(which.recipient or ""),
        "limit": limit,
    }
    return f"{source} WHERE {' AND '.join(where)} ORDER BY {first}.id LIMIT :limit", values


def _literal(text: str) -> str:
    """`text` as a LIKE pattern that stands for itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
