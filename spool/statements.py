"""What is said to SQLite: every statement on the spool file, as functions of a connection.

Writing functions expect an open transaction and never commit. Nothing here remembers anything between calls.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from routing.mail import domain_of
from spool.contract import SPENT_SLOT, Arrival, Leased, Pending
from spool.ids import GREATEST
from spool.log_records import MailRecord, SettlementRecord, mail_record
from spool.rows import Rows
from spool.view import Spent

_KEEP_MAIL: Final = Rows(
    "INSERT INTO mail (id, route, sender, received_at, size, peer, helo, message_id, repairs) VALUES {rows}", 9
)
_KEEP_ENDED: Final = Rows(
    "INSERT INTO mail (id, route, sender, received_at, size, peer, helo, message_id, repairs, attempts, settled_at) "
    "VALUES {rows}", 11
)  # fmt: skip
_KEEP_WAITING: Final = Rows("INSERT INTO waiting (id, route, due_at, size) VALUES {rows}", 4)
_KEEP_CONTENT: Final = Rows("INSERT INTO content (mail, bytes) VALUES {rows}", 2)
_HELD: Final = 8 << 10
"""A prepared statement holds a copy of what it was given last, and there are 18 of `_KEEP_CONTENT`. Contents of more
octets than these go by one, which is given `_NOTHING` last.
"""
_KEEP_LARGE: Final = "INSERT INTO content (mail, bytes) SELECT ?1, ?2 WHERE ?1"
_NOTHING: Final = (0, b"")
_KEEP_RECIPIENT: Final = Rows("INSERT INTO recipient (mail, address, domain) VALUES {rows}", 3)
_KEEP_ENDED_RECIPIENT: Final = Rows("INSERT INTO recipient (mail, address, domain, state, doubts) VALUES {rows}", 5)
_KEEP_EVENT: Final = Rows("INSERT INTO event (mail, at, text, upstream, seconds, results) VALUES {rows}", 6)
_END_RECIPIENT: Final = "UPDATE recipient SET state = ? WHERE mail = ? AND address = ?"
_DOUBT_RECIPIENT: Final = "UPDATE recipient SET doubts = doubts + 1 WHERE mail = ? AND address = ?"
_SETTLE_MAIL: Final = """
UPDATE mail SET attempts = attempts + ?, route = coalesce(?, route), settled_at = ? WHERE id = ?"""
_POSTPONE: Final = "UPDATE waiting SET due_at = ?, route = coalesce(?, route), leased = 0 WHERE id = ?"
_WARNED: Final = "UPDATE waiting SET warned = 1 WHERE id = ?"
_END_WAITING: Final = Rows("DELETE FROM waiting WHERE id IN (VALUES {rows})", 1)
_END_CONTENT: Final = Rows("DELETE FROM content WHERE mail IN (VALUES {rows})", 1)
DUE: Final = "SELECT id FROM waiting WHERE route = ? AND due_at <= ? ORDER BY due_at, id LIMIT ?"
FIRST_DUE: Final = "SELECT id, due_at FROM waiting WHERE route = ? ORDER BY due_at, id LIMIT ?"
OLDEST: Final = "SELECT id FROM waiting WHERE route = ? ORDER BY id LIMIT ?"
WAKE: Final = """
UPDATE waiting SET due_at = ?1 WHERE id IN (
  SELECT id FROM waiting WHERE route = ?2 AND due_at > ?1 AND due_at < 9e999 ORDER BY due_at LIMIT ?3)"""
SENDERS: Final = """
SELECT waiting.id, mail.sender FROM waiting JOIN mail ON mail.id = waiting.id
WHERE waiting.route = ? AND waiting.id > ? ORDER BY waiting.id LIMIT ?"""
_SPEND: Final = """
INSERT INTO spent (account, slot, mails, recipients) VALUES (?, ?, ?, ?) ON CONFLICT (account, slot)
DO UPDATE SET mails = max(0, mails + excluded.mails), recipients = max(0, recipients + excluded.recipients)"""
LOADS: Final = """
SELECT route, count(*), sum((SELECT count(*) FROM recipient WHERE mail = waiting.id AND state = 'waiting'))
FROM waiting GROUP BY route"""
_SPENT_KEPT: Final = 2 * 86400.0
FIRST_KEPT: Final = "SELECT id FROM mail WHERE received_at >= ? AND received_at <= ? ORDER BY id LIMIT 1"
FORGOTTEN: Final = "SELECT id FROM mail WHERE id < ? AND settled_at < ? ORDER BY id LIMIT ?"


@dataclass(frozen=True, slots=True)
class Count:
    """What waits: mails by route, and octets of content of all."""

    mails: Mapping[str, int]
    octets: int


@dataclass(frozen=True, slots=True)
class Due:
    """Ids that are due, longest first. `following` is when the next one after them is due; None when not known."""

    ids: tuple[int, ...]
    following: float | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A mail on disk that cannot be read back."""

    id: int
    error: str


def insert(connection: sqlite3.Connection, arrivals: Sequence[Arrival]) -> None:
    """Keep new mails."""
    insert_records(connection, [(mail_record(arrival), arrival.content) for arrival in arrivals])


def insert_records(connection: sqlite3.Connection, mails: Sequence[tuple[MailRecord, bytes]]) -> None:
    """Keep new mails, each with its content."""
    _KEEP_MAIL.write(connection, [mail.row for mail, _ in mails])
    _KEEP_WAITING.write(connection, [(m.id, m.row[1], m.row[3], m.size) for m, _ in mails])
    _KEEP_CONTENT.write(connection, [(mail.id, content) for mail, content in mails if len(content) <= _HELD])
    large = [(mail.id, content) for mail, content in mails if len(content) > _HELD]
    connection.executemany(_KEEP_LARGE, [*large, _NOTHING] if large else ())
    _KEEP_RECIPIENT.write(
        connection, [(mail.id, address, domain_of(address)) for mail, _ in mails for address in mail.recipients]
    )


def insert_settled(connection: sqlite3.Connection, mails: Sequence[tuple[MailRecord, SettlementRecord]]) -> None:
    """Keep new mails whose first settlement was their last: they never wait, and their content is not kept."""
    _KEEP_ENDED.write(
        connection,
        [(m.id, s.route or m.row[1], *m.row[2:], int(s.counted), s.at) for m, s in mails],
    )  # fmt: skip
    rows = [
        (m.id, address, domain_of(address), s.done.get(address, "waiting"), int(address in s.doubted))
        for m, s in mails
        for address in m.recipients
    ]
    _KEEP_ENDED_RECIPIENT.write(connection, rows)
    _KEEP_EVENT.write(connection, [(s.id, *event) for _, s in mails for event in s.events])


def apply(connection: sqlite3.Connection, settlements: Sequence[SettlementRecord]) -> None:
    """Record what became of leased mails; the content goes with the last recipient."""
    finished = [(s.id,) for s in settlements if s.final]
    _END_CONTENT.write(connection, finished)  # First: on a full disk the rest needs the room that this makes.
    _END_WAITING.write(connection, finished)
    many = connection.executemany
    many(_END_RECIPIENT, [(state, s.id, address) for s in settlements for address, state in s.done.items()])
    many(_DOUBT_RECIPIENT, [(s.id, address) for s in settlements for address in s.doubted])
    _KEEP_EVENT.write(connection, [(s.id, *event) for s in settlements for event in s.events])
    many(_SETTLE_MAIL, [(s.counted, s.route, s.at if s.final else None, s.id) for s in settlements])
    many(_POSTPONE, [(s.due_at, s.route, s.id) for s in settlements if not s.final])
    many(_WARNED, [(s.id,) for s in settlements if s.warned])


def count(connection: sqlite3.Connection) -> Count:
    """What waits: a walk over an index and one over `waiting`, in constant memory. By route and size in one statement
    would go to and fro between them, five times as long with a million mails.
    """
    mails = dict(connection.execute("SELECT route, count(*) FROM waiting GROUP BY route").fetchall())
    (octets,) = connection.execute("SELECT coalesce(sum(size), 0) FROM waiting").fetchone()
    return Count(mails, octets)


def free_octets(connection: sqlite3.Connection) -> int:
    """The room inside the file that deleted rows left."""
    (pages,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_size"))
    return int(pages * size)


def begin(connection: sqlite3.Connection) -> int:
    """A new process: no lease is left. Returns the greatest number of all mails, 0 when there is none."""
    connection.execute("UPDATE waiting SET leased = 0 WHERE leased = 1")
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM mail").fetchone()[0])


def mark(connection: sqlite3.Connection, ids: Iterable[int], leased: bool) -> None:
    """For people: these waiting mails are under way, or are not any more."""
    connection.executemany("UPDATE waiting SET leased = ? WHERE id = ?", [(leased, number) for number in ids])


def due(connection: sqlite3.Connection, route: str, now: float, limit: int) -> Due:
    """The first `limit` mails of the route that are due, leased ones too."""
    ids = tuple(row[0] for row in connection.execute(DUE, (route, now, limit)))
    if len(ids) == limit:
        return Due(ids, None)
    later = connection.execute("SELECT min(due_at) FROM waiting WHERE route = ? AND due_at > ?", (route, now))
    following = later.fetchone()[0]
    return Due(ids, float("inf") if following is None else following)


def first_due(connection: sqlite3.Connection, route: str, limit: int) -> list[tuple[int, float]]:
    """(id, due at) of the mails that are due first, leased ones too."""
    return connection.execute(FIRST_DUE, (route, limit)).fetchall()


def oldest(connection: sqlite3.Connection, route: str, limit: int) -> list[tuple[int, float]]:
    """(id, received at) of the mails that came first, leased ones too."""
    rows = connection.execute(OLDEST, (route, limit)).fetchall()
    received = "SELECT received_at FROM mail WHERE id = ?"
    return [(number, connection.execute(received, (number,)).fetchone()[0]) for (number,) in rows]


def load(connection: sqlite3.Connection, ids: Iterable[int]) -> list[Leased | Unreadable]:
    """Waiting mails with their content. One with a damaged part must not keep the others from going."""
    loaded: list[Leased | Unreadable] = []
    for number in ids:
        try:
            loaded.append(_load(connection, number))
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            loaded.append(Unreadable(number, str(error)))
    return loaded


def _load(connection: sqlite3.Connection, number: int) -> Leased:
    row = connection.execute(
        "SELECT waiting.route, sender, received_at, attempts, released_at, warned, bytes FROM mail "
        "JOIN waiting USING (id) JOIN content ON content.mail = mail.id WHERE mail.id = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("a part of the mail is missing")
    route, sender, received_at, attempts, released_at, warned, content = row
    recipients = connection.execute(
        "SELECT address, doubts FROM recipient WHERE mail = ? AND state = 'waiting' ORDER BY address", (number,)
    )
    pending = tuple(Pending(address, doubts) for address, doubts in recipients)
    return Leased(number, route, sender, pending, content, received_at, attempts, released_at, bool(warned))


def wake(connection: sqlite3.Connection, route: str, now: float, limit: int) -> int:
    """Make up to `limit` mails of the route due now. Returns how many were not before."""
    return connection.execute(WAKE, (now, route, limit)).rowcount


def senders(connection: sqlite3.Connection, route: str, after: int, limit: int) -> list[tuple[int, str]]:
    """(id, envelope sender) of the route's waiting mail, by arrival, from the id behind `after`."""
    return connection.execute(SENDERS, (route, after, limit)).fetchall()


def move(connection: sqlite3.Connection, old: str, moves: Mapping[int, str]) -> dict[str, list[int]]:
    """Give waiting mails of the route `old` another one. Returns, by new route, those that were still there."""
    moved: dict[str, list[int]] = {}
    for number, route in moves.items():
        update = "UPDATE waiting SET route = ? WHERE id = ? AND route = ?"
        if connection.execute(update, (route, number, old)).rowcount:
            connection.execute("UPDATE mail SET route = ? WHERE id = ?", (route, number))
            moved.setdefault(route, []).append(number)
    return moved


def first_kept(connection: sqlite3.Connection, since: float, now: float) -> int:
    """The number of the first mail that came since then: behind it no mail was settled before. By its own time, for
    numbers go on from the greatest when a clock was set back, and may be ahead of it by years.
    """
    row = connection.execute(FIRST_KEPT, (since, now)).fetchone()
    return GREATEST if row is None else int(row[0])


def forget(connection: sqlite3.Connection, first_kept: int, before: float, limit: int) -> int:
    """Delete up to `limit` mails settled before that time, with their story, and with numbers below `first_kept`.
    Returns how many.
    """
    rows = connection.execute(FORGOTTEN, (first_kept, before, limit)).fetchall()
    for table, column in (("event", "mail"), ("recipient", "mail"), ("mail", "id")):
        connection.executemany(f"DELETE FROM {table} WHERE {column} = ?", rows)  # noqa: S608 (names from this line)
    return len(rows)


def spend(connection: sqlite3.Connection, spent: Sequence[Spent]) -> None:
    """Count what is sent, by account and slot; what is two days older is forgotten."""
    rows = [(one.account, _slot(one.at), one.mails, one.recipients) for one in spent]
    connection.executemany(_SPEND, rows)
    old = _slot(max(one.at for one in spent) - _SPENT_KEPT)
    connection.executemany("DELETE FROM spent WHERE account = ? AND slot < ?", {(one.account, old) for one in spent})


def spent(connection: sqlite3.Connection, since: float) -> list[Spent]:
    """All that was counted from the slot of `since` on; the oldest first."""
    rows = connection.execute(
        "SELECT account, slot, mails, recipients FROM spent WHERE slot >= ? ORDER BY slot", (_slot(since),)
    )
    return [Spent(account, (slot + 1) * SPENT_SLOT, mails, recipients) for account, slot, mails, recipients in rows]


def _slot(at: float) -> int:
    return int(at // SPENT_SLOT)
