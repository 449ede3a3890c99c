"""What is said to PostgreSQL when people act on waiting mail, and when rules change. Mail on hold is due at infinity.

Each function expects an open transaction, which is all or nothing; none commits. Leased mail is never touched: its
attempt ends as it began, whichever node makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from psycopg import Connection

from spool.contract import Settled, Tally, id_number
from spool.holding import Hold, Key, Scope
from spool.postgres_filtering import conditions
from spool.postgres_statements import ON_HOLD, columns, count, first, readable
from spool.view import Filter

_KEEP_HOLD: Final = """
INSERT INTO hold (scope, subject, since, who, reason, mail) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (scope, subject) DO UPDATE SET since = excluded.since, who = excluded.who, reason = excluded.reason"""
_FORGET_HOLD: Final = """
DELETE FROM hold WHERE scope = %s AND subject = %s RETURNING scope, subject, since, who, reason"""
_COVERED: Final = {
    Scope.MAIL: "waiting.id = %(mail)s",
    Scope.SENDER: "%(subject)s IN (waiting.sender, '@' || waiting.domain)",
    Scope.ROUTE: "waiting.route = %(subject)s",
}
_PARK: Final = "UPDATE waiting SET due_at = 'Infinity' WHERE node IS NULL AND "
_RELEASE: Final = (
    "UPDATE waiting SET released_at = %(now)s, due_at = received_at "
    f"WHERE node IS NULL AND due_at = 'Infinity' AND NOT {ON_HOLD} AND "
)
_RELEASE_ROUTE: Final = """
UPDATE waiting SET released_at = %(now)s, due_at = least(due_at, %(now)s)
WHERE due_at < 'Infinity' AND route = %(subject)s
"""
_ROUTE_HELD: Final = "EXISTS (SELECT FROM hold WHERE scope = 'route' AND subject = waiting.route)"
_NOTE: Final = "INSERT INTO event (mail, at, text) SELECT id, %s, %s FROM unnest(%s::bigint[]) AS id"
_WAKE: Final = """
UPDATE waiting SET due_at = %(now)s
WHERE route = %(route)s AND due_at > %(now)s AND due_at < 'Infinity' AND node IS NULL"""
_SENDERS: Final = """
SELECT waiting.id, mail.sender, waiting.route FROM waiting JOIN mail USING (id) WHERE waiting.id > %s
ORDER BY waiting.id LIMIT 1000"""
_MOVE: Final = """
UPDATE waiting SET route = new.route FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS new (id, old, route)
WHERE waiting.id = new.id AND waiting.route = new.old RETURNING waiting.id, new.route"""


def hold(connection: Connection, hold: Hold, note: str | None) -> bool:
    """See `Spool.hold`."""
    number = id_number(hold.subject) if hold.scope is Scope.MAIL else None
    # The row is locked, so that the mail is leased before this, and comes back to a hold, or not at all.
    if (
        number is not None
        and not connection.execute("SELECT FROM waiting WHERE id = %s FOR UPDATE", (number,)).rowcount
    ):
        return False
    connection.execute(_KEEP_HOLD, (hold.scope, hold.subject, hold.since, hold.who, hold.reason, number))
    if hold.scope is not Scope.ROUTE:
        connection.execute(_PARK + _COVERED[hold.scope], {"mail": number, "subject": hold.subject})
    _note(connection, hold.key, note, hold.since)
    return True


def release(connection: Connection, key: Key, note: str | None, now: float) -> Hold | None:
    """See `Spool.release`."""
    row = connection.execute(_FORGET_HOLD, key).fetchone()
    if row is None:
        return None
    scope, subject = key
    values = {"now": now, "subject": subject, "mail": id_number(subject) if scope is Scope.MAIL else None}
    statement = _RELEASE_ROUTE if scope is Scope.ROUTE else _RELEASE + _COVERED[scope]
    connection.execute(statement, values)
    _note(connection, key, note, now)
    return Hold(Scope(row[0]), *row[1:])


def hurry(connection: Connection, which: Filter, note: str | None, now: float) -> Tally:
    """See `Spool.hurry`."""
    where, values = conditions(which, "waiting", 0)
    found = f"SELECT waiting.id FROM waiting JOIN mail ON mail.id = waiting.id WHERE {where}"
    free = f"{found} AND node IS NULL AND due_at < 'Infinity' AND NOT {_ROUTE_HELD} FOR UPDATE OF waiting SKIP LOCKED"
    total = first(connection.execute(f"SELECT count(*) FROM ({found}) AS found", values).fetchone())
    ids = [row[0] for row in connection.execute(free, values)]
    update = "UPDATE waiting SET due_at = least(due_at, %s) WHERE id = ANY(%s)"
    connection.execute(update, (now, ids))
    if note is not None and which.ids:
        connection.execute(_NOTE, (now, readable(note), ids))
    return Tally(len(ids), total - len(ids))


def drop(connection: Connection, which: Filter, note: str, now: float, slot: int) -> tuple[Tally, int]:
    """See `Spool.drop`. Also this node's count of octets afterwards."""
    where, values = conditions(which, "waiting", 0)
    found = f"SELECT waiting.id, waiting.size FROM waiting JOIN mail ON mail.id = waiting.id WHERE {where}"
    total = first(connection.execute(f"SELECT count(*) FROM ({found}) AS found", values).fetchone())
    rows = connection.execute(f"{found} AND node IS NULL FOR UPDATE OF waiting SKIP LOCKED", values).fetchall()
    ids = [row[0] for row in rows]
    for statement in (
        "DELETE FROM content WHERE mail = ANY(%s)",
        "DELETE FROM waiting WHERE id = ANY(%s)",
        "DELETE FROM hold WHERE mail = ANY(%s)",
        f"UPDATE recipient SET state = '{Settled.DROPPED}' WHERE mail = ANY(%s) AND state = 'waiting'",
    ):
        connection.execute(statement, (ids,))
    connection.execute("UPDATE mail SET settled_at = %s WHERE id = ANY(%s)", (now, ids))
    connection.execute(_NOTE, (now, readable(note), ids))
    own = count(connection, slot, -sum(row[1] for row in rows))
    return Tally(len(ids), total - len(ids)), own


def wake(connection: Connection, route: str, now: float) -> None:
    """See `Spool.wake`."""
    connection.execute(_WAKE, {"route": route, "now": now})


def reroute(connection: Connection, match: Callable[[str], str | None]) -> dict[str, int]:
    """See `Spool.reroute`. How many mails came to each route."""
    moved: dict[str, int] = {}
    after = 0
    while rows := connection.execute(_SENDERS, (after,)).fetchall():
        after = rows[-1][0]
        matches = {sender: match(sender) for sender in {row[1] for row in rows}}
        moves = [(row[0], row[2], new) for row in rows if (new := matches[row[1]]) is not None and new != row[2]]
        done = connection.execute(_MOVE, columns(moves)).fetchall() if moves else []
        if done:
            update = "UPDATE mail SET route = new.route FROM unnest(%s::bigint[], %s::text[]) AS new (id, route) "
            connection.execute(update + "WHERE mail.id = new.id", columns(done))
        for _, new in done:
            moved[new] = moved.get(new, 0) + 1
    return moved


def _note(connection: Connection, key: Key, note: str | None, now: float) -> None:
    if note is not None and key[0] is Scope.MAIL:
        connection.execute(_NOTE, (now, readable(note), [id_number(key[1])]))
