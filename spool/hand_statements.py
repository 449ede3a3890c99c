"""What is said to SQLite when people act on waiting mail. Mail on hold is due at infinity, so that no lease meets it.

Functions expect an open transaction and never commit. Nothing here remembers anything between calls.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from spool.contract import Settled, id_text
from spool.filtering import Values, conditions
from spool.holding import Held, Hold, Key, Scope
from spool.view import Filter

_KEEP_HOLD: Final = "INSERT OR REPLACE INTO hold (scope, subject, since, who, reason) VALUES (?, ?, ?, ?, ?)"
_NOTE: Final = "INSERT INTO event (mail, at, text) VALUES (?, ?, ?)"
_HURRY: Final = "UPDATE waiting SET due_at = ?1 WHERE id = ?2 AND due_at > ?1 AND due_at < 9e999"
_RELEASE_ROUTE: Final = "UPDATE waiting SET due_at = min(due_at, ?1), released_at = ?1 WHERE id = ?2"
_RELEASE: Final = """
UPDATE waiting SET released_at = ?, due_at = (SELECT received_at FROM mail WHERE mail.id = waiting.id) WHERE id = ?"""


@dataclass(frozen=True, slots=True)
class Row:
    """A waiting mail, leased or not. `size` is in octets."""

    id: int
    route: str
    sender: str
    due_at: float
    size: int

    @property
    def parked(self) -> bool:
        """On hold for itself or its sender; a hold on its route does not show here."""
        return self.due_at == inf


def select_statement(which: Filter, after: int, limit: int) -> tuple[str, Values]:
    """The query behind `select`."""
    where, values = conditions(which, "waiting", after)
    columns = "waiting.id, waiting.route, mail.sender, waiting.due_at, waiting.size"
    tables = "waiting JOIN mail ON mail.id = waiting.id"
    statement = f"SELECT {columns} FROM {tables} WHERE {where} ORDER BY waiting.id LIMIT :limit"  # noqa: S608
    return statement, {**values, "limit": limit}


def select(connection: sqlite3.Connection, which: Filter, after: int, limit: int) -> list[Row]:
    """Waiting mails by arrival, from the id behind `after`."""
    return [Row(*row) for row in connection.execute(*select_statement(which, after, limit))]


def holds(connection: sqlite3.Connection) -> list[Hold]:
    """All holds."""
    rows = connection.execute("SELECT scope, subject, since, who, reason FROM hold").fetchall()
    return [Hold(Scope(scope), *row) for scope, *row in rows]


def keep_hold(connection: sqlite3.Connection, hold: Hold) -> None:
    """Write a hold down, in the place of an earlier one on the same subject."""
    connection.execute(_KEEP_HOLD, (hold.scope, hold.subject, hold.since, hold.who, hold.reason))


def forget_hold(connection: sqlite3.Connection, key: Key) -> None:
    """A hold is over."""
    connection.execute("DELETE FROM hold WHERE scope = ? AND subject = ?", key)


def note(connection: sqlite3.Connection, ids: Iterable[int], text: str, now: float) -> None:
    """A sentence on the timeline of mails."""
    readable = text.encode("utf-8", "backslashreplace").decode()
    connection.executemany(_NOTE, [(number, now, readable) for number in ids])


def park(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """These waiting mails are due no more."""
    connection.executemany("UPDATE waiting SET due_at = 9e999 WHERE id = ?", [(number,) for number in ids])


def park_held(connection: sqlite3.Connection, rows: Sequence[Row], held: Held) -> None:
    """Of these mails, those that are held for themselves or their sender are due no more."""
    park(connection, [row.id for row in rows if not row.parked and held.mail(id_text(row.id), row.sender)])


def unpark(connection: sqlite3.Connection, rows: Sequence[Row], held: Held, now: float) -> None:
    """Of these mails, those that nothing holds any more are due since they came: they leave in that order."""
    free = [row.id for row in rows if row.parked and not held.mail(id_text(row.id), row.sender)]
    connection.executemany(_RELEASE, [(now, number) for number in free])


def release_route(connection: sqlite3.Connection, rows: Sequence[Row], now: float) -> None:
    """The route of these mails is on hold no more; those that are held for themselves stay so."""
    connection.executemany(_RELEASE_ROUTE, [(now, row.id) for row in rows if not row.parked])


def hurry(connection: sqlite3.Connection, rows: Sequence[Row], now: float) -> None:
    """These mails are due now, but not those on hold."""
    connection.executemany(_HURRY, [(now, row.id) for row in rows])


def drop(connection: sqlite3.Connection, rows: Sequence[Row], text: str, now: float) -> None:
    """These mails are settled as dropped, and with them a hold of their own; the content first, for it makes room."""
    ids = [(row.id,) for row in rows]
    for statement in (
        "DELETE FROM content WHERE mail = ?",
        "DELETE FROM waiting WHERE id = ?",
        f"UPDATE recipient SET state = '{Settled.DROPPED}' WHERE mail = ? AND state = 'waiting'",  # noqa: S608
    ):
        connection.executemany(statement, ids)
    connection.executemany("UPDATE mail SET settled_at = ? WHERE id = ?", [(now, row.id) for row in rows])
    connection.executemany(
        "DELETE FROM hold WHERE scope = ? AND subject = ?", [(Scope.MAIL, id_text(row.id)) for row in rows]
    )
    note(connection, [row.id for row in rows], text, now)
