"""Ways on hold and silent hosts in the database: what one node found out, for all to know.

A way on hold has one node that probes it; when that one dies, its row is nobody's until another takes it. A silent host
has a row for each node that gets no answer. Each function expects an open transaction.
"""

from __future__ import annotations

import json
from typing import Any, Final

from psycopg import Connection

from spool.cluster import Closed, ClosedNow, News, Silent, WayKey
from spool.postgres_pace import clock
from spool.records import outcome_fields, read_outcome

_ORPHANED: Final = 20.0
"""Seconds after which a hold that no node takes over is forgotten: no node has those settings any more."""
_COLUMNS: Final = "route, upstream, settings, since, outcome, failures, next_probe, alone, found_by, prober"
_CLOSED: Final = f"SELECT {_COLUMNS} FROM closed_way "
_CLOSE: Final = """
INSERT INTO closed_way (route, upstream, settings, since, outcome, failures, next_probe, found_by, prober, alone)
SELECT %s, %s, %s, %s, %s, %s, %s, name, id, CASE WHEN %s THEN id END FROM node WHERE id = %s FOR KEY SHARE
ON CONFLICT DO NOTHING"""
_KEY: Final = "route = %s AND upstream = %s AND settings = %s"
_ADOPT: Final = f"""
UPDATE closed_way SET prober = id, left_at = NULL FROM (SELECT id FROM node WHERE id = %s FOR KEY SHARE) AS node
WHERE {_KEY} AND prober IS NULL"""
_PROBED: Final = f"UPDATE closed_way SET failures = %s, next_probe = %s WHERE {_KEY} AND prober = %s"
_LEAVE: Final = f"UPDATE closed_way SET prober = NULL, left_at = %s WHERE {_KEY} AND prober = %s"
_ORPHANS: Final = "UPDATE closed_way SET left_at = %s WHERE prober IS NULL AND left_at IS NULL"
_FORGET: Final = "DELETE FROM closed_way WHERE prober IS NULL AND left_at < %s"
_SILENT: Final = """
INSERT INTO silent_host (place, node, since, reply, asked_at)
SELECT %s, id, %s, %s, %s FROM node WHERE id = %s FOR KEY SHARE
ON CONFLICT (place, node) DO UPDATE SET reply = excluded.reply, asked_at = excluded.asked_at"""
_ALL_SILENT: Final = "SELECT place, node, since, reply, asked_at FROM silent_host ORDER BY asked_at, node"


def close(connection: Connection, node: int, closed: Closed) -> ClosedNow:
    """See `Cluster.close`."""
    key, outcome = closed.key, json.dumps(outcome_fields(closed.outcome))
    about = (closed.since, outcome, closed.failures, closed.next_probe, closed.alone, node)
    connection.execute(_CLOSE, (*_values(key), *about))
    found = _read(connection, node, f"WHERE {_KEY}", _values(key))
    return found[0] if found else ClosedNow(closed, mine=True, nobody=False)  # declared dead meanwhile: said again then


def open_way(connection: Connection, key: WayKey) -> None:
    """See `Cluster.open`."""
    connection.execute(f"DELETE FROM closed_way WHERE {_KEY}", _values(key))


def open_route(connection: Connection, route: str) -> tuple[Closed, ...]:
    """See `Cluster.open_route`."""
    rows = connection.execute(f"DELETE FROM closed_way WHERE route = %s RETURNING {_COLUMNS}", (route,)).fetchall()
    return tuple(_closed(row) for row in rows)


def of_way(connection: Connection, node: int, route: str, upstream: str) -> tuple[ClosedNow, ...]:
    """The holds of a way, whatever its settings."""
    return _read(connection, node, "WHERE route = %s AND upstream = %s", (route, upstream))


def adopt(connection: Connection, node: int, key: WayKey) -> bool:
    """See `Cluster.adopt`."""
    return connection.execute(_ADOPT, (node, *_values(key))).rowcount > 0


def probed(connection: Connection, node: int, key: WayKey, failures: int, next_probe: float) -> None:
    """See `Cluster.probed`."""
    connection.execute(_PROBED, (failures, next_probe, *_values(key), node))


def leave(connection: Connection, node: int, key: WayKey) -> None:
    """See `Cluster.leave`."""
    connection.execute(_LEAVE, (clock(connection), *_values(key), node))


def silent(connection: Connection, node: int, place: str, since: float, reply: str, asked_at: float) -> None:
    """See `Cluster.silent`."""
    connection.execute(_SILENT, (place, since, reply, asked_at, node))


def answered(connection: Connection, node: int, place: str) -> bool:
    """See `Cluster.answered`. Whether it was silent for this node before."""
    return connection.execute("DELETE FROM silent_host WHERE place = %s AND node = %s", (place, node)).rowcount > 0


def news(connection: Connection, node: int) -> News:
    """All of it, and a look for holds that nobody has any more."""
    now = clock(connection)
    connection.execute(_ORPHANS, (now,))
    connection.execute(_FORGET, (now - _ORPHANED,))
    rows = connection.execute(_ALL_SILENT).fetchall()
    hosts = [Silent(place, of, since, reply, at, of == node) for place, of, since, reply, at in rows]
    return News(_read(connection, node), tuple(hosts))


def salt(connection: Connection) -> bytes:
    """See `Cluster.salt`."""
    row = connection.execute("SELECT octets FROM salt").fetchone()
    return str(row[0]).encode() if row else b""


def _read(connection: Connection, node: int, where: str = "", values: tuple[object, ...] = ()) -> tuple[ClosedNow, ...]:
    rows = connection.execute(f"{_CLOSED} {where} ORDER BY since, route, upstream", values).fetchall()
    return tuple(ClosedNow(_closed(row), mine=row[-1] == node, nobody=row[-1] is None) for row in rows)


def _closed(row: tuple[Any, ...]) -> Closed:
    route, upstream, settings, since, outcome, failures, next_probe, alone, found_by, _ = row
    key, said = WayKey(route, upstream, settings), read_outcome(json.loads(outcome))
    return Closed(key, since, said, failures, next_probe, alone is not None, found_by)


def _values(key: WayKey) -> tuple[str, str, str]:
    return key.route, key.upstream, key.settings
