"""What providers told, in the SQLite file: on the timeline of a mail that is theirs, once.

Expects an open transaction and never commits: a request's seal and its events are kept together or not at all.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from routing.provider_events import ProviderEvent
from spool.contract import Noted, Notice, id_number

FORGET_SEALS: Final = "DELETE FROM seal WHERE mark IN (SELECT mark FROM seal WHERE until < ? LIMIT 1000)"
_KEEP_SEAL: Final = "INSERT INTO seal (mark, until) VALUES (?, ?) ON CONFLICT DO NOTHING"
ROUTE: Final = "SELECT route FROM mail WHERE id = ?"
HANDED: Final = "SELECT 1 FROM event WHERE mail = ? AND upstream = ? AND told IS NULL LIMIT 1"
_KEEP_EVENT: Final = """
INSERT INTO event (mail, at, text, upstream, told, recipient, source) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING"""


def note(connection: sqlite3.Connection, notice: Notice, now: float) -> tuple[Noted, ...] | None:
    """See `Spool.note`. Seals that are over by `now` are forgotten on the way."""
    connection.execute(FORGET_SEALS, (now,))
    if not connection.execute(_KEEP_SEAL, (notice.seal, notice.until)).rowcount:
        return None
    return tuple(_note(connection, notice, event) for event in notice.events)


def _note(connection: sqlite3.Connection, notice: Notice, event: ProviderEvent) -> Noted:
    try:
        number = id_number(event.mail)
    except ValueError:
        return Noted(None, False)
    found = connection.execute(ROUTE, (number,)).fetchone()
    if found is None or not _is_theirs(connection, notice, number, found[0]):
        return Noted(None, False)
    values = (number, event.at, event.reply, notice.upstream, event.told, event.recipient, event.id)
    return Noted(found[0], connection.execute(_KEEP_EVENT, values).rowcount == 1)


def _is_theirs(connection: sqlite3.Connection, notice: Notice, number: int, route: str) -> bool:
    """The route speaks first, as an event may overtake the record of its own attempt; history, when the mail moved."""
    if route in notice.routes:
        return True
    return connection.execute(HANDED, (number, notice.upstream)).fetchone() is not None
