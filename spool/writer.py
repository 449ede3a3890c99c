"""Mail on its way to disk: it goes into the intake log, and from there, by a thread of its own, into the database a
moment later, together with what became of it.

It never sleeps to gather more. A future is resolved only after it is on disk, and in the order of commits.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from routing.events import emit
from spool import statements
from spool.absorbing import Batch, Ending, Unabsorbed, asked
from spool.contract import SpoolFull, id_text
from spool.inbox import Call, Inbox, Listener, Post, Put, Settle, end, fail, succeed
from spool.intake_log import InLog
from spool.schema import is_damage
from spool.sqlite_file import SqliteFile, is_storage
from spool.statements import Count

_LOG = logging.getLogger("relay.spool")
_WITHIN: Final = 0.05
"""Seconds after which the database takes over what is in the log, as people look there."""
_REST: Final = 20.0
"""So many times as long as that took it leaves the disk to new mail ..."""
_LONGEST_REST: Final = 0.5
_AT_ONCE: Final = 256
"""... unless so many mails, or octets of their content, wait in the log."""
_AT_ONCE_OCTETS: Final = 10 << 20
_LARGE: Final = 1 << 20
"""A mail of so many octets is seldom gone so soon that the log would spare the database its content."""
_CROWD: Final = 4
_STRAIGHT_FOR: Final = 4.0
"""Seconds for which as many mails at once go straight into the database, after most of them had to go there: then the
log only doubles the work. One at a time it is faster all the same.
"""
_ALONE: Final = 8
_QUICK_OCTETS: Final = 1 << 17
"""So much is appended in the loop's thread, once that many mails in a row came one at a time ..."""
_QUICK: Final = 0.001
_SLOW_REST: Final = 20.0
"""... but after an append of more than `_QUICK` seconds not for so many times as long: the loop has other work."""
_AGAIN_AFTER: Final = 1.0
_DAMAGED_AGAIN_AFTER: Final = 60.0
_LOG_AGAIN_AFTER: Final = 10.0


class Writer:
    """Takes puts, settlements and questions from the loop's thread."""

    def __init__(
        self,
        path: Path,
        unabsorbed: Unabsorbed,
        loop: AbstractEventLoop,
        listener: Listener,
        reserve: int,
    ) -> None:
        self._file = SqliteFile(path, reserve, self._opened)
        self._unabsorbed = unabsorbed
        self._loop = loop
        self._listener = listener
        self._inbox = Inbox()
        self._settles: deque[Settle] = deque()
        self._since: float | None = None
        self._rest_until = 0.0
        self._stuck = False
        self._recount = not unabsorbed.empty
        self._no_log_until = 0.0
        self._straight_until = 0.0
        self._lock = threading.Lock()
        self._come: list[Put] = []
        self._slow_until = 0.0
        self._alone = 0
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)

    @property
    def troubles(self) -> frozenset[str]:
        """See `Spool.troubles`. For any thread."""
        met = {"damaged": self._file.damaged, "intake_log": self._no_log_until}
        return frozenset(name for name, trouble in met.items() if trouble)

    def start(self) -> None:
        self._thread.start()

    def put(self, put: Put) -> None:
        if not self._come:
            self._loop.call_soon(self._take)
        self._come.append(put)

    def settle(self, settle: Settle) -> None:
        """Goes with the next batch that has room for it, or at `flush`."""
        self._settles.append(settle)

    def flush(self) -> None:
        self._inbox.flush()

    def call(self, call: Call) -> None:
        self._inbox.call(call)

    def stop(self) -> list[Settle]:
        """Write what waits, close the files and end. Returns the settlements that could not be written."""
        self._inbox.put(self._come)
        self._inbox.stop()
        self._thread.join()
        return asked(self._unabsorbed.unmarked)

    # ---- in the loop's thread ----------------------------------------------------------------------------------

    def _take(self) -> None:
        """All that came in this turn of the loop. One mail at a time is appended here, where a sync is quick: to wake
        another thread and to be woken by it takes longer. A crowd's mails gather while that thread waits for the disk.
        """
        puts, self._come = self._come, []
        self._alone = self._alone + 1 if len(puts) == 1 and self._inbox.empty else 0
        quick = self._alone > _ALONE and monotonic() >= self._slow_until
        quick = quick and len(puts[0].arrival.content) <= _QUICK_OCTETS
        if quick and self._lock.acquire(blocking=False):
            try:
                if self._append_here(puts[0]):
                    return
            finally:
                self._lock.release()
        self._inbox.put(puts)

    def _append_here(self, put: Put) -> bool:
        """False when the other thread must see to it, as more is to be done than to append."""
        if self._since is None or self._stuck or self._begins() or monotonic() < self._straight_until:
            return False
        self._drain()
        batch = Batch(self._unabsorbed.mails, self._unabsorbed.marks())
        if not self._encode(put, batch):
            return True
        started = monotonic()
        if not self._log_takes(batch) or not self._wrote(batch):
            return False
        ended = monotonic()
        if ended - started > _QUICK:
            self._slow_until = ended + _SLOW_REST * (ended - started)
        # Not at once: what the other thread told before was on disk before.
        self._loop.call_soon(self._listener.kept, [put], ())
        if self._is_due():
            self.flush()
        return True

    # ---- in the writer's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            post = self._inbox.gather(self._patience())
            going = not post.last
            with self._lock:
                self._do(post)
        if self._unabsorbed.settled and self._mark():
            self._tell(end, asked(self._unabsorbed.settled))
        self._file.close()
        self._unabsorbed.log.close(empty=self._unabsorbed.empty)

    def _do(self, post: Post) -> None:
        self._drain()
        crowd = len(post.puts) >= _CROWD and monotonic() < self._straight_until
        if self._stuck and not post.last and not post.puts and self._patience():
            self._mark()
        elif self._stuck or post.last or crowd or any(call.about_mail for call in post.calls):
            self._absorb(post.puts)  # in one commit with what is in the log, as somebody wants to see it
        elif post.flushed and not post.puts and monotonic() >= self._rest_until:
            self._absorb([])
        else:
            self._append(post.puts, mark=post.flushed or bool(post.puts))
            if self._is_due():
                self._absorb([])
        for call in post.calls:
            self._answer(call)

    def _drain(self) -> None:
        """Take the settlements that have come."""
        while self._settles:
            self._unabsorbed.settle(self._settles.popleft())

    # ---- the log

    def _patience(self) -> float | None:
        """For how long to wait for work before the database takes over what is in the log."""
        if self._since is None:
            return None
        return max(0.0, max(self._since + _WITHIN, self._rest_until) - monotonic())

    def _is_due(self) -> bool:
        waits = self._unabsorbed
        if self._since is None or self._stuck:
            return False
        return len(waits.mails) >= _AT_ONCE or waits.octets >= _AT_ONCE_OCTETS or self._patience() == 0.0

    def _append(self, puts: list[Put], *, mark: bool) -> None:
        """New mail goes into the log, settlements with it when they are to be marked there."""
        if puts and self._begins() and (refusal := self._file.no_room() or self._file.unreachable()):
            self._tell(self._listener.refused, puts, refusal)
            puts = []
        if large := [put for put in puts if len(put.arrival.content) > _LARGE]:
            self._absorb(large)
        batch = Batch(self._unabsorbed.mails, self._unabsorbed.marks() if mark else ())
        kept = [put for put in puts if len(put.arrival.content) <= _LARGE and self._encode(put, batch)]
        if not batch.octets:
            return
        if not self._log_takes(batch):
            self._absorb([])
            batch.marks = ()
        if self._stuck or not self._log_takes(batch):
            self._absorb(kept)
            return
        if not self._wrote(batch):
            self._absorb(kept)
            return
        if self._since is None:
            self._since = monotonic() - (0.0 if kept else _WITHIN)
        if kept:
            self._tell(self._listener.kept, kept, ())
            self._file.report(None)

    def _wrote(self, batch: Batch) -> bool:
        """Append to the log. False when that failed, and it is left alone for a while."""
        try:
            self._unabsorbed.append(batch)
        except OSError as error:
            if not self._no_log_until:
                what = f"{error}; mail goes straight into the database, which takes longer"
                emit(_LOG, "spool.intake_log_failed", logging.ERROR, error=what)
            self._no_log_until = monotonic() + _LOG_AGAIN_AFTER
            return False
        self._no_log_until = 0.0
        return True

    def _begins(self) -> bool:
        """Whether the disk and the database must be looked at before more is promised: once a generation."""
        return self._unabsorbed.log.number == 0 or self._file.trouble is not None or self._file.damaged is not None

    def _encode(self, put: Put, batch: Batch) -> bool:
        try:
            batch.add(put.arrival)
        except (ValueError, TypeError) as error:
            self._tell(self._listener.refused, [put], error)
            return False
        return True

    def _log_takes(self, batch: Batch) -> bool:
        return monotonic() >= self._no_log_until and self._unabsorbed.log.has_room(batch.octets)

    def _mark(self) -> bool:
        """Settlements that the database cannot take just now: at least the log knows of them."""
        batch = Batch((), self._unabsorbed.marks())
        if not batch.marks:
            return not self._unabsorbed.unmarked
        try:
            if not self._log_takes(batch):
                return False
            self._unabsorbed.append(batch)
        except OSError:
            return False
        return True

    # ---- the database

    def _absorb(self, puts: list[Put]) -> None:
        """The database takes over all that is in the log, and these mails straight."""
        if puts and (refusal := self._file.no_room()):
            self._tell(self._listener.refused, puts, refusal)
            puts = []
        unabsorbed, started = self._unabsorbed, monotonic()
        if len(unabsorbed.mails) > _CROWD and unabsorbed.waiting() * 2 > len(unabsorbed.mails):
            self._straight_until = started + _STRAIGHT_FOR
        if not puts and unabsorbed.empty and not self._stuck:
            return
        arrivals = [put.arrival for put in puts]
        try:
            self._file.transaction(partial(unabsorbed.write_all, arrivals=arrivals))
        except Exception as error:
            if is_storage(error) and not is_damage(error):
                self._not_absorbed(puts, error)
            else:
                self._one_by_one(puts)
        else:
            self._absorbed(puts)
        now = monotonic()
        rest = min(_REST * (now - started), _LONGEST_REST)
        if self._stuck:
            rest = _DAMAGED_AGAIN_AFTER if self._file.damaged else _AGAIN_AFTER
        self._rest_until = now + rest
        self._since = None if unabsorbed.empty and not self._stuck else now

    def _absorbed(self, puts: list[Put]) -> None:
        endings = self._unabsorbed.committed()
        if puts or (self._file.trouble and not self._file.no_room()):
            self._file.report(None)
        self._tell(self._listener.kept, puts, asked(endings))
        self._unstick()

    def _unstick(self) -> None:
        """What was unseen in the database for a while is there now."""
        if self._stuck or self._recount:
            self._stuck = self._recount = False
            self._file.close()
            self._file.unreachable()  # opened again, it is counted again

    def _not_absorbed(self, puts: list[Put], error: Exception) -> None:
        """The store is at fault. What was promised stays in the log, and new mail is refused meanwhile."""
        refusal = self._file.refusal(error)
        if puts:
            self._stuck = True  # nobody knows whether it came through: the log takes nothing until that is known
            self._tell(self._listener.refused, puts, refusal)
            self._absorb([])  # A settlement makes room: it may well go where a mail does not.
            return
        if not self._stuck and self._unabsorbed.settled:
            self._tell(self._listener.unwritten, len(self._unabsorbed.settled))
        self._stuck = True
        if isinstance(refusal, SpoolFull) and self._unabsorbed.mails and self._unabsorbed.settled:
            self._make_room()

    def _make_room(self) -> None:
        done: list[Ending] = []
        try:
            self._file.transaction(lambda connection: done.extend(self._unabsorbed.write_settled(connection)))
        except (sqlite3.Error, OSError):
            return  # it was told that the disk is full
        self._unabsorbed.forget((), done)
        self._tell(self._listener.kept, (), asked(done))

    def _one_by_one(self, puts: list[Put]) -> None:
        """One of them cannot be written as it is: it must not take the others with it."""
        for mails, endings in list(self._unabsorbed.units()):
            self._write_unit(mails, endings)
        for put in puts:
            try:
                self._file.transaction(partial(statements.insert, arrivals=[put.arrival]))
            except Exception as error:
                self._tell(self._listener.refused, [put], self._file.refusal(error))
            else:
                self._tell(self._listener.kept, [put], ())
        self._stuck = True
        if self._unabsorbed.empty:
            try:
                self._file.transaction(self._unabsorbed.write_end)
            except (sqlite3.Error, OSError) as error:
                self._file.refusal(error)
            else:
                self._unabsorbed.committed()
                self._unstick()

    def _write_unit(self, mails: list[InLog], endings: list[Ending]) -> None:
        try:
            self._file.transaction(partial(self._unabsorbed.write, mails=mails, settled=endings))
        except Exception as error:
            self._file.refusal(error)
            if is_storage(error) and (mails or not is_damage(error)):
                return
            for mail in mails:
                emit(_LOG, "spool.mail_unwritable", logging.CRITICAL, mail=id_text(mail.record.id), error=str(error))
            for ending in endings:
                if ending.asked is not None:
                    self._lost_sight_of(ending.asked, error)
        else:
            self._tell(self._listener.kept, (), asked(endings))
        self._unabsorbed.forget(mails, endings)

    def _lost_sight_of(self, settle: Settle, error: Exception) -> None:
        """It stays leased, so that it does not go out again before the next start."""
        mail, why = id_text(settle.record.id), f"{error}; what became of it is not kept, it may go out again"
        emit(_LOG, "spool.mail_unwritable", logging.CRITICAL, mail=mail, error=why)
        self._tell(fail, settle.future, error)

    def _answer(self, call: Call) -> None:
        if call.grows and (refusal := self._file.no_room()):
            self._tell(fail, call.future, refusal)
            return
        try:
            answer = self._file.answer(call.question)
        except Exception as error:
            self._tell(fail, call.future, self._file.refusal(error))
        else:
            self._tell(succeed, call, answer)

    def _opened(self, count: Count) -> None:
        self._tell(self._listener.opened, self._unabsorbed.counted(count))

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(what, *arguments)
