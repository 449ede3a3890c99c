"""What is said to PostgreSQL about mail: every statement as a function of a connection.

Writing functions expect an open transaction and never commit. A lease counts only while its node is alive, and that is
judged by the database alone. Nothing here remembers anything between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from psycopg import Connection

from routing.mail import domain_of
from spool.contract import Arrival, Leased, Pending, Settlement
from spool.postgres_filtering import part_of
from spool.records import message_id_of, results_text
from spool.statements import Unreadable

ON_HOLD: Final = """EXISTS (SELECT FROM hold WHERE hold.mail = waiting.id
 OR (hold.scope = 'sender' AND hold.subject IN (waiting.sender, '@' || waiting.domain)))"""
"""A mail of `waiting` that people hold for itself or its sender."""
_KEEP_MAIL: Final = """
INSERT INTO mail (id, route, sender, received_at, size, peer, helo, message_id, repairs)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::float8[], %s::bigint[], %s::text[], %s::text[],
 %s::text[], %s::text[])"""
_KEEP_WAITING: Final = """
INSERT INTO waiting (id, route, due_at, received_at, size, sender, domain)
SELECT id, route, CASE WHEN EXISTS (SELECT FROM hold WHERE scope = 'sender' AND subject IN (sender, '@' || domain))
 THEN 'Infinity' ELSE received_at END, received_at, size, sender, domain
FROM unnest(%s::bigint[], %s::text[], %s::float8[], %s::bigint[], %s::text[], %s::text[])
 AS new (id, route, received_at, size, sender, domain)"""
_KEEP_CONTENT: Final = "INSERT INTO content (mail, bytes) SELECT * FROM unnest(%s::bigint[], %b::bytea[])"
_KEEP_RECIPIENT: Final = """
INSERT INTO recipient (mail, address, domain, part)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::smallint[])"""
_KEEP_EVENT: Final = """
INSERT INTO event (mail, at, text, upstream, seconds, results)
SELECT new.* FROM unnest(%s::bigint[], %s::float8[], %s::text[], %s::text[], %s::float8[], %s::text[])
 AS new (mail, at, text, upstream, seconds, results)"""
_NOT_TWICE: Final = """
WHERE NOT EXISTS (SELECT FROM event WHERE event.mail = new.mail AND event.at = new.at AND event.text = new.text
 AND event.upstream IS NOT DISTINCT FROM new.upstream)"""
_STILL_LEASED: Final = "SELECT id FROM waiting WHERE id = ANY(%s) AND node = %s ORDER BY id FOR UPDATE"
_END_RECIPIENT: Final = """
UPDATE recipient SET state = new.state FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS new (mail, address, state)
WHERE recipient.mail = new.mail AND recipient.address = new.address AND recipient.state = 'waiting'"""
_DOUBT_RECIPIENT: Final = """
UPDATE recipient SET doubts = doubts + 1 FROM unnest(%s::bigint[], %s::text[]) AS new (mail, address)
WHERE recipient.mail = new.mail AND recipient.address = new.address"""
_END_MAIL: Final = """
UPDATE mail SET attempts = attempts + new.counted, route = coalesce(new.route, mail.route),
 settled_at = coalesce(settled_at, new.at)
FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::float8[]) AS new (id, counted, route, at)
WHERE mail.id = new.id"""
_END_WAITING: Final = """
WITH ended AS (DELETE FROM waiting WHERE id = ANY(%s) RETURNING size)
SELECT coalesce(sum(size), 0)::bigint FROM ended"""
_END_CONTENT: Final = "DELETE FROM content WHERE mail = ANY(%s)"
_POSTPONE: Final = f"""
UPDATE waiting SET due_at = CASE WHEN {ON_HOLD} THEN 'Infinity' ELSE new.due_at END,
 route = coalesce(new.route, waiting.route), node = NULL
FROM unnest(%s::bigint[], %s::float8[], %s::text[]) AS new (id, due_at, route)
WHERE waiting.id = new.id AND waiting.node = %s RETURNING waiting.id, waiting.route"""
# FOR KEY SHARE: whoever declares this node dead waits for this lease, or this lease finds no node.
LEASE: Final = f"""
WITH alive AS (SELECT id FROM node WHERE id = %(node)s FOR KEY SHARE),
picked AS (
 SELECT waiting.id FROM waiting WHERE route = %(route)s AND due_at <= %(now)s AND node IS NULL AND NOT {ON_HOLD}
  AND NOT EXISTS (SELECT FROM hold WHERE scope = 'route' AND subject = %(route)s)
 ORDER BY due_at, waiting.id LIMIT %(limit)s FOR UPDATE OF waiting SKIP LOCKED),
leased AS (
 UPDATE waiting SET node = alive.id FROM picked, alive WHERE waiting.id = picked.id
 RETURNING waiting.id, waiting.due_at, waiting.received_at, waiting.released_at, waiting.warned)
SELECT leased.id, leased.due_at, leased.received_at, leased.released_at, leased.warned, mail.sender, mail.attempts,
 people.addresses, people.doubts
FROM leased JOIN mail ON mail.id = leased.id CROSS JOIN LATERAL (
 SELECT array_agg(address ORDER BY address COLLATE "C") AS addresses,
  array_agg(doubts ORDER BY address COLLATE "C") AS doubts
 FROM recipient WHERE recipient.mail = leased.id AND state = 'waiting') AS people"""
_IS_OURS: Final = "SELECT FROM waiting WHERE id = %s AND node = %s"
_CONTENTS: Final = "SELECT mail, bytes FROM content WHERE mail = ANY(%s)"
COUNT: Final = """
INSERT INTO tally VALUES (%(slot)s, %(octets)s) ON CONFLICT (slot) DO UPDATE SET octets = tally.octets + %(octets)s
RETURNING octets"""


class NumberTaken(Exception):
    """A mail's number is another mail's."""


@dataclass(frozen=True, slots=True)
class Settles:
    """What came of a batch of settlements. `routes` has the route of each mail that waits again; `late` are those
    that this node had lost its lease on; `octets` is the content that is gone, `own` what `count` says afterwards.
    """

    routes: dict[int, str]
    late: frozenset[int]
    octets: int
    own: int = 0


def insert(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    """Keep new mails."""
    ids = [a.id for a in arrivals]
    times, sizes = [a.received_at for a in arrivals], [len(a.content) for a in arrivals]
    routes, senders = [a.route for a in arrivals], [a.sender for a in arrivals]
    names = [message_id_of(a.content) for a in arrivals]
    names = [None if name is None else name.replace("\0", "\ufffd") for name in names]
    helos, repairs = [readable(a.helo) for a in arrivals], ["\n".join(a.repairs) for a in arrivals]
    peers = [a.peer for a in arrivals]
    connection.execute(_KEEP_MAIL, (ids, routes, senders, times, sizes, peers, helos, names, repairs))
    subjects = [sender.lower().rstrip(".") for sender in senders]
    connection.execute(_KEEP_WAITING, (ids, routes, times, sizes, subjects, [domain_of(s) for s in senders]))
    connection.execute(_KEEP_CONTENT, (ids, [a.content for a in arrivals]))
    rows = [
        (a.id, address, domain_of(address), part_of(address))
        for a in arrivals
        for address in dict.fromkeys(a.recipients)
    ]
    if rows:
        connection.execute(_KEEP_RECIPIENT, columns(rows))


def unknown(connection: Connection, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Those of the mails that are not here yet. Raises NumberTaken when one's number is another mail's."""
    query = "SELECT id, sender, received_at, size, peer FROM mail WHERE id = ANY(%s)"
    known = {row[0]: row[1:] for row in connection.execute(query, ([a.id for a in arrivals],))}
    for arrival in arrivals:
        if known.get(arrival.id, same := _traits(arrival)) != same:
            raise NumberTaken(f"number {arrival.id} is another mail's")
    return [arrival for arrival in arrivals if arrival.id not in known]


def _traits(arrival: Arrival) -> tuple[object, ...]:
    """What tells two mails of one number apart."""
    return arrival.sender, arrival.received_at, len(arrival.content), arrival.peer


def apply(connection: Connection, settlements: Sequence[Settlement], node: int, now: float, again: bool) -> Settles:
    """Record what became of leased mails; the content goes with the last recipient.

    What a node did after its lease had passed to another counts too, for the mail has left: but such a mail stays the
    other's until all its recipients are done. `again`: the batch may be written already.
    """
    ids = [s.mail.id for s in settlements]
    leased = {row[0] for row in connection.execute(_STILL_LEASED, (ids, node))}
    _recipients(connection, settlements)
    events = [event for s in settlements for event in _events(s, now)]
    if events:
        connection.execute(_KEEP_EVENT + (_NOT_TWICE if again else ""), columns(events))
    mails: list[tuple[int, int, str | None, float | None]] = [
        (s.mail.id, int(s.counted), s.route, now if s.due_at is None else None)
        for s in settlements
        if s.mail.id in leased or s.due_at is None
    ]
    if mails:
        connection.execute(_END_MAIL, columns(sorted(mails, key=itemgetter(0))))
    octets = 0
    routes: dict[int, str] = {}
    if finished := [s.mail.id for s in settlements if s.due_at is None]:
        connection.execute(_END_CONTENT, (finished,))
        connection.execute("DELETE FROM hold WHERE mail = ANY(%s)", (finished,))  # it came too late
        octets = first(connection.execute(_END_WAITING, (finished,)).fetchone())
    if later := [(s.mail.id, s.due_at, s.route) for s in settlements if s.due_at is not None]:
        routes = dict(connection.execute(_POSTPONE, (*columns(later), node)).fetchall())
    if warned := [s.mail.id for s in settlements if s.warned]:
        connection.execute("UPDATE waiting SET warned = true WHERE id = ANY(%s)", (warned,))
    return Settles(routes, frozenset(ids) - leased, octets)


def count(connection: Connection, slot: int, octets: int) -> int:
    """Add to the octets that wait, and tell this node's sum of them, which may be negative. Each node has a row of its
    own for it, so that none waits for another.
    """
    return first(connection.execute(COUNT, {"slot": slot, "octets": octets}).fetchone())


def take(
    connection: Connection, node: int, route: str, limit: int, now: float, at_hand: Callable[[int], bytes | None]
) -> list[Leased | Unreadable]:
    """Lease mails of the route that are due, the longest due first. `at_hand` gives contents that need not be read.

    A mail without recipients was finished by two nodes together. The lease is one statement, a transaction by itself.
    A mail whose content went before it was read is left out: another node had sent it, and told it late.
    """
    values = {"node": node, "route": route, "limit": limit, "now": now}
    rows = connection.cursor(binary=True).execute(LEASE, values).fetchall()
    rows.sort(key=itemgetter(1, 0))
    contents = {row[0]: content for row in rows if (content := at_hand(row[0])) is not None}
    if missing := [row[0] for row in rows if row[0] not in contents]:
        contents |= dict(connection.cursor(binary=True).execute(_CONTENTS, (missing,)).fetchall())
    found: list[Leased | Unreadable] = []
    for number, _, received_at, released_at, warned, sender, attempts, addresses, doubts in rows:
        content = contents.get(number) if addresses else b""
        if content is not None:
            people = tuple(map(Pending, addresses or (), doubts or ()))
            found.append(Leased(number, route, sender, people, content, received_at, attempts, released_at, warned))
        elif connection.execute(_IS_OURS, (number, node)).rowcount:
            found.append(Unreadable(number, "its content is missing"))
    return found


def give_back(connection: Connection, route: str, node: int, but: Sequence[int]) -> None:
    """End what this node leased of the route, `but` for these."""
    query = "UPDATE waiting SET node = NULL WHERE route = %s AND node = %s AND NOT id = ANY(%s)"
    connection.execute(query, (route, node, but))


def readable(text: str) -> str:
    """What a client or server said may hold any octet; this is kept for people only."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    """Rows as columns."""
    return [list(column) for column in zip(*rows, strict=True)]


def first(row: tuple[object, ...] | None) -> int:
    """The one number of a row."""
    return 0 if row is None or row[0] is None else int(str(row[0]))


def _recipients(connection: Connection, settlements: Sequence[Settlement]) -> None:
    if ended := [(s.mail.id, address, str(state)) for s in settlements for address, state in s.done.items()]:
        connection.execute(_END_RECIPIENT, columns(ended))
    if doubted := [(s.mail.id, address) for s in settlements for address in s.doubted]:
        connection.execute(_DOUBT_RECIPIENT, columns(doubted))


def _events(settlement: Settlement, now: float) -> Iterable[tuple[object, ...]]:
    for attempt in settlement.attempts:
        results = results_text(attempt.results)
        yield settlement.mail.id, attempt.started_at, "", attempt.upstream, attempt.seconds, results
    if settlement.note is not None:
        yield settlement.mail.id, now, readable(settlement.note), None, None, None
