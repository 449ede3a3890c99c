"""What the PostgreSQL spool keeps beside mail: what providers told, what was spent on accounts, and for people what
went through and who ordered what.

Functions expect an open transaction and never commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from psycopg import Connection

from routing.provider_events import ProviderEvent
from spool.contract import SPENT_SLOT, Noted, Notice, id_number
from spool.postgres_statements import columns, readable
from spool.view import GivenOrder, SlowMail, Spent, Volume

_VOLUME_SLOT: Final = 300
_HOUR: Final = 3600
_FINE_KEPT: Final = 2 * 86400
_VOLUME_KEPT: Final = 35 * 86400
_SPENT_KEPT: Final = 2 * 86400.0
_KEEP_EVENT: Final = """
INSERT INTO event (mail, at, text, upstream, told, recipient, source) VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING"""
_HANDED: Final = "SELECT FROM event WHERE mail = %s AND upstream = %s AND told IS NULL LIMIT 1"
_SPEND: Final = """
INSERT INTO spent (account, slot, mails, recipients)
SELECT account, slot, sum(mails), sum(recipients)
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[]) AS new (account, slot, mails, recipients)
GROUP BY account, slot ORDER BY account, slot
ON CONFLICT (account, slot) DO UPDATE SET mails = greatest(0, spent.mails + excluded.mails),
 recipients = greatest(0, spent.recipients + excluded.recipients)"""
_UPSERT_VOLUME: Final = """
ON CONFLICT (slot, route, customer) DO UPDATE SET mails = volume.mails + excluded.mails,
 recipients = volume.recipients + excluded.recipients, delivered = volume.delivered + excluded.delivered,
 failed = volume.failed + excluded.failed"""
_ADD: Final = f"""
INSERT INTO volume (slot, route, customer, mails, recipients, delivered, failed)
SELECT slot, route, customer, sum(mails), sum(recipients), sum(delivered), sum(failed)
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
 AS new (slot, route, customer, mails, recipients, delivered, failed)
GROUP BY slot, route, customer ORDER BY slot, route, customer {_UPSERT_VOLUME}"""
_JOIN: Final = f"""
WITH old AS (DELETE FROM volume WHERE slot >= %(from)s AND slot < %(to)s AND slot %% 3600 > 0 RETURNING *)
INSERT INTO volume (slot, route, customer, mails, recipients, delivered, failed)
SELECT slot - slot %% 3600, route, customer, sum(mails), sum(recipients), sum(delivered), sum(failed) FROM old
GROUP BY 1, 2, 3 {_UPSERT_VOLUME}"""
_VOLUMES: Final = """
SELECT route, customer, sum(mails)::bigint, sum(recipients)::bigint, sum(delivered)::bigint, sum(failed)::bigint
FROM volume WHERE slot >= %s AND slot < %s GROUP BY route, customer ORDER BY route, customer"""
_SLOWEST: Final = """
SELECT id, route, sender, received_at, settled_at - received_at FROM mail
WHERE settled_at > received_at + 60.0 AND received_at >= %s ORDER BY settled_at - received_at DESC LIMIT %s"""


def note(connection: Connection, notice: Notice, now: float) -> tuple[Noted, ...] | None:
    """See `Spool.note`. Seals that are over by `now` are forgotten on the way."""
    connection.execute("DELETE FROM seal WHERE mark IN (SELECT mark FROM seal WHERE until < %s LIMIT 1000)", (now,))
    keep = "INSERT INTO seal (mark, until) VALUES (%s, %s) ON CONFLICT DO NOTHING"
    if not connection.execute(keep, (notice.seal, notice.until)).rowcount:
        return None
    return tuple(_note(connection, notice, event) for event in notice.events)


def _note(connection: Connection, notice: Notice, event: ProviderEvent) -> Noted:
    try:
        number = id_number(event.mail)
    except ValueError:
        return Noted(None, False)
    found = connection.execute("SELECT route FROM mail WHERE id = %s", (number,)).fetchone()
    if found is None or not _is_theirs(connection, notice, number, found[0]):
        return Noted(None, False)
    recipient = None if event.recipient is None else readable(event.recipient)
    values = (number, event.at, readable(event.reply), notice.upstream, str(event.told), recipient, readable(event.id))
    return Noted(found[0], connection.execute(_KEEP_EVENT, values).rowcount == 1)


def _is_theirs(connection: Connection, notice: Notice, number: int, route: str) -> bool:
    """The route speaks first, as an event may overtake the record of its own attempt; history, when the mail moved."""
    if route in notice.routes:
        return True
    return connection.execute(_HANDED, (number, notice.upstream)).fetchone() is not None


def spend(connection: Connection, spent: Sequence[Spent]) -> None:
    """Count what is sent, by account and slot; what is two days older is forgotten."""
    connection.execute(_SPEND, columns([(one.account, _slot(one.at), one.mails, one.recipients) for one in spent]))
    old = _slot(max(one.at for one in spent) - _SPENT_KEPT)
    names = sorted({one.account for one in spent})
    connection.execute("DELETE FROM spent WHERE account = ANY(%s) AND slot < %s", (names, old))


def spent(connection: Connection, since: float) -> list[Spent]:
    """All that was counted from the slot of `since` on; the oldest first."""
    query = "SELECT account, slot, mails, recipients FROM spent WHERE slot >= %s ORDER BY slot"
    rows = connection.execute(query, (_slot(since),)).fetchall()
    return [Spent(account, (slot + 1) * SPENT_SLOT, mails, recipients) for account, slot, mails, recipients in rows]


def add(connection: Connection, volumes: Sequence[Volume]) -> None:
    """Count what went through; with the first of an hour, what is old becomes coarser or is forgotten."""
    rows = [
        (int(v.at // _VOLUME_SLOT) * _VOLUME_SLOT, v.route, v.customer, v.mails, v.recipients, v.delivered, v.failed)
        for v in volumes
    ]
    connection.execute(_ADD, columns(rows))
    for slot in sorted({row[0] for row in rows if row[0] % _HOUR == 0}):
        fine = slot - _FINE_KEPT
        connection.execute(_JOIN, {"from": fine - 2 * _HOUR, "to": fine})
        connection.execute("DELETE FROM volume WHERE slot < %s", (slot - _VOLUME_KEPT,))


def volumes(connection: Connection, edges: Sequence[float]) -> list[Volume]:
    """See `SpoolView.volumes`."""
    found: list[Volume] = []
    for start, end in pairwise(edges):
        found += [Volume(start, *row) for row in connection.execute(_VOLUMES, (start, end)).fetchall()]
    return found


def record(connection: Connection, order: GivenOrder) -> None:
    """Write down an order that was carried out."""
    connection.execute(
        "INSERT INTO given_order (at, who, action, subject, reason, done, passed) VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (order.at, order.who, order.action, order.subject, readable(order.reason), order.done, order.left),
    )


def orders(connection: Connection, limit: int) -> list[GivenOrder]:
    """The newest first."""
    query = "SELECT at, who, action, subject, reason, done, passed FROM given_order ORDER BY number DESC LIMIT %s"
    return [GivenOrder(*row) for row in connection.execute(query, (limit,)).fetchall()]


def forget_orders(connection: Connection, before: float) -> None:
    """Orders name people, so they are kept no longer than the history of mail."""
    connection.execute("DELETE FROM given_order WHERE at < %s", (before,))


def slowest(connection: Connection, since: float, limit: int) -> list[SlowMail]:
    """See `SpoolView.slowest`."""
    return [SlowMail(*row) for row in connection.execute(_SLOWEST, (since, limit)).fetchall()]


def _slot(at: float) -> int:
    return int(at // SPENT_SLOT)
