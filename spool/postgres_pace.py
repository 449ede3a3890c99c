"""Limits that several nodes keep together: what was sent by all of them, in sliding windows on the database's clock.

A send counts from before it is made until a window's length after its end. Each function expects an open transaction.
Must never let more into a window than its limit, whatever the nodes know of one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from spool.contract import Toll
from spool.view import Spent

NOW: Final = "extract(epoch FROM clock_timestamp())::float8"
"""The clock that all nodes share."""
LENGTHS: Final = (1, 60, 3600, 86400)
"""Windows in seconds; hours and days count recipients, shorter ones mails."""
_SLOTS: Final = 60
"""Sends that ended in this part of a window are kept as one, and count until the last of them is over."""
_ASK_AGAIN: Final = 0.5
"""Seconds until room is asked for again that only the end of a send can give."""
_LOCK: Final = "SELECT name FROM account WHERE name = %s FOR UPDATE"
_OPEN: Final = "SELECT count(*), coalesce(sum(recipients), 0)::bigint FROM fare WHERE account = %s"
_ENDED: Final = "SELECT slot, units FROM pace WHERE account = %s AND length = %s AND slot >= %s ORDER BY slot"
_COUNT: Final = """
INSERT INTO pace (account, length, slot, units) VALUES (%s, %s, %s, %s)
ON CONFLICT (account, length, slot) DO UPDATE SET units = pace.units + excluded.units"""
_FORGET: Final = "DELETE FROM pace WHERE account = %s AND length = %s AND slot < %s"
_BEGIN: Final = """
INSERT INTO fare (account, node, recipients) SELECT %s, id, %s FROM node WHERE id = %s FOR KEY SHARE RETURNING id"""
_END: Final = "DELETE FROM fare WHERE {which} = ANY(%s) RETURNING account, recipients"


@dataclass(frozen=True, slots=True)
class Full:
    """No room on `account` for so many seconds."""

    account: str
    wait: float


def clock(connection: Connection) -> float:
    """The database's, in unix seconds."""
    row = connection.execute(f"SELECT {NOW}").fetchone()
    return float(row[0]) if row else 0.0


def admit(connection: Connection, node: int, tolls: Sequence[Toll], at: float | None = None) -> tuple[int, ...] | Full:
    """A number for each toll of one send, when there is room for it in all windows; else nothing is counted."""
    ordered = sorted(tolls, key=lambda toll: toll.account)
    for toll in ordered:  # in one order, so that two nodes never wait for each other
        connection.execute("INSERT INTO account (name) VALUES (%s) ON CONFLICT DO NOTHING", (toll.account,))
        connection.execute(_LOCK, (toll.account,))
    now = clock(connection) if at is None else at
    for toll in ordered:
        wait = _wait(connection, toll, now)
        if wait > 0:
            return Full(toll.account, wait)
    numbers: list[int] = []
    for toll in ordered:
        row = connection.execute(_BEGIN, (toll.account, toll.recipients, node)).fetchone()
        if row is None:  # this node was declared dead meanwhile: nobody would end what it began
            return Full(toll.account, _ASK_AGAIN)
        numbers.append(int(row[0]))
    return tuple(numbers)


def add(connection: Connection, spent: Sequence[Spent]) -> None:
    """What was sent before the relays shared the account, in the windows that are longer than one of its entries."""
    for one in spent:
        for length in LENGTHS[2:]:
            connection.execute(_COUNT, (one.account, length, _slot(one.at, length), one.recipients))


def passed(connection: Connection, numbers: Sequence[int], counted: bool, at: float | None = None) -> None:
    """These sends have ended; those that are not `counted` said nothing to the other side."""
    _end(connection, "id", numbers, counted, at)


def bury(connection: Connection, nodes: Sequence[int], at: float | None = None) -> None:
    """These nodes are gone: what they had under way counts as sent now."""
    _end(connection, "node", nodes, True, at)


def _end(connection: Connection, which: str, numbers: Sequence[int], counted: bool, at: float | None) -> None:
    rows = connection.execute(_END.format(which=which), (list(numbers),)).fetchall()
    if not rows or not counted:
        return
    now = clock(connection) if at is None else at
    for account in sorted({row[0] for row in rows}):
        recipients = [row[1] for row in rows if row[0] == account]
        for length in LENGTHS:
            units = len(recipients) if length < 3600 else sum(recipients)
            connection.execute(_COUNT, (account, length, _slot(now, length), units))
            old = _slot(now - 2 * length, length)
            connection.execute(_FORGET, (account, length, old))


def _wait(connection: Connection, toll: Toll, now: float) -> float:
    """Seconds until there is room; 0 when there is."""
    row = connection.execute(_OPEN, (toll.account,)).fetchone()
    mails, recipients = (int(row[0]), int(row[1])) if row else (0, 0)
    longest = 0.0
    for length, limit in zip(LENGTHS, toll.limits, strict=True):
        if limit is None:
            continue
        under_way, units = (mails, 1) if length < 3600 else (recipients, toll.recipients)
        ended = connection.execute(_ENDED, (toll.account, length, _slot(now - length, length))).fetchall()
        ended = [(slot, count) for slot, count in ended if _over(slot, length) > now]
        excess = under_way + sum(count for _, count in ended) + min(units, limit) - limit
        wait = 0.0
        for slot, count in ended:
            if excess <= 0:
                break
            excess -= count
            wait = _over(slot, length) - now
        longest = max(longest, wait if excess <= 0 else max(wait, _ASK_AGAIN))
    return longest


def _slot(at: float, length: int) -> int:
    return int(at * _SLOTS // length)


def _over(slot: int, length: int) -> float:
    """When the sends of a slot leave the window."""
    return (slot + 1) * length / _SLOTS + length
