"""Slots of limits that nodes keep together: how many sends each may have under way at one time, and who is in line.

A node keeps a slot until it gives it back or is gone; its rows go with its row in `node`. Each function expects an open
transaction. Must never have more slots of a limit taken than there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from spool.postgres_pace import clock

WAITS: Final = 3.0
"""Seconds after which a node that waits and does not ask again has given up; it asks every second."""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 20815))"
_ROWS: Final = "SELECT node, held, taken_at, wanted, waits_since, asked_at FROM slots WHERE name = %s"
_KEEP: Final = """
INSERT INTO slots (name, node, held, taken_at, wanted, waits_since, asked_at)
SELECT %(name)s, id, %(held)s, %(taken_at)s, %(wanted)s, %(waits_since)s, %(now)s FROM node
WHERE id = %(node)s FOR KEY SHARE
ON CONFLICT (name, node) DO UPDATE SET held = excluded.held, taken_at = excluded.taken_at, wanted = excluded.wanted,
 waits_since = excluded.waits_since, asked_at = excluded.asked_at"""
_GIVE_BACK: Final = "UPDATE slots SET held = greatest(0, held - %s) WHERE name = %s AND node = %s"
_VOID: Final = "UPDATE slots SET held = 0 WHERE name = %s AND node = ANY(%s)"
_FORGET: Final = "DELETE FROM slots WHERE name = %s AND held = 0 AND asked_at < %s"
_IN_LINE: Final = "SELECT FROM slots WHERE name = %s AND node <> %s AND wanted > 0 AND asked_at > %s LIMIT 1"


@dataclass(frozen=True, slots=True)
class Taken:
    """`count` slots. `part` is what each should keep when somebody has less; `short` says that this one has, `line`
    that others are in line.
    """

    count: int
    part: int
    short: bool = False
    line: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    node: int
    held: int
    taken_at: float
    wanted: int
    waits_since: float
    asked_at: float

    def waits(self, now: float) -> bool:
        return self.wanted > 0 and self.asked_at > now - WAITS


def take(
    connection: Connection,
    node: int,
    name: str,
    size: int,
    wanted: int,
    lasts: float | None = None,
    at: float | None = None,
) -> Taken:
    """Up to `wanted` of `size` slots; with `lasts`, those taken longer ago than so many seconds count no more.

    Who waits longer goes first, and nobody takes more than an equal part while others have less and wait.
    """
    connection.execute(_LOCK, (name,))
    now = clock(connection) if at is None else at
    rows = [_Row(*row) for row in connection.execute(_ROWS, (name,))]
    if lasts is not None:
        rows = _without_expired(connection, name, rows, now - lasts)
    mine = next((row for row in rows if row.node == node), _Row(node, 0, now, 0, now, now))
    others = [row for row in rows if row.node != node]
    waiting = [row for row in others if row.waits(now)]
    since = mine.waits_since if mine.waits(now) else now
    part = size // (1 + sum(row.held > 0 or row.waits(now) for row in others))
    before_me = sum(_share(row, part) for row in waiting if row.waits_since < since)
    count = max(0, min(wanted, size - mine.held - sum(row.held for row in others) - before_me))
    if any(_share(row, part) for row in waiting):
        count = min(count, max(0, max(1, part) - mine.held))
    values = {"name": name, "node": node, "held": mine.held + count, "now": now, "waits_since": since}
    values |= {"taken_at": now if count else mine.taken_at, "wanted": 0 if count else wanted}
    if not connection.execute(_KEEP, values).rowcount:
        return Taken(0, part)  # this node was declared dead meanwhile
    return Taken(count, part, mine.held + count < max(1, part), any(_share(row, part) for row in waiting))


def give_back(connection: Connection, node: int, name: str, count: int, at: float | None = None) -> bool:
    """So many slots are free. Whether another node is in line."""
    connection.execute(_LOCK, (name,))
    now = clock(connection) if at is None else at
    connection.execute(_GIVE_BACK, (count, name, node))
    connection.execute(_FORGET, (name, now - WAITS))
    return connection.execute(_IN_LINE, (name, node, now - WAITS)).rowcount > 0


def claim(connection: Connection, node: int, name: str, count: int, at: float | None = None) -> None:
    """These slots are in use, whoever else has some."""
    connection.execute(_LOCK, (name,))
    now = clock(connection) if at is None else at
    values = {"name": name, "node": node, "held": count, "now": now, "taken_at": now, "wanted": 0, "waits_since": now}
    connection.execute(_KEEP, values)


def _without_expired(connection: Connection, name: str, rows: Sequence[_Row], before: float) -> list[_Row]:
    expired = [row.node for row in rows if row.held and row.taken_at < before]
    if not expired:
        return list(rows)
    connection.execute(_VOID, (name, expired))
    return [_Row(*row) for row in connection.execute(_ROWS, (name,))]


def _share(row: _Row, part: int) -> int:
    """What a node in line will take next."""
    return max(0, min(row.wanted, max(1, part) - row.held))
