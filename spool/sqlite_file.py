"""The SQLite file as the writer's thread uses it: its one connection, its transactions, and what an error means.

A file that was replaced must never be written to, nor one in which damage was met be trusted with new mail.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from routing.events import emit
from spool import schema, statements
from spool.contract import SpoolFull, SpoolUnavailable
from spool.inbox import Question
from spool.schema import is_damage
from spool.statements import Count

_LOG = logging.getLogger("relay.spool")


class SqliteFile:
    """`reserve` octets of the disk are left free by new mail; `told` hears what waits whenever the file is opened."""

    def __init__(self, path: Path, reserve: int, told: Callable[[Count], None]) -> None:
        self.path = path
        self.trouble: str | None = None
        self.damaged: str | None = None
        self._reserve = reserve
        self._told = told
        self._connection: sqlite3.Connection | None = None
        self._file = os.stat(path)

    def transaction(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Commit what `work` does, or nothing of it. Raises what it raises, OSError and sqlite3.Error."""
        connection = self.opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back(connection)
            raise

    def _commit_answer(self, connection: sqlite3.Connection, *, only_read: bool) -> None:
        """Commit. After a read that met damage SQLite refuses even that; what could be read counts all the same."""
        try:
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if not only_read or not is_damage(error):
                raise
            self._roll_back(connection)
            self._found_damage(error)

    def refusal(self, error: Exception) -> Exception:
        """The contract's word for an error; after a broken read or write the file is opened anew."""
        if not is_storage(error):
            return error
        if is_damage(error):
            self.close()
            return self._found_damage(error)
        self.report(str(error))
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return SpoolFull(f"no room on the disk of {self.path}")
        self.close()
        return SpoolUnavailable(f"{self.path}: {error}")

    def _found_damage(self, error: Exception) -> SpoolUnavailable:
        """From now on new mail is refused: it would not be safe in there. What is there leaves as far as it can."""
        text = schema.damaged(self.path, error)
        if self.damaged is None:
            self.damaged = text
            emit(_LOG, "spool.damaged", logging.CRITICAL, error=f"{text}. Until then new mail is refused")
        return SpoolUnavailable(text)

    def no_room(self) -> Exception | None:
        """Mail must not take the last room: what became of it has to be written down too, or it goes out twice.

        Room that delivered mail left inside the file counts, but a part must be free on the disk for the log.
        """
        if self.damaged is not None:
            return SpoolUnavailable(self.damaged)
        try:
            disk = os.statvfs(self.path.parent)
            free = disk.f_bavail * disk.f_frsize
            if free >= self._reserve or (
                free >= self._reserve // 4
                and self._connection is not None
                and free + statements.free_octets(self._connection) >= self._reserve
            ):
                return None
        except (OSError, sqlite3.Error) as error:
            return self.refusal(error)
        self.report(f"less than {self._reserve >> 20} MB is free on its disk: new mail is refused until there is more")
        return SpoolFull(f"{free} octets are free on the disk of {self.path}; {self._reserve} stay free")

    def unreachable(self) -> Exception | None:
        """Why the database cannot be had just now: nothing is promised that it could not take over."""
        try:
            self.opened()
        except Exception as error:
            return self.refusal(error)
        return None

    def report(self, trouble: str | None) -> None:
        """Log trouble when it begins and when it ends, not for every mail in between."""
        if trouble is not None and trouble != self.trouble:
            emit(_LOG, "spool.trouble", logging.ERROR, error=trouble, file=str(self.path))
        elif trouble is None and self.trouble is not None:
            emit(_LOG, "spool.recovered", logging.WARNING, after=self.trouble, file=str(self.path))
        self.trouble = trouble

    def opened(self) -> sqlite3.Connection:
        """The connection. The file must still be the one we started with, or mail would go into a deleted file."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise sqlite3.OperationalError(f"the file is gone ({error.strerror}); restart the relay") from error
        if (now.st_ino, now.st_dev) != (self._file.st_ino, self._file.st_dev):
            raise sqlite3.OperationalError("the file was replaced while the relay runs; restart the relay")
        if self._connection is None:
            connection = schema.connect(self.path)
            try:
                self._told(statements.count(connection))
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
            self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                emit(_LOG, "spool.close_failed", logging.ERROR, error=str(error), file=str(self.path))

    def answer(self, question: Question) -> Any:
        """What the question says, in a transaction of its own. Raises what it raises, and sqlite3.Error."""
        connection = self.opened()
        connection.execute("BEGIN")
        before = connection.total_changes
        try:
            answer = question(connection)
            self._commit_answer(connection, only_read=connection.total_changes == before)
        except BaseException:
            self._roll_back(connection)
            raise
        return answer


def is_storage(error: Exception) -> bool:
    """True when the store is at fault, False when what it was given cannot be kept (our own bug)."""
    return isinstance(error, OSError | MemoryError) or (
        isinstance(error, sqlite3.DatabaseError)
        and not isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError)
    )
