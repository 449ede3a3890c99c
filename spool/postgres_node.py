"""What makes this process one of several nodes on a database: its row there, its sign of life, and what it hears.

A node is alive as long as the database sees its row renewed in time, by the database's own clock. It must never believe
in its leases for longer than the database does.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Final, Protocol
from uuid import uuid4

import psycopg
from psycopg import Connection

from spool import postgres_pace
from spool import postgres_schema as schema
from spool.contract import SpoolUnavailable, SpoolUnusable
from spool.holding import Hold, Scope
from spool.postgres_pace import NOW

CHANNEL: Final = "callpro_relay"
MOST_NODES: Final = 64
_BEATS: Final = 5
"""Signs of life in the time of a lease."""
_LONGEST_BEAT: Final = 2.0
_QUICK: Final = 0.5
"""Seconds that an answer may take which is to say how far two clocks are apart."""
_ENTER: Final = f"""
INSERT INTO node (slot, name, machine, process, born, started_at, seen_at, lease)
SELECT min(free), %(name)s, %(machine)s, %(process)s, %(born)s, {NOW}, {NOW}, %(lease)s
FROM generate_series(0, {MOST_NODES - 1}) AS free WHERE free NOT IN (SELECT slot FROM node)
RETURNING id, slot"""
_BEAT: Final = f"UPDATE node SET seen_at = {NOW}, version = %s, rules = %s, skew = %s WHERE id = %s RETURNING seen_at"
_DEAD: Final = f"""
DELETE FROM node WHERE id IN (SELECT id FROM node WHERE seen_at + lease < {NOW} FOR UPDATE SKIP LOCKED)
RETURNING id, name"""
_NEIGHBOURS: Final = "SELECT id, process, born FROM node WHERE machine = %s FOR UPDATE"
_FREE: Final = "UPDATE waiting SET node = NULL WHERE node = ANY(%s) RETURNING route"
# A walk from route to route in the index, and not over all mail.
_DUE_ROUTES: Final = """
WITH RECURSIVE routes (route) AS (
 (SELECT route FROM waiting ORDER BY route LIMIT 1)
 UNION ALL SELECT (SELECT route FROM waiting WHERE waiting.route > routes.route ORDER BY route LIMIT 1)
 FROM routes WHERE routes.route IS NOT NULL)
SELECT route FROM routes WHERE EXISTS (
 SELECT FROM waiting WHERE waiting.route = routes.route AND due_at <= %s AND node IS NULL)"""
HOLDS: Final = "SELECT scope, subject, since, who, reason FROM hold"


@dataclass(slots=True)
class Identity:
    """Who this process is to the database just now. `sure_until` is in `time.monotonic()` seconds."""

    node: int = 0
    slot: int = -1
    sure_until: float = -inf

    @property
    def sure(self) -> bool:
        """False when others may have been handed what this node leased."""
        return time.monotonic() < self.sure_until


@dataclass(frozen=True, slots=True)
class Beat:
    """What a sign of life brought back. `reborn`: this node had been declared dead, and all its leases are void."""

    reborn: bool
    skew: float
    others_octets: int
    own_octets: int
    due_routes: tuple[str, ...]
    holds: tuple[Hold, ...]
    dead: tuple[str, ...]
    freed: int
    alone: bool


class Ears(Protocol):
    """Who is told on the loop."""

    def beat(self, beat: Beat) -> None:
        """After each sign of life."""

    def heard(self, words: list[str]) -> None:
        """What other nodes said: `mail ROUTE` or `holds`."""


@dataclass(frozen=True, slots=True)
class Self:
    """What a node tells of itself. `machine`, `process` and `born` name a process beyond doubt."""

    name: str
    machine: str
    process: int
    born: str
    lease: float


def this_process(lease: float) -> Self:
    """`lease`: seconds without a sign of life after which others take over."""
    machine = f"{_boot()} {os.readlink('/proc/self/ns/pid')}"
    return Self(f"{socket.gethostname()}:{os.getpid()}", machine, os.getpid(), _born(os.getpid()), lease)


def enter(connection: Connection, who: Self) -> tuple[int, int]:
    """Become a node: its id, and its slot among those alive. Nodes of this machine that are gone end at once."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('callpro_relay.node'))")
    bury(connection, [row[0] for row in connection.execute(_NEIGHBOURS, (who.machine,)) if _gone(row[1], row[2])])
    values = {"name": who.name, "machine": who.machine, "process": who.process, "born": who.born, "lease": who.lease}
    row = connection.execute(_ENTER, values).fetchone()
    tell(connection, 0, ["node"])
    if row is None:
        raise SpoolUnusable(f"{MOST_NODES} relays use this database already")
    return int(row[0]), int(row[1])


def bury(connection: Connection, nodes: list[int]) -> list[str]:
    """These nodes are gone: what they leased is free, what they sent counts as sent. The routes of the mail."""
    if not nodes:
        return []
    connection.execute("DELETE FROM node WHERE id = ANY(%s)", (nodes,))
    postgres_pace.bury(connection, nodes)
    return [row[0] for row in connection.execute(_FREE, (nodes,))]


def tell(connection: Connection, node: int, words: list[str]) -> None:
    """Say something to the other nodes; they hear it with the commit."""
    connection.execute(
        "SELECT pg_notify(%s, %s || ' ' || word) FROM unnest(%s::text[]) AS word", (CHANNEL, str(node), words)
    )


def holds_of(connection: Connection) -> tuple[Hold, ...]:
    """All holds of people."""
    return tuple(Hold(Scope(scope), *row) for scope, *row in connection.execute(HOLDS).fetchall())


def due_routes(connection: Connection, now: float) -> tuple[str, ...]:
    """Routes with mail that can be leased."""
    return tuple(row[0] for row in connection.execute(_DUE_ROUTES, (now,)))


class Pulse:
    """The thread that keeps this node alive and listens. `about` gives the version and the rules' hash to show."""

    def __init__(
        self,
        options: dict[str, str],
        loop: AbstractEventLoop,
        ears: Ears,
        identity: Identity,
        who: Self,
        clock: Callable[[], float],
        about: Callable[[], tuple[str, str]],
    ) -> None:
        self._options = options
        self._loop = loop
        self._ears = ears
        self._identity = identity
        self._who = who
        self._clock = clock
        self._about = about
        self._stopping = False
        self._skew = 0.0
        self._connection: Connection | None = None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="spool-pulse", daemon=True)

    def start(self) -> Beat:
        """Become a node. Raises SpoolUnusable or SpoolUnavailable."""
        try:
            beat = self._beat()
        except psycopg.Error as error:
            raise SpoolUnavailable(schema.unusable(error)) from error
        self._thread.start()
        return beat

    def stop(self) -> None:
        """End, and give back all that this node leased."""
        self._stopping = True
        with suppress(OSError):
            os.eventfd_write(self._bell, 1)
        if self._thread.ident is not None:
            self._thread.join()
        if self._identity.node:
            with suppress(psycopg.Error, SpoolUnusable):  # then others do it when the time is over
                bury(self._connected(), [self._identity.node])
        self._close()
        os.close(self._bell)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping:
            try:
                if wait:
                    self._loop.call_soon_threadsafe(self._ears.beat, self._beat())
                self._listen(self._interval)
                wait = self._interval
            except (psycopg.Error, SpoolUnusable):
                self._close()
                wait = self._interval / 4
                ready((self._bell,), wait)

    @property
    def _interval(self) -> float:
        return min(_LONGEST_BEAT, self._who.lease / _BEATS)

    def _listen(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._hear(self._connected())  # what came with the answers to the last sign of life
        while not self._stopping and (left := until - time.monotonic()) > 0:
            connection = self._connected()
            if connection.fileno() in ready((connection.fileno(), self._bell), left):
                self._hear(connection)

    def _hear(self, connection: Connection) -> None:
        mine = str(self._identity.node)
        said = [notify.payload.partition(" ") for notify in connection.notifies(timeout=0)]
        words = list(dict.fromkeys(word for node, _, word in said if node != mine))
        if words:
            self._loop.call_soon_threadsafe(self._ears.heard, words)

    def _beat(self) -> Beat:
        connection, started, before = self._connected(), time.monotonic(), self._identity.node
        with connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = off")
            asked = self._clock()
            row = connection.execute(_BEAT, (*self._about(), self._skew, before)).fetchone()
            if row is None:
                self._identity.node, self._identity.slot = enter(connection, self._who)
            elif (took := self._clock() - asked) < _QUICK:  # else who knows when in that time it was
                self._skew = row[0] - asked - took / 2
        self._identity.sure_until = started + self._who.lease
        with connection.transaction():
            dead = connection.execute(_DEAD).fetchall()
            freed = bury(connection, [number for number, _ in dead])
            return self._news(connection, row is None and before != 0, tuple(name for _, name in dead), len(freed))

    def _news(self, connection: Connection, reborn: bool, dead: tuple[str, ...], freed: int) -> Beat:
        octets: dict[int, int] = dict(connection.execute("SELECT slot, octets FROM tally").fetchall())
        alone = connection.execute("SELECT FROM node").rowcount == 1
        own = octets.pop(self._identity.slot, 0)
        due = due_routes(connection, self._clock())
        return Beat(reborn, self._skew, sum(octets.values()), own, due, holds_of(connection), dead, freed, alone)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = schema.connect(self._options)
            self._connection.execute(f"LISTEN {CHANNEL}")
        return self._connection

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def ready(descriptors: Iterable[int], seconds: float) -> set[int]:
    """Those that have something to read, within so many seconds. Not select(2), which knows no descriptor above 1023,
    and the clients of a busy relay have as many.
    """
    look = select.poll()
    for descriptor in descriptors:
        look.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in look.poll(seconds * 1000)}


def _born(process: int) -> str:
    """When a process was started, in ticks since the boot: field 22 of proc(5)'s stat; "" when there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _gone(process: int, born: str) -> bool:
    """Whether that very process has ended. One of another user may be hidden from us (proc(5), hidepid)."""
    if found := _born(process):
        return found != born
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False  # it is there: its lease decides


def _boot() -> str:
    """What this boot of this machine is called. Our unit hides where the kernel says it, and says it instead; where
    nobody does, no other process counts as a neighbour, and leases alone say who is dead.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace("-", "")
    except OSError:
        return os.environ.get("BOOT_ID") or uuid4().hex
