"""The one thread that owns the SQLite connection: all that waits goes in one transaction.

It never sleeps to gather more. A future is resolved only after the commit is on disk, and in the order of commits.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from routing.events import emit
from spool import schema, statements
from spool.contract import Arrival, Settlement, SpoolFull, SpoolUnavailable, id_text

_LOG = logging.getLogger("relay.spool")
_BATCH_OCTETS: Final = 16 << 20
_BATCH_MAILS: Final = 500
_RIDERS: Final = 4
"""So many settlements ride with new mail; fewer wait for more, or for `flush`, as a client waits for each of them."""

Question = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    arrival: Arrival
    future: Future[None]


@dataclass(frozen=True, slots=True, eq=False)
class Settle:
    settlement: Settlement
    future: Future[None]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A question to the database; `then` is called with the answer on the loop, before any later commit is told.

    One that `grows` the file is refused like new mail when the disk is nearly full.
    """

    question: Question
    then: Callable[[Any], Any]
    future: Future[Any]
    grows: bool = False


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


@dataclass(frozen=True, slots=True)
class _Flush:
    pass


class Listener(Protocol):
    """Who is told on the loop, in the order in which things became true on disk."""

    def opened(self, count: statements.Count) -> None:
        """The file was opened (again): this is what waits."""

    def kept(self, puts: Sequence[Put], settles: Sequence[Settle]) -> None:
        """These are on disk."""

    def refused(self, puts: Sequence[Put], error: Exception) -> None:
        """Nothing of these is on disk."""

    def unwritten(self, count: int) -> None:
        """So many settlements could not be written yet; they go with the next batch."""


class Writer:
    """Takes puts, settlements and questions from the loop's thread."""

    def __init__(
        self, path: Path, loop: AbstractEventLoop, listener: Listener, clock: Callable[[], float], reserve: int
    ) -> None:
        self._path = path
        self._loop = loop
        self._listener = listener
        self._clock = clock
        self._reserve = reserve
        self._trouble: str | None = None
        self._damaged: str | None = None
        self._inbox: SimpleQueue[Put | Call | _Flush | _Stop] = SimpleQueue()
        self._settles: deque[Settle] = deque()
        self._unwritten: list[Settle] = []
        self._connection: sqlite3.Connection | None = None
        self._file = os.stat(path)
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)

    @property
    def damaged(self) -> bool:
        """See `Spool.damaged`. For any thread."""
        return self._damaged is not None

    def start(self) -> None:
        self._thread.start()

    def put(self, put: Put) -> None:
        self._inbox.put(put)

    def settle(self, settle: Settle) -> None:
        """Goes with the next batch that has room for it, or at `flush`."""
        self._settles.append(settle)

    def flush(self) -> None:
        self._inbox.put(_Flush())

    def call(self, call: Call) -> None:
        self._inbox.put(call)

    def stop(self) -> list[Settle]:
        """Write what waits, close the file and end. Returns the settlements that could not be written."""
        self._inbox.put(_Stop())
        self._thread.join()
        return self._unwritten

    # ---- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            puts, others, going = self._gather()
            ride = bool(others) or not going or len(self._settles) >= _RIDERS
            self._write(puts, self._pending_settles() if ride else [])
            for call in (other for other in others if isinstance(other, Call)):
                self._answer(call)
        self._close()

    def _gather(self) -> tuple[list[Put], list[Call | _Flush], bool]:
        puts: list[Put] = []
        others: list[Call | _Flush] = []
        octets = 0
        item = self._inbox.get()
        while True:
            match item:
                case Put():
                    puts.append(item)
                    octets += len(item.arrival.content)
                case Call() | _Flush():
                    others.append(item)
                case _Stop():
                    return puts, others, False
            if len(puts) >= _BATCH_MAILS or octets >= _BATCH_OCTETS:
                return puts, others, True
            try:
                item = self._inbox.get_nowait()
            except Empty:
                return puts, others, True

    def _pending_settles(self) -> list[Settle]:
        settles = self._unwritten
        self._unwritten = []
        while self._settles:
            settles.append(self._settles.popleft())
        return settles

    def _write(self, puts: list[Put], settles: list[Settle]) -> None:
        if puts and (refusal := self._no_room()):
            self._tell(self._listener.refused, puts, refusal)
            puts = []
        if not puts and not settles:
            return
        try:
            self._commit(puts, settles)
        except Exception as error:
            if (not _is_storage(error) or _is_damage(error)) and len(puts) + len(settles) > 1:
                self._write_one_by_one(puts, settles)
            else:
                self._failed(puts, settles, error)
        else:
            if puts or (self._trouble and not self._no_room()):
                self._report(None)
            self._tell(self._listener.kept, puts, settles)

    def _write_one_by_one(self, puts: list[Put], settles: list[Settle]) -> None:
        """One of them cannot be written as it is: it must not take the others with it."""
        for put in puts:
            self._write([put], [])
        for settle in settles:
            self._write([], [settle])

    def _commit(self, puts: list[Put], settles: list[Settle]) -> None:
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            if puts:
                statements.insert(connection, [put.arrival for put in puts])
            if settles:
                statements.apply(connection, [settle.settlement for settle in settles], self._clock())
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise

    def _failed(self, puts: list[Put], settles: list[Settle], error: Exception) -> None:
        refusal = self._refusal(error)
        if puts:
            self._tell(self._listener.refused, puts, refusal)
            self._write([], settles)  # A settlement makes room: it may well go where a mail does not.
        elif _is_storage(error) and not _is_damage(error):
            self._unwritten = settles
            self._tell(self._listener.unwritten, len(settles))
        else:
            for settle in settles:
                self._lost_sight_of(settle, error)

    def _lost_sight_of(self, settle: Settle, error: Exception) -> None:
        """It stays leased, so that it does not go out again before the next start."""
        mail, why = id_text(settle.settlement.mail.id), f"{error}; what became of it is not kept, it may go out again"
        emit(_LOG, "spool.mail_unwritable", logging.CRITICAL, mail=mail, error=why)
        self._tell(_fail, settle.future, error)

    def _answer(self, call: Call) -> None:
        if call.grows and (refusal := self._no_room()):
            self._tell(_fail, call.future, refusal)
            return
        try:
            connection = self._opened()
            connection.execute("BEGIN")
            before = connection.total_changes
            try:
                answer = call.question(connection)
                self._end(connection, only_read=connection.total_changes == before)
            except BaseException:
                self._roll_back(connection)
                raise
        except Exception as error:
            self._tell(_fail, call.future, self._refusal(error))
        else:
            self._tell(_succeed, call, answer)

    def _end(self, connection: sqlite3.Connection, *, only_read: bool) -> None:
        """Commit. After a read that met damage SQLite refuses even that; what could be read counts all the same."""
        try:
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if not only_read or not _is_damage(error):
                raise
            self._roll_back(connection)
            self._found_damage(error)

    def _refusal(self, error: Exception) -> Exception:
        """The contract's word for an error; after a broken read or write the file is opened anew."""
        if not _is_storage(error):
            return error
        if _is_damage(error):
            self._close()
            return self._found_damage(error)
        self._report(str(error))
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return SpoolFull(f"no room on the disk of {self._path}")
        self._close()
        return SpoolUnavailable(f"{self._path}: {error}")

    def _found_damage(self, error: Exception) -> SpoolUnavailable:
        """From now on new mail is refused: it would not be safe in there. What is there leaves as far as it can."""
        text = schema.damaged(self._path, error)
        if self._damaged is None:
            self._damaged = text
            emit(_LOG, "spool.damaged", logging.CRITICAL, error=f"{text}. Until then new mail is refused")
        return SpoolUnavailable(text)

    def _no_room(self) -> Exception | None:
        """Mail must not take the last room: what became of it has to be written down too, or it goes out twice.

        Room that delivered mail left inside the file counts, but a part must be free on the disk for the log.
        """
        if self._damaged is not None:
            return SpoolUnavailable(self._damaged)
        try:
            disk = os.statvfs(self._path.parent)
            free = disk.f_bavail * disk.f_frsize
            if free >= self._reserve or (
                free >= self._reserve // 4
                and self._connection is not None
                and free + statements.free_octets(self._connection) >= self._reserve
            ):
                return None
        except (OSError, sqlite3.Error) as error:
            return self._refusal(error)
        self._report(f"less than {self._reserve >> 20} MB is free on its disk: new mail is refused until there is more")
        return SpoolFull(f"{free} octets are free on the disk of {self._path}; {self._reserve} stay free")

    def _report(self, trouble: str | None) -> None:
        """Log trouble when it begins and when it ends, not for every mail in between."""
        if trouble is not None and trouble != self._trouble:
            emit(_LOG, "spool.trouble", logging.ERROR, error=trouble, file=str(self._path))
        elif trouble is None and self._trouble is not None:
            emit(_LOG, "spool.recovered", logging.WARNING, after=self._trouble, file=str(self._path))
        self._trouble = trouble

    def _opened(self) -> sqlite3.Connection:
        """The connection. The file must still be the one we started with, or mail would go into a deleted file."""
        try:
            now = os.stat(self._path)
        except OSError as error:
            raise sqlite3.OperationalError(f"the file is gone ({error.strerror}); restart the relay") from error
        if (now.st_ino, now.st_dev) != (self._file.st_ino, self._file.st_dev):
            raise sqlite3.OperationalError("the file was replaced while the relay runs; restart the relay")
        if self._connection is None:
            connection = schema.connect(self._path)
            try:
                self._tell(self._listener.opened, statements.count(connection))
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                emit(_LOG, "spool.close_failed", logging.ERROR, error=str(error), file=str(self._path))

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(what, *arguments)


def _is_storage(error: Exception) -> bool:
    """True when the store is at fault, False when what it was given cannot be kept (our own bug)."""
    return isinstance(error, OSError | MemoryError) or (
        isinstance(error, sqlite3.DatabaseError)
        and not isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError)
    )


def _is_damage(error: Exception) -> bool:
    """True when the file is not what was written: it does not heal by itself."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _succeed(call: Call, answer: Any) -> None:
    if not call.future.done():
        call.future.set_result(call.then(answer))


def _fail(future: Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
