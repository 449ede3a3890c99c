"""From a SQLite file to a PostgreSQL database: every mail with its story, in the order in which it came.

A part is first committed there and then deleted here, so that it can be broken off and begun again at any moment. A
mail that is there already is left alone: relays may have sent it meanwhile. Counts are added to those that are there,
each part once: it leaves a mark there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import Connection

from routing.events import emit
from spool import absorbing, postgres_pace, postgres_schema, schema
from spool import postgres_books as books
from spool.contract import SPENT_SLOT, SpoolUnusable, id_number, id_text
from spool.holding import Scope
from spool.ownership import Ownership
from spool.postgres_filtering import part_of
from spool.postgres_statements import columns, count
from spool.rows import Rows
from spool.view import GivenOrder, Spent, Volume

_LOG = logging.getLogger("relay.spool")
_TABLES: Final = (("content", "mail"), ("waiting", "id"), ("event", "mail"), ("recipient", "mail"), ("mail", "id"))
"""Where a mail's number stands."""
_CHUNK: Final = 200
_OCTETS: Final = 16 << 20
_VISITOR: Final = -1
_FRESH: Final = """
INSERT INTO mail (id, route, sender, received_at, size, peer, helo, message_id, repairs, attempts, settled_at)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::float8[], %s::bigint[], %s::text[], %s::text[],
 %s::text[], %s::text[], %s::int[], %s::float8[]) ON CONFLICT DO NOTHING RETURNING id"""
_WAITING: Final = """
INSERT INTO waiting (id, route, due_at, received_at, size, sender, domain, released_at, warned)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::float8[], %s::float8[], %s::bigint[], %s::text[], %s::text[],
 %s::float8[], %s::boolean[])"""
_RECIPIENT: Final = """
INSERT INTO recipient (mail, address, domain, part, state, doubts)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::smallint[], %s::text[], %s::int[])"""
_EVENT: Final = """
INSERT INTO event (mail, at, text, upstream, seconds, results, told, recipient, source)
SELECT * FROM unnest(%s::bigint[], %s::float8[], %s::text[], %s::text[], %s::float8[], %s::text[], %s::text[],
 %s::text[], %s::text[])"""
_CONTENT: Final = "INSERT INTO content (mail, bytes) SELECT * FROM unnest(%s::bigint[], %b::bytea[])"
_MARKED: Final = 40 * 86400.0
"""Seconds that a mark stays; none of what is counted is of use for so long."""

Progress = Callable[[int, int], None]


def move(source: Path, options: dict[str, str], progress: Progress) -> int:
    """Move everything; returns how many mails were moved now. `progress(done, of)` is told after each part.

    Raises SpoolInUse when a relay runs on the file, and SpoolUnusable.
    """
    ownership = Ownership(source)
    try:
        schema.prepare(source)
        absorbing.take_over(source)
        postgres_schema.prepare(options)
        here = schema.connect(source)
        try:
            with postgres_schema.connect(options, patient=True) as there:
                return _move(here, there, progress, _name_of(source))
        finally:
            here.close()
    except psycopg.Error as error:
        raise SpoolUnusable(f"{postgres_schema.unusable(error)}; what was moved is safe, begin again") from error
    except sqlite3.Error as error:
        raise SpoolUnusable(f"the spool {source} cannot be read: {error}; what was moved is safe") from error
    finally:
        ownership.release()


def _move(here: sqlite3.Connection, there: Connection, progress: Progress, name: str) -> int:
    # First: a relay that runs there may send nothing that is held, nor more than a limit allows.
    _holds(here, there, "scope <> ?", Scope.MAIL)
    _once(here, there, name, "spent", "account, slot, mails, recipients", _spent)
    (of,) = here.execute("SELECT count(*) FROM mail").fetchone()
    done = 0
    progress(done, of)
    while mails := _next(here):
        ids = [mail[0] for mail in mails]
        if taken := _strangers(there, mails):
            _renumber(here, taken)
            continue
        with there.transaction():
            _keep(here, there, mails)
        _delete(here, ids)
        done += len(mails)
        progress(done, of)
    counts = "slot, route, customer, mails, recipients, delivered, failed"
    _once(here, there, name, "volume", counts, _volumes)
    _once(here, there, name, "given_order", "at, who, action, subject, reason, done, passed", _orders)
    _seals(here, there)
    return done


def _next(here: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The mails that came first, as many as fit into one part."""
    rows = here.execute(
        "SELECT id, route, sender, received_at, size, peer, helo, message_id, repairs, attempts, settled_at FROM mail "
        "ORDER BY id LIMIT ?", (_CHUNK,),
    ).fetchall()  # fmt: skip
    octets = 0
    for number, row in enumerate(rows):
        octets += row[4] if row[10] is None else 0
        if octets > _OCTETS and number:
            return rows[:number]
    return rows


def _strangers(there: Connection, mails: Sequence[tuple[Any, ...]]) -> list[int]:
    """Numbers that are other mails' there: relays that ran apart may have made the same, once in a million mails of one
    millisecond.
    """
    query = "SELECT id, sender, received_at, size, peer FROM mail WHERE id = ANY(%s)"
    known = {row[0]: row[1:] for row in there.execute(query, ([mail[0] for mail in mails],))}
    ours = {mail[0]: (mail[2], mail[3], mail[4], mail[5]) for mail in map(_clean, mails)}
    return [number for number, traits in known.items() if ours[number] != traits]


def _renumber(here: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Give these mails the next numbers that are free here."""
    here.execute("BEGIN IMMEDIATE")
    for number in numbers:
        free = number + 1
        while here.execute("SELECT 1 FROM mail WHERE id = ?", (free,)).fetchone():
            free += 1
        for table, column in _TABLES:
            here.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (free, number))  # noqa: S608
        moved = (id_text(free), Scope.MAIL, id_text(number))
        here.execute("UPDATE hold SET subject = ? WHERE scope = ? AND subject = ?", moved)
        emit(_LOG, "spool.renumbered", logging.WARNING, mail=id_text(number), now=id_text(free))
    here.execute("COMMIT")


def _keep(here: sqlite3.Connection, there: Connection, mails: Sequence[tuple[Any, ...]]) -> None:
    fresh = {row[0] for row in there.execute(_FRESH, columns([_clean(mail) for mail in mails]))}
    by_id = {mail[0]: mail for mail in mails if mail[0] in fresh}
    if not by_id:
        return
    waiting = _of(here, "SELECT id, route, due_at, size, released_at, warned FROM waiting WHERE id", by_id)
    rows = []
    for number, route, due_at, size, released_at, warned in waiting:
        sender = by_id[number][2].lower().rstrip(".")
        domain = sender.rpartition("@")[2]
        rows.append((number, route, due_at, by_id[number][3], size, sender, domain, released_at, bool(warned)))
        _holds(here, there, "scope = ? AND subject = ?", Scope.MAIL, id_text(number))
    if rows:
        there.execute(_WAITING, columns(rows))
        count(there, _VISITOR, sum(row[4] for row in rows))
    if contents := _of(here, "SELECT mail, bytes FROM content WHERE mail", by_id):
        there.execute(_CONTENT, columns(contents))
    people = _of(here, "SELECT mail, address, domain, state, doubts FROM recipient WHERE mail", by_id)
    there.execute(_RECIPIENT, columns([(m, a, d, part_of(a), state, doubts) for m, a, d, state, doubts in people]))
    query = "SELECT mail, at, text, upstream, seconds, results, told, recipient, source FROM event WHERE mail"
    if events := [_clean(event) for event in _of(here, query, by_id)]:
        there.execute(_EVENT, columns(events))


def _of(here: sqlite3.Connection, query: str, ids: Sequence[int] | dict[int, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for number in ids:
        found += here.execute(f"{query} = ?", (number,)).fetchall()
    return found


def _delete(here: sqlite3.Connection, ids: Sequence[int]) -> None:
    here.execute("BEGIN IMMEDIATE")
    for table, column in _TABLES:
        Rows(f"DELETE FROM {table} WHERE {column} IN (VALUES {{rows}})", 1).write(here, [(number,) for number in ids])  # noqa: S608
    here.execute("COMMIT")


def _holds(here: sqlite3.Connection, there: Connection, which: str, *values: str) -> None:
    keep = """INSERT INTO hold (scope, subject, since, who, reason, mail) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING"""
    found = here.execute(f"SELECT scope, subject, since, who, reason FROM hold WHERE {which}", values)  # noqa: S608
    for scope, subject, *rest in found.fetchall():
        mail = id_number(subject) if scope == Scope.MAIL else None
        there.execute(keep, (scope, subject, *rest, mail))


def _name_of(source: Path) -> str:
    """This file and no other."""
    return f"{socket.gethostname()} {source.resolve()} {source.stat().st_ino}"


def _once(
    here: sqlite3.Connection, there: Connection, name: str, table: str, names: str,
    add: Callable[[Connection, list[tuple[Any, ...]]], None],
) -> None:  # fmt: skip
    """Add all rows of a table to what is there. The mark says that these rows of this file were: when it was broken off
    before they were deleted here, they are deleted only.
    """
    rows = [_clean(row) for row in here.execute(f"SELECT {names} FROM {table}").fetchall()]  # noqa: S608 (from this file)
    if not rows:
        return
    mark = f"moved {table} {hashlib.sha256(json.dumps([name, sorted(rows)]).encode()).hexdigest()}"
    keep = "INSERT INTO seal (mark, until) VALUES (%s, %s) ON CONFLICT DO NOTHING"
    with there.transaction():
        if there.execute(keep, (mark, postgres_pace.clock(there) + _MARKED)).rowcount:
            add(there, rows)
    _forget(here, table)


def _forget(here: sqlite3.Connection, table: str) -> None:
    here.execute(f"DELETE FROM {table}")  # noqa: S608 (names from this file)


def _spent(there: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Where relays count together, and where each looks when it starts."""
    found = [Spent(account, (slot + 1) * SPENT_SLOT - 1.0, mails, people) for account, slot, mails, people in rows]
    books.spend(there, found)
    postgres_pace.add(there, found)


def _volumes(there: Connection, rows: list[tuple[Any, ...]]) -> None:
    books.add(there, [Volume(*row) for row in rows])


def _orders(there: Connection, rows: list[tuple[Any, ...]]) -> None:
    for row in rows:
        books.record(there, GivenOrder(*row))


def _seals(here: sqlite3.Connection, there: Connection) -> None:
    rows = [_clean(row) for row in here.execute("SELECT mark, until FROM seal").fetchall()]
    with there.transaction(), there.cursor() as cursor:
        cursor.executemany("INSERT INTO seal (mark, until) VALUES (%s, %s) ON CONFLICT DO NOTHING", rows)
    _forget(here, "seal")


def _clean(row: Sequence[Any]) -> tuple[Any, ...]:
    """Text of clients and servers may hold what PostgreSQL does not keep."""
    return tuple(value.replace("\0", "\\x00") if isinstance(value, str) else value for value in row)
