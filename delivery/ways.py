"""What is known of the ways out: a gate per upstream, a way per route and upstream.

Only state and what a send teaches; no timers and no sending. One customer's trouble must never close a gate to another:
a hold belongs to a way.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from delivery.accounts import Fare
from delivery.blocked import Streak
from delivery.choice import Standing, unreached
from delivery.endpoint import Endpoint
from delivery.pace import Meter, Turn
from delivery.shares import Share
from routing.outcome import Outcome, Results, Stage, Word
from upstreams.base import Upstream

if TYPE_CHECKING:
    from delivery.lanes import Lane

_BEHIND_LOGIN: Final = frozenset((Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT, Stage.REQUEST))
_ANSWERED: Final = _BEHIND_LOGIN | {Stage.LOGIN}

LONGEST_REST: Final = 3600.0
"""Seconds that other mail waits for an upstream that stated a longer time: then it is asked whether that is true."""


class Gate:
    """The door of one upstream: how many sends are under way, who waits, and the `endpoint` behind it.

    `ring` holds the lanes with mail for this upstream: each takes one mail in turn. `waiting` holds mails that have
    been elsewhere before (`via: [a, b]`); they go first. `meter` counts for its account, if that has a limit. `share`
    is this relay's part of `limit`, where several relays keep it together. `serving` is True while its ring is gone
    through. Until `rests_until` (unix seconds) the upstream wants no mail of ours: it said so, with a time.
    """

    __slots__ = ("busy", "endpoint", "limit", "meter", "rests_until", "ring", "serving", "share", "upstream", "waiting")

    def __init__(self, upstream: Upstream, endpoint: Endpoint | None = None) -> None:
        self.upstream = upstream
        self.endpoint = endpoint or Endpoint()
        self.endpoint.gates.append(self)
        self.meter: Meter | None = None
        self.share: Share | None = None
        self.limit = max(1, upstream.concurrency)
        self.busy = 0
        self.rests_until = 0.0
        self.serving = False
        self.ring: deque[Lane] = deque()
        self.waiting: deque[Entry] = deque()

    @property
    def name(self) -> str:
        return self.upstream.name

    @property
    def free(self) -> bool:
        """True when one more send may start; while nobody answers, one at a time: another customer's may take long."""
        if self.busy >= self.limit or self.endpoint.asking or (self.endpoint.since is not None and self.busy):
            return False
        return self.share is None or self.share.lets()

    def serve_waiting(self, now: float) -> None:
        """Let those in who may enter now, and tell those who never can, or not by their pace."""
        for entry in tuple(self.waiting):
            if entry.entered.done():
                self.waiting.remove(entry)
            elif entry.way.closed or entry.way.free:
                self.waiting.remove(entry)
                late = entry.way.closed or entry.way.turn(entry.recipients, now).at > now
                entry.entered.set_result(None if late else entry.way.take(entry.recipients, now))


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A mail that waits to go through a gate, to so many recipients."""

    way: Way
    recipients: int
    entered: Future[Fare | None]


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
    the mail does not cannot open and close the way every minute. `gone`: a reload or the stop took it away. `meter`
    counts for the route, if that has a limit; after `spill_after` seconds of waiting for the pace it counts as full.
    `proof` is what relays that share the spool need for a mail by a way that is not proven: one of them at a time.
    A way on `trial` is a canary: mail never waits for it. `endpoint` is the gate's, or its own where the host hangs on
    the sender.
    """

    __slots__ = (
        "_closing",
        "_delivered",
        "_proving",
        "_suspects",
        "busy",
        "endpoint",
        "failures",
        "gate",
        "gone",
        "held",
        "meter",
        "proof",
        "proven",
        "redirected",
        "released_at",
        "route",
        "spill_after",
        "streak",
        "trial",
    )

    def __init__(
        self,
        route: str,
        gate: Gate,
        meter: Meter | None = None,
        spill_after: float | None = None,
        *,
        redirected: bool = False,
        trial: bool = False,
    ) -> None:
        self.route = route
        self.gate = gate
        self.endpoint = gate.endpoint if gate.upstream.connects_to is not None else Endpoint(breaks=False)
        self.meter = meter
        self.spill_after = 0.0 if trial else spill_after
        self.trial = trial
        self.redirected = redirected
        self.busy = 0
        self.gone = False
        self.proven = False
        self.proof: Share | None = None
        self._proving = self._closing = False
        self.held: Hold | None = None
        self.failures = 0
        self.released_at = 0.0
        self.streak = Streak()
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
        """True when one more send may start now, as far as it is not the pace that says when."""
        return self.gate.free and self.open_to_try

    @property
    def open_to_try(self) -> bool:
        """True when it is proven, or this may be the one mail that shows whether it works."""
        return self.proven or (not self.busy and (self.proof is None or self.proof.lets()))

    @property
    def widest(self) -> int:
        """Most recipients of one send, for the upstream and for the pace; a redirected mail has one."""
        if self.redirected:
            return 1
        if self.meter is None and self.gate.meter is None:
            return self.gate.upstream.recipients_limit
        limits = [meter.largest for meter in self.meters()]
        return min([self.gate.upstream.recipients_limit, *[limit for limit in limits if limit is not None]])

    def standing(self, now: float, recipients: int = 1) -> Standing:
        """How it stands for a mail to so many recipients."""
        full = self.spill_after is not None and self.turn(recipients, now).at - now > self.spill_after
        return Standing(self.held is not None, self.endpoint.since, self.gone, full, self.trial)

    def ready(self, recipients: int, now: float) -> bool:
        """True when a mail to so many recipients can start by it at once, as far as no other lane is before it."""
        return not self.closed and self.free and not self.standing(now, recipients).avoided(now, 0.0)

    def turn(self, recipients: int, now: float) -> Turn:
        """When its pace and what the upstream asked for let a mail to so many recipients, or a part of it, start."""
        rested = Turn(max(now, self.gate.rests_until))
        if self.meter is None and self.gate.meter is None:
            return rested
        turns = [meter.turn(self.route, min(recipients, self.widest), now) for meter in self.meters()]
        return max([*turns, rested], key=lambda turn: turn.at)

    def take(self, recipients: int, now: float) -> Fare:
        """Go through the gate with a mail to so many. The caller gives back both, the fare and the way (`leave`)."""
        self.busy += 1
        self.gate.busy += 1
        if self.gate.share is not None:
            self.gate.share.begin()
        if self.proof is not None and not self.proven:
            self._proving = True
            self.proof.begin()
        return self.fare(recipients, now)

    def fare(self, recipients: int, now: float) -> Fare:
        """Begin one send, of a whole mail or its first part."""
        meters = self.meters()
        return Fare(meters, self.route, min(recipients, self.widest) if meters else recipients, now)

    def leave(self) -> None:
        self.busy -= 1
        self.gate.busy -= 1
        if self.gate.share is not None:
            self.gate.share.end()
        if self._proving and self.proof is not None:
            self._proving = False
            self.proof.end()
            if not self._closing:
                self.proof.release()

    def proved(self) -> None:
        """All relays know what the last mail showed: another may try it."""
        self._closing = False
        if self.proof is not None:
            self.proof.release()

    async def enter(self, recipients: int, now: float) -> Fare | None:
        """Wait for a turn and take it. None when the way closed meanwhile, or its pace has no room."""
        entered: Future[Fare | None] = get_running_loop().create_future()
        self.gate.waiting.append(Entry(self, recipients, entered))
        self.gate.serve_waiting(now)
        try:
            return await entered
        except BaseException:
            fare = entered.result() if entered.done() and not entered.cancelled() else None
            if fare is not None:
                fare.end(now, counted=False)
                self.leave()
            raise

    def meters(self) -> tuple[Meter, ...]:
        """Those that count its mail."""
        if self.meter is None and self.gate.meter is None:
            return ()
        return tuple([meter for meter in (self.meter, self.gate.meter) if meter is not None])

    def learn(self, mail: int, results: Results, now: float, holds: bool) -> Outcome | None:
        """Take in what a send showed. Returns what is news: the `config` that put the way on hold, or the `wait` that a
        rest of the upstream begins with.

        With `holds` False (a report of ours that this customer's upstream does not like) `config` closes nothing.
        A mail that put the way on hold before, while others have been delivered since, has a fault of its own: it
        backs off alone.
        """
        trouble = rest = None
        away = next((outcome for outcome in results.values() if unreached(outcome)), None)
        if away is not None:
            self.endpoint.unanswered(away, now)
        for outcome in results.values():
            self._learn_one(mail, outcome)
            if outcome.word is Word.CONFIG:
                trouble = outcome
            elif outcome.word is Word.WAIT:
                rest = outcome if self._rest(outcome.wait or 0.0, now) else rest
        if trouble is None or not holds:
            return rest
        own_fault = mail in self._suspects and self._delivered
        self._suspects.add(mail)
        if own_fault or self.held is not None:
            return rest
        self.held, self.proven, self._delivered = Hold(trouble, now), False, False
        self._closing = self.proof is not None
        self.failures += 1
        return trouble

    def _rest(self, seconds: float, now: float) -> bool:
        """Keep all mail from an upstream that asked us to wait: what is said to it before that time counts against us
        (RFC 9110 10.2.3). True when its rest begins now, and does not only grow longer.
        """
        before, until = self.gate.rests_until, now + min(seconds, LONGEST_REST)
        self.gate.rests_until = max(before, until)
        return before <= now < until

    def release(self, now: float) -> None:
        """Open again, for one mail at a time. No mail has waited for one on trial: its expiry ran."""
        self.held, self.proven = None, False
        self.released_at = 0.0 if self.trial else now

    def _learn_one(self, mail: int, outcome: Outcome) -> None:
        sent = outcome.word is Word.SENT
        if sent or outcome.stage in _ANSWERED:
            self.endpoint.answered()
        elif unreached(outcome):
            self.proven = False
        if self.held is not None:
            return  # a send that had begun before the hold says nothing about what comes after it
        if sent:
            self.failures, self._delivered = 0, True
            self._suspects.discard(mail)
        if sent or (outcome.word is not Word.CONFIG and outcome.stage in _BEHIND_LOGIN):
            self.proven = True
