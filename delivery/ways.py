"""What is known of the ways out: a gate per upstream, a way per route and upstream.

Only state and what a send teaches; no timers and no sending. One customer's trouble must never close a gate to another:
a hold belongs to a way.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from delivery.choice import Standing, unreached
from routing.outcome import Outcome, Results, Stage, Word
from upstreams.base import Upstream

if TYPE_CHECKING:
    from delivery.lanes import Lane

_BEHIND_LOGIN: Final = frozenset((Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT, Stage.REQUEST))
_ANSWERED: Final = _BEHIND_LOGIN | {Stage.LOGIN}


class Gate:
    """The door of one upstream: how many sends are under way, who waits, and since when nobody answers behind it.

    `ring` holds the lanes with mail for this upstream: each takes one mail in turn. `waiting` holds mails that have
    been elsewhere before (`via: [a, b]`); they go first.
    """

    __slots__ = ("busy", "limit", "ring", "unreachable_since", "upstream", "waiting")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.limit = max(1, upstream.concurrency)
        self.busy = 0
        self.ring: deque[Lane] = deque()
        self.waiting: deque[tuple[Way, Future[bool]]] = deque()
        self.unreachable_since: float | None = None

    @property
    def name(self) -> str:
        return self.upstream.name

    def serve_waiting(self) -> None:
        """Let those in who may enter now, and tell those who never can."""
        for entry in tuple(self.waiting):
            way, entered = entry
            if entered.done() or way.closed or way.free:
                self.waiting.remove(entry)
                if not entered.done():
                    if not way.closed:
                        way.take()
                    entered.set_result(not way.closed)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a way is closed, and since when (unix seconds)."""

    outcome: Outcome
    since: float


class Way:
    """One route's way out by one upstream.

    A way is `proven` once the upstream took more than a login from us. Until then, and again after a failed connect or
    a hold, it carries one mail at a time: one wrong password is one failed login, and a dead host is not asked by
    every mail that waits.

    `failures` counts holds and failed probes in a row since a mail was delivered, so that a probe that succeeds while
    the mail does not cannot open and close the way every minute. `gone`: a reload or the stop took it away.
    """

    __slots__ = (
        "_delivered",
        "_suspects",
        "busy",
        "failures",
        "gate",
        "gone",
        "held",
        "proven",
        "released_at",
        "route",
    )

    def __init__(self, route: str, gate: Gate) -> None:
        self.route = route
        self.gate = gate
        self.busy = 0
        self.gone = False
        self.proven = False
        self.held: Hold | None = None
        self.failures = 0
        self.released_at = 0.0
        self._suspects: set[int] = set()
        self._delivered = False

    @property
    def name(self) -> str:
        return self.gate.upstream.name

    @property
    def closed(self) -> bool:
        """True when no mail may use it: on hold, or taken away by a reload."""
        return self.held is not None or self.gone

    @property
    def free(self) -> bool:
        """True when one more send may start now."""
        return self.gate.busy < self.gate.limit and (self.proven or not self.busy)

    def standing(self) -> Standing:
        return Standing(self.held is not None, self.gate.unreachable_since, self.gone)

    def take(self) -> None:
        self.busy += 1
        self.gate.busy += 1

    def leave(self) -> None:
        self.busy -= 1
        self.gate.busy -= 1

    async def enter(self) -> bool:
        """Wait for a turn and take it. False when the way closed meanwhile."""
        entered: Future[bool] = get_running_loop().create_future()
        self.gate.waiting.append((self, entered))
        self.gate.serve_waiting()
        try:
            return await entered
        except BaseException:
            if entered.done() and not entered.cancelled() and entered.result():
                self.leave()
            raise

    def learn(self, mail: int, results: Results, now: float, holds: bool) -> bool:
        """Take in what a send showed. True when it put the way on hold.

        With `holds` False (a report of ours that this customer's upstream does not like) `config` closes nothing.
        A mail that put the way on hold before, while others have been delivered since, has a fault of its own: it
        backs off alone.
        """
        trouble = None
        for outcome in results.values():
            self._learn_one(mail, outcome, now)
            if outcome.word is Word.CONFIG:
                trouble = outcome
        if trouble is None or not holds:
            return False
        own_fault = mail in self._suspects and self._delivered
        self._suspects.add(mail)
        if own_fault or self.held is not None:
            return False
        self.held, self.proven, self._delivered = Hold(trouble, now), False, False
        self.failures += 1
        return True

    def release(self, now: float) -> None:
        """Open again, for one mail at a time."""
        self.held, self.released_at, self.proven = None, now, False

    def _learn_one(self, mail: int, outcome: Outcome, now: float) -> None:
        sent = outcome.word is Word.SENT
        if sent or outcome.stage in _ANSWERED:
            self.gate.unreachable_since = None
        elif unreached(outcome):
            self.proven = False
            if self.gate.unreachable_since is None:
                self.gate.unreachable_since = now
        if self.held is not None:
            return  # a send that had begun before the hold says nothing about what comes after it
        if sent:
            self.failures, self._delivered = 0, True
            self._suspects.discard(mail)
        if sent or (outcome.word is not Word.CONFIG and outcome.stage in _BEHIND_LOGIN):
            self.proven = True
