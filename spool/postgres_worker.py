"""Threads that each own one connection to PostgreSQL: one commits mail in batches, others answer questions.

A future is resolved only after its commit. A broken connection is made anew by the next one who needs it; nobody here
sleeps or tries again, but for what the database itself asks to repeat.
"""

from __future__ import annotations

import logging
import threading
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

import psycopg
from psycopg import Connection, errors

from routing.events import emit
from spool import postgres_schema as schema
from spool import postgres_statements as statements
from spool.contract import Settlement, SpoolFull, SpoolUnavailable
from spool.inbox import BATCH_MAILS, BATCH_OCTETS, Put, fail
from spool.postgres_node import Identity, ready

_LOG = logging.getLogger("relay.spool")
_REPEAT: Final = 5
_WITHDRAW: Final = """
DELETE FROM waiting USING unnest(%s::bigint[], %s::float8[], %s::bigint[]) AS doubtful (id, received_at, size)
WHERE waiting.id = doubtful.id AND waiting.received_at = doubtful.received_at AND waiting.size = doubtful.size
 AND node IS NULL RETURNING waiting.id, waiting.size"""

Answer = TypeVar("Answer")
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True, eq=False)
class Settle:
    """A settlement on its way; `future` ends when it is on disk."""

    settlement: Settlement
    future: Future[None]


class Again(Put):
    """A mail that lies somewhere else too until this one has said that it is kept: it may be here already."""

    __slots__ = ()


class Trouble:
    """Logs trouble of the database when it begins and when it ends, whichever thread meets it."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._said: str | None = None
        self._lock = threading.Lock()

    def report(self, trouble: str | None) -> None:
        with self._lock:
            before, self._said = self._said, trouble
        if trouble is not None and before is None:
            emit(_LOG, "spool.trouble", logging.ERROR, error=trouble, database=self._database)
        elif trouble is None and before is not None:
            emit(_LOG, "spool.recovered", logging.WARNING, after=before, database=self._database)


class Session:
    """A connection that is made when it is needed and thrown away when it is broken. For one thread.

    One that is not `durable` is for what may be forgotten when the database crashes; `patient` as in `schema.connect`.
    """

    def __init__(
        self, options: dict[str, str], trouble: Trouble, *, durable: bool = True, patient: bool = False
    ) -> None:
        self._options = options
        self._trouble = trouble
        self._durable = durable
        self._patient = patient
        self._connection: Connection | None = None

    def run(self, question: Callable[[Connection], Answer], *, single: bool = False) -> Answer:
        """The answer, committed. `single`: it is one statement, which needs no transaction around it.

        Raises SpoolFull or SpoolUnavailable where the store is at fault.
        """
        for number in range(_REPEAT):
            try:
                answer = self._once(question, single)
            except (errors.SerializationFailure, errors.DeadlockDetected) as error:
                if number == _REPEAT - 1:
                    raise SpoolUnavailable(schema.unusable(error)) from error
            except Exception as error:
                raise self._word(error) from error
            else:
                self._trouble.report(None)
                return answer
        raise AssertionError("unreachable")

    def _once(self, question: Callable[[Connection], Answer], single: bool) -> Answer:
        connection = self._connection
        if connection is None or _ended(connection):
            self.close()
            connection = self._connection = schema.connect(self._options, patient=self._patient)
            if not self._durable:
                connection.execute("SET synchronous_commit = off")
        if single:
            return question(connection)
        with connection.transaction():
            return question(connection)

    def _word(self, error: Exception) -> Exception:
        """The contract's word for an error."""
        if not isinstance(error, psycopg.Error) or not is_storage(error):
            return error
        self.close()
        said = schema.unusable(error)
        self._trouble.report(said)
        return SpoolFull(said) if isinstance(error, errors.DiskFull) else SpoolUnavailable(said)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _ended(connection: Connection) -> bool:
    """Whether the database hung up while nobody asked for anything: a restart, `idle_session_timeout`, a firewall.

    Seen before a statement is sent, it costs nobody anything; after that nobody would know whether it was carried out.
    What there is to read is not looked at: a session that nobody asked for anything has nothing else to say.
    """
    return connection.closed or bool(ready((connection.fileno(),), 0.0))


_Asked = tuple[Callable[[Connection], Any], Callable[[Any], Any], Future[Any], bool]


class Asker:
    """A thread that answers questions one after the other."""

    def __init__(self, session: Session, loop: AbstractEventLoop, name: str) -> None:
        self._session = session
        self._loop = loop
        self._inbox: SimpleQueue[_Asked | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(
        self, question: Callable[[Connection], Answer], then: Callable[[Answer], Told], *, single: bool = False
    ) -> Future[Told]:
        """`then` is called with the answer on the loop, also when nobody waits for it any more."""
        future: Future[Told] = self._loop.create_future()
        self._inbox.put((question, then, future, single))
        return future

    def stop(self) -> None:
        """Answer what waits, and end."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._inbox.get()) is not None:
            question, then, future, single = item
            try:
                answer = self._session.run(question, single=single)
            except Exception as error:
                self._loop.call_soon_threadsafe(fail, future, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, then, future, answer)
        self._session.close()


class Listener(Protocol):
    """Who is told on the loop, in the order of the commits."""

    def kept(self, puts: Sequence[Put], settles: Sequence[Settle], done: statements.Settles) -> None:
        """These are on disk."""

    def refused(self, puts: Sequence[Put], error: Exception) -> None:
        """These are not kept."""

    def unsettled(self, settle: Settle, error: Exception) -> None:
        """This cannot be written as it is."""

    def unwritten(self, count: int) -> None:
        """So many settlements could not be written yet; they go with the next batch."""


_NOTHING: Final = statements.Settles({}, frozenset(), 0)


class Writer:
    """Commits what waits in one transaction: puts at once, settlements with the next put or `flush`."""

    def __init__(
        self,
        session: Session,
        loop: AbstractEventLoop,
        listener: Listener,
        identity: Identity,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._loop = loop
        self._listener = listener
        self._identity = identity
        self._clock = clock
        self._inbox: SimpleQueue[Put | bool] = SimpleQueue()
        self._settles: deque[Settle] = deque()
        self._unwritten: list[Settle] = []
        self._doubtful: list[tuple[int, float, int]] = []
        """Mails that were refused because nobody knows whether their commit was made."""
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def put(self, put: Put) -> None:
        self._inbox.put(put)

    def settle(self, settle: Settle) -> None:
        self._settles.append(settle)

    def flush(self) -> None:
        self._inbox.put(True)

    def stop(self) -> list[Settle]:
        """Write what waits and end. Returns the settlements that could not be written."""
        self._inbox.put(False)
        self._thread.join()
        return self._unwritten

    # ---- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            puts, going = self._gather()
            again, self._unwritten = self._unwritten, []
            fresh = [self._settles.popleft() for _ in range(len(self._settles))]
            if again:
                self._write([], again, again=True)
            self._write(puts, fresh)
        self._session.close()

    def _gather(self) -> tuple[list[Put], bool]:
        puts: list[Put] = []
        octets = 0
        item = self._inbox.get()
        while True:
            if item is False:
                return puts, False
            if isinstance(item, Put):
                puts.append(item)
                octets += len(item.arrival.content)
            if len(puts) >= BATCH_MAILS or octets >= BATCH_OCTETS:
                return puts, True
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return puts, True

    def _write(self, puts: list[Put], settles: list[Settle], again: bool = False) -> None:
        if not puts and not settles:
            return
        try:
            done = self._session.run(lambda connection: self._batch(connection, puts, settles, again))
        except (SpoolFull, SpoolUnavailable) as error:
            self._failed(puts, settles, error)
        except Exception as error:
            if len(puts) + len(settles) > 1:  # one of them cannot be written as it is: it must not take the others
                for put in puts:
                    self._write([put], [])
                for settle in settles:
                    self._write([], [settle], again)
            elif puts:
                self._tell(self._listener.refused, puts, error)
            else:
                self._tell(self._listener.unsettled, settles[0], error)
        else:
            self._doubtful = []
            self._tell(self._listener.kept, puts, settles, done)

    def _batch(self, connection: Connection, puts: list[Put], settles: list[Settle], again: bool) -> statements.Settles:
        octets = self._withdraw(connection) if self._doubtful else 0
        done = _NOTHING
        arrivals = [put.arrival for put in puts if not isinstance(put, Again)]
        if again_too := [put.arrival for put in puts if isinstance(put, Again)]:
            arrivals += statements.unknown(connection, again_too)
        if arrivals:
            statements.insert(connection, arrivals)
            octets += sum(len(arrival.content) for arrival in arrivals)
        if settles:
            node = self._identity.node
            done = statements.apply(connection, [s.settlement for s in settles], node, self._clock(), again)
        return replace(done, own=statements.count(connection, self._identity.slot, octets - done.octets))

    def _withdraw(self, connection: Connection) -> int:
        """Take out what was refused and is there all the same: its client comes again, and would send it twice.

        Another node may have it under way; then both go.
        """
        rows = connection.execute(_WITHDRAW, statements.columns(self._doubtful)).fetchall()
        ids = [row[0] for row in rows]
        for table, column in (("content", "mail"), ("recipient", "mail"), ("mail", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", (ids,))
        return -sum(int(row[1]) for row in rows)

    def _failed(self, puts: list[Put], settles: list[Settle], error: Exception) -> None:
        if puts:
            refused = [put.arrival for put in puts if not isinstance(put, Again)]
            self._doubtful += [(mail.id, mail.received_at, len(mail.content)) for mail in refused]
            del self._doubtful[:-10_000]
            self._tell(self._listener.refused, puts, error)
        if settles:
            self._unwritten += settles
            self._tell(self._listener.unwritten, len(settles))

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(what, *arguments)


def is_storage(error: Exception) -> bool:
    """True when the store is at fault, False when what it was given cannot be kept (our own bug)."""
    if not isinstance(error, psycopg.Error) or isinstance(error, psycopg.IntegrityError | psycopg.DataError):
        return False
    # A statement that cannot be is our bug; one that the database will not run for us (rights, tables gone) is not.
    return not isinstance(error, psycopg.ProgrammingError) or error.sqlstate is not None


def _succeed(then: Callable[[Any], Any], future: Future[Any], answer: Any) -> None:
    told = then(answer)
    if not future.done():
        future.set_result(told)
