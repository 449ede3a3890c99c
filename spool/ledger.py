"""What the SQLite spool keeps for people beside mail: how much went through, and who ordered what.

Writing functions expect an open transaction and never commit. All of it is small: counts by slot of time and customer,
and orders that people typed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from spool.view import GivenOrder, SlowMail, Volume

SLOT: Final = 300
"""Seconds of a slot of `volume`; after two days slots are joined to hours."""
_HOUR: Final = 3600
_FINE_KEPT: Final = 2 * 86400
_KEPT: Final = 35 * 86400
_ADD: Final = """
INSERT INTO volume (slot, route, customer, mails, recipients, delivered, failed) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (slot, route, customer) DO UPDATE SET mails = mails + excluded.mails,
recipients = recipients + excluded.recipients, delivered = delivered + excluded.delivered,
failed = failed + excluded.failed"""
_OLD: Final = "FROM volume WHERE slot >= ?1 AND slot < ?2 AND slot % 3600 > 0"
_JOIN: Final = _ADD.replace(
    "VALUES (?, ?, ?, ?, ?, ?, ?)",
    f"SELECT slot - slot % 3600, route, customer, mails, recipients, delivered, failed {_OLD}",
)
VOLUMES: Final = """
SELECT route, customer, sum(mails), sum(recipients), sum(delivered), sum(failed) FROM volume
WHERE slot >= ? AND slot < ? GROUP BY route, customer"""
SLOWEST: Final = """
SELECT id, route, sender, received_at, settled_at - received_at FROM mail INDEXED BY slow
WHERE settled_at > received_at + 60.0 AND received_at >= ? ORDER BY settled_at - received_at DESC LIMIT ?"""


def add(connection: sqlite3.Connection, volumes: Sequence[Volume]) -> None:
    """Count what went through; with the first of an hour, what is old becomes coarser or is forgotten."""
    rows = [
        (_slot(one.at), one.route, one.customer, one.mails, one.recipients, one.delivered, one.failed)
        for one in volumes
    ]
    connection.executemany(_ADD, rows)
    for slot in {row[0] for row in rows if row[0] % _HOUR == 0}:
        fine = slot - _FINE_KEPT
        connection.execute(_JOIN, (fine - 2 * _HOUR, fine))
        connection.execute(f"DELETE {_OLD}", (fine - 2 * _HOUR, fine))
        connection.execute("DELETE FROM volume WHERE slot < ?", (slot - _KEPT,))


def volumes(connection: sqlite3.Connection, edges: Sequence[float]) -> list[Volume]:
    """See `SpoolView.volumes`."""
    found: list[Volume] = []
    for start, end in pairwise(edges):
        rows = connection.execute(VOLUMES, (start, end))
        found += [Volume(start, *row) for row in rows]
    return found


def record(connection: sqlite3.Connection, order: GivenOrder) -> None:
    """Write down an order that was carried out."""
    connection.execute(
        "INSERT INTO given_order (at, who, action, subject, reason, done, passed) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (order.at, order.who, order.action, order.subject, order.reason, order.done, order.left),
    )


def orders(connection: sqlite3.Connection, limit: int) -> list[GivenOrder]:
    """The newest first."""
    rows = connection.execute(
        "SELECT at, who, action, subject, reason, done, passed FROM given_order ORDER BY number DESC LIMIT ?", (limit,)
    )
    return [GivenOrder(*row) for row in rows]


def forget_orders(connection: sqlite3.Connection, before: float) -> None:
    """Orders name people, so they are kept no longer than the history of mail."""
    connection.execute("DELETE FROM given_order WHERE at < ?", (before,))


def slowest(connection: sqlite3.Connection, since: float, limit: int) -> list[SlowMail]:
    """See `SpoolView.slowest`: from an index that only mail of more than a minute is in."""
    return [SlowMail(*row) for row in connection.execute(SLOWEST, (since, limit))]


def _slot(at: float) -> int:
    return int(at // SLOT) * SLOT
