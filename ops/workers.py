"""Several processes of one relay: a parent that starts them, keeps them alive and speaks for them to systemd.

The parent opens the ports, so all accept on the same sockets, and keeps the rules in force, so a worker that is started
again goes by them. It forks, so it must never have a thread or a loop, nor carry mail.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Final, NoReturn

from intake.listeners import close_listeners, open_listeners, written
from ops import notify
from ops.activation import inherited
from ops.check import Checked
from ops.descriptors import within_limit
from ops.reload import tell_problem
from ops.rounds import Round
from ops.rules_watch import Watcher, look
from ops.seat import Pages, Seat, hear, tell
from ops.watchdog import seconds_allowed
from routing.events import emit

_log = logging.getLogger("relay.workers")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 30.0
_LIVED: Final = 60.0
"""Seconds after which a death is not one more of a row."""
_PATIENCE: Final = 10.0
"""Seconds that a worker may take to say whether it can go by new rules."""
_START: Final = 60.0
"""Seconds that one which is started again may take until it is ready."""
_DRAIN: Final = 35.0
"""Seconds after which a worker that was told to stop is killed: its own drain ends before, TimeoutStopSec after."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(slots=True)
class _Worker:
    """One of them. While there is none `pid` is 0, and it is started at `due` (monotonic seconds)."""

    number: int
    pid: int = 0
    line: socket.socket | None = None
    started: float = 0.0
    due: float = inf
    deaths: int = 0
    ready: bool = False
    pinged: bool = False
    status: str = ""
    """What it said when it was ready; "" before."""

    @property
    def starting(self) -> bool:
        return self.pid != 0 and not self.status


class Parent:
    """A relay of several processes. `check` reads the files; `work` is what each worker does, in a process of its own,
    and gives its exit code.
    """

    def __init__(self, config: Path, check: Callable[[], Checked], work: Callable[[Seat], int]) -> None:
        self._folder = config.parent
        self._check = check
        self._work = work
        self._workers: list[_Worker] = []
        self._complete = self._stopping = self._reload_asked = False
        self._failed = 0
        self._rounds = 0
        self._round: Round | None = None
        self._told = ""
        self._bell, self._rung = socket.socketpair()
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._watched = seconds_allowed(os.environ) is not None

    def run(self) -> int:
        """Until SIGTERM or SIGINT. 0 after a drain; else what the worker ended with that could not start at first.

        Raises OSError when an address cannot be listened on.
        """
        self._watcher = Watcher(look(self._folder))
        self._checked = self._check()
        for problem in self._checked.problems:
            tell_problem(problem)
        relay = self._checked.relay
        if relay is None or self._checked.rules is None:
            return 1
        relay = within_limit(relay)
        self._checked = replace(self._checked, relay=relay)
        self._look_every = relay.watch or inf
        self._look_at = time.monotonic() + self._look_every
        self._listeners = open_listeners(relay.listen, inherited(os.environ))
        self._pages = Pages(relay)
        self._workers = [_Worker(number) for number in range(1, relay.workers + 1)]
        self._listen()
        import spool.postgres  # noqa: F401 - once here, and not in each worker

        gc.collect()
        gc.freeze()  # it stays shared with the workers as long as no collector walks over it
        try:
            self._start_all()
            while not self._stopping:
                self._turn()
        finally:
            self._stop_all()
        return self._failed

    def _listen(self) -> None:
        """To signals, and to what workers tell as a service tells systemd: the kernel says which of them it was."""
        for end in (self._bell, self._rung, self._ear):
            end.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, _noted)
        self._ear.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._ear.bind("")  # the kernel gives it a name, in no folder (unix(7), autobind)

    def _start_all(self) -> None:
        """One after the other: what stops the first would stop all of them, and is said once."""
        for worker in self._workers:
            if not self._stopping:
                self._start(worker)
            while not self._stopping and not worker.ready:
                self._turn()
        if not self._stopping:
            self._complete = True
            emit(
                _log,
                "workers_started",
                workers=len(self._workers),
                listen=[written(one) for each in self._listeners for one in each],
            )
            self._tell_systemd()

    def _stop_all(self) -> None:
        """Nobody new is let in, and each worker drains."""
        self._stopping = True
        notify.stopping()
        close_listeners(self._listeners)
        self._pages.leave()
        if self._round:
            self._round.refusal = "the relay stops"
            self._end_round(self._round)
        until = time.monotonic() + _DRAIN
        _signal(self._workers, signal.SIGTERM)
        while left := [worker for worker in self._workers if worker.pid]:
            if time.monotonic() > until:
                for worker in left:
                    why = f"it did not stop within {_DRAIN:g} seconds"
                    emit(_log, "worker_killed", logging.ERROR, worker=worker.number, why=why)
                _signal(left, signal.SIGKILL)
                until = inf
            self._turn(until)

    # ---- one turn: whatever happens next -----------------------------------------------------------------------

    def _turn(self, until: float = inf) -> None:
        lines = {worker.line: worker for worker in self._workers if worker.line is not None}
        if not self._stopping:
            until = min(self._round.until if self._round else self._next_start(), self._look_at)
        wait = None if until == inf else max(0.0, until - time.monotonic())
        ready, _, _ = select.select([self._rung, self._ear, *lines], [], [], wait)
        for one in ready:
            if one is self._rung:
                self._hear_signals()
            elif one is self._ear:
                self._hear_workers()
            else:
                self._hear_vote(lines[one])
        if not self._stopping:
            self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        if self._round and self._round.over(now):
            self._end_round(self._round)
        for worker in self._workers if self._round is None else ():
            if now >= worker.due:
                self._start_again(worker)
            elif worker.starting and self._complete and now > worker.started + _START:
                worker.started = now  # its end is on the way; once is enough
                emit(_log, "worker_killed", logging.ERROR, worker=worker.number, why=f"not ready in {_START:g} seconds")
                _signal([worker], signal.SIGKILL)
        if now >= self._look_at:
            self._look_at = now + self._look_every
            self._reload_asked |= self._watcher.changed(look(self._folder))
        if not self._complete:
            return
        if self._reload_asked and self._round is None and not any(worker.starting for worker in self._workers):
            self._begin_round()
        self._tell_systemd()

    def _next_start(self) -> float:
        """When somebody is to be started, or has taken too long for it."""
        starting = [worker.started + _START for worker in self._workers if worker.starting and self._complete]
        return min(*(worker.due for worker in self._workers), *starting, inf)

    def _hear_signals(self) -> None:
        numbers = set(self._rung.recv(4096))
        self._stopping |= bool(numbers & {signal.SIGTERM, signal.SIGINT})
        self._reload_asked |= signal.SIGHUP in numbers
        for worker in self._workers:
            if worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._ended(worker, os.waitstatus_to_exitcode(status))

    def _hear_workers(self) -> None:
        with suppress(BlockingIOError):
            while True:
                octets, extra, _, _ = self._ear.recvmsg(1 << 16, socket.CMSG_SPACE(_CREDENTIALS.size))
                pid = _CREDENTIALS.unpack(extra[0][2])[0] if extra else 0
                worker = next((one for one in self._workers if pid and one.pid == pid), None)
                if worker is not None:
                    lines = octets.decode("utf-8", "replace").splitlines()
                    self._told_by(worker, dict(line.partition("=")[::2] for line in lines))

    def _told_by(self, worker: _Worker, words: dict[str, str]) -> None:
        if "READY" in words:
            worker.ready, worker.status = True, words.get("STATUS", "ready")
        if "WATCHDOG" in words:
            worker.pinged = True
            if all(one.pinged for one in self._workers if one.pid and not one.starting):
                notify.notify(
                    WATCHDOG="1"
                )  # one that cannot be started is our work, and a restart of all would not help
                for one in self._workers:
                    one.pinged = False

    def _tell_systemd(self) -> None:
        """How we are, when that has changed: not in the middle of a reload, nor while somebody starts."""
        alive = [worker for worker in self._workers if worker.pid]
        if self._round or not alive or not all(worker.ready for worker in alive):
            return
        count = len(self._workers)
        of = f"{count} workers" if len(alive) == count else f"{len(alive)} of {count} workers"
        status = f"{of}, {alive[0].status}"
        if status != self._told:
            self._told = status
            notify.ready(status)

    # ---- a worker begins and ends ------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # the child's must not ring our bell
        try:
            pid = os.fork()
            if pid == 0:
                self._become(worker, ours, theirs)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.setblocking(False)
        worker.pid, worker.line, worker.started, worker.due = pid, ours, time.monotonic(), inf
        worker.status = ""
        emit(_log, "worker_started", worker=worker.number, pid=pid)

    def _become(self, worker: _Worker, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        """In the new process: let go of all that is the parent's, and work."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the parent is asked, and asks all
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            others = [one for one in self._workers if one is not worker]
            self._pages.leave(worker.number)
            for end in (ours, self._bell, self._rung, *[one.line for one in others]):
                if end is not None:
                    end.close()
            with suppress(OSError):  # what top and pgrep show
                Path("/proc/self/comm").write_text(f"relay worker {worker.number}", "ascii")
            os.environ["NOTIFY_SOCKET"] = "@" + self._ear.getsockname()[1:].decode("ascii")
            self._ear.close()
            os.environ["WATCHDOG_PID"] = str(os.getpid() if self._watched else 0)
            code = self._work(Seat(worker.number, self._checked, self._listeners, self._pages, theirs))
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            sys.stderr.flush()
            os._exit(code)

    def _ended(self, worker: _Worker, code: int) -> None:
        pid, lived = worker.pid, time.monotonic() - worker.started
        if worker.line is not None:
            worker.line.close()
        worker.pid, worker.line, worker.ready, worker.pinged = 0, None, False, False
        if self._round:
            self._round.gone(worker.number)
        if self._stopping:
            return
        if not self._complete:
            self._failed, self._stopping = code if code >= 0 else 1, True
            if code < 0:  # else it has said why itself
                emit(_log, "worker_died", logging.ERROR, worker=worker.number, pid=pid, why=_why(code))
            return
        worker.deaths = 1 if lived > _LIVED else worker.deaths + 1
        self._put_off(worker, pid, _why(code), logging.ERROR if code else logging.WARNING)

    def _start_again(self, worker: _Worker) -> None:
        try:
            self._start(worker)
        except OSError as error:
            worker.deaths += 1
            self._put_off(worker, 0, f"the system gives it no process: {error.strerror}", logging.ERROR)

    def _put_off(self, worker: _Worker, pid: int, why: str, level: int) -> None:
        """It is started again, the later the more of its deaths came in a row. Another one sends the alert."""
        seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(worker.deaths - 1, 10))
        worker.due = time.monotonic() + seconds
        fields = {"worker": worker.number, "pid": pid, "why": why, "again_in": seconds}
        emit(_log, "worker_died", level, **fields)
        teller = next((one.line for one in self._workers if one.ready), None)
        if teller is not None and level == logging.ERROR:
            tell(teller, {"event": "worker_died", "fields": fields})

    # ---- new rules for all, or for nobody ----------------------------------------------------------------------

    def _begin_round(self) -> None:
        """Each reads the files and says whether it can go by them; nobody does before all can."""
        self._reload_asked = False
        notify.reloading()
        checked, now = self._check(), time.monotonic()
        alive = [worker for worker in self._workers if worker.pid]
        self._rounds += 1
        speaker = alive[0].number if alive else 0
        everybody = {one.number for one in alive}
        self._round = Round(self._rounds, now + _PATIENCE, checked, speaker, everybody, silent=not alive)
        for worker in alive:
            worker.ready = False  # until it says so again
            if worker.line is not None:
                tell(worker.line, {"round": self._rounds, "aloud": worker.number == speaker})

    def _hear_vote(self, worker: _Worker) -> None:
        said = hear(worker.line) if worker.line is not None else None
        if said is None and worker.line is not None:  # its end comes as a signal
            worker.line.close()
            worker.line = None
        elif said and self._round and said["round"] == self._round.number:
            self._round.vote(worker.number, said["refusal"], said["rules"])

    def _end_round(self, round_: Round) -> None:
        self._round, self._told = None, ""
        refusal, rules = round_.end(), round_.checked.rules
        if refusal is None:
            self._checked = replace(self._checked, rules=rules)  # relay.yaml is read at start only
        if round_.silent and refusal:
            emit(_log, "reload_refused", logging.ERROR, why=f"the old rules stay: {refusal}")
        elif round_.silent:
            emit(_log, "reloaded", routes=len(rules.routes) if rules else 0)
        for worker in self._workers:
            if worker.line is not None:
                tell(worker.line, {"round": round_.number, "answer": refusal})


def _signal(workers: Sequence[_Worker], number: int) -> None:
    for worker in workers:
        if worker.pid:
            os.kill(worker.pid, number)


def _noted(number: int, frame: object) -> None:
    """The bell has rung already."""


def _why(code: int) -> str:
    if code == 0:
        return "somebody stopped it"
    if code > 0:
        return f"it ended with exit code {code}; its own lines before this one say more"
    name = signal.Signals(-code).name
    more = "; `journalctl -k` says whether memory ran out" if -code == signal.SIGKILL else ""
    return f"it was killed by {name}{more}"
