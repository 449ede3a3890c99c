"""What an attempt comes to: which recipients are finished, which come back and when. Pure.

Must never finish a recipient that has no final outcome, nor lose one that failed without a report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from random import Random

from config.relay_settings import Delivery
from config.rules import RouteSettings
from delivery.backoff import PROBE_WAITS, next_try, retry_wait
from routing.mail import NULL_SENDER
from routing.outcome import Outcome, Word
from spool.contract import Leased, Pending, Settled


@dataclass(frozen=True, slots=True)
class Final:
    """How an attempt ended for a recipient. `held` is True when its way is on hold now: the route's fault, not its
    own.
    """

    upstream: str
    outcome: Outcome
    held: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A recipient that is given up, for the report. `doubtful`: the mail may have arrived all the same."""

    address: str
    outcome: Outcome
    how: Settled
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The parts of a settlement. `due_at` is None exactly when nobody is left."""

    done: Mapping[str, Settled]
    failures: tuple[Failure, ...]
    doubted: frozenset[str]
    due_at: float | None
    counted: bool

    def unreported(self, retry_at: float) -> Verdict:
        """The same while the report of the failures cannot be kept: those recipients come back."""
        failed = {failure.address for failure in self.failures}
        done = {address: how for address, how in self.done.items() if address not in failed}
        return replace(self, done=done, failures=(), due_at=max(self.due_at or 0.0, retry_at), counted=True)


def judge(
    mail: Leased,
    finals: Mapping[str, Final],
    route: RouteSettings,
    delivery: Delivery,
    *,
    now: float,
    alive_since: float,
    random: Random,
    warn_at: float = inf,
) -> Verdict:
    """The verdict on an attempt at `mail`. Recipients without an entry in `finals` were not tried: they come back.

    `alive_since` is when the expiry began to run: the mail's arrival, or the end of the route's last hold. `warn_at` is
    when the sender is to hear of the delay: it is tried then too, so that nobody is told what is not so any more.

    The mail comes back once, for all that are left, when the last of them may: never before a stated time is over.
    With nobody left but the held it waits for the release, which makes it due, behind the mail that was not tried yet:
    so another mail shows first whether the way or this mail is at fault.
    """
    expires_at = alive_since + delivery.expire
    last_at = warn_at if now < warn_at < expires_at else expires_at
    own = 0.0
    done: dict[str, Settled] = {}
    failures: list[Failure] = []
    doubted: list[str] = []
    due: list[float] = []
    untried: list[float] = []
    for pending in mail.recipients:
        address, final = pending.address, finals.get(pending.address)
        if final is None or final.held:
            untried.append(mail.received_at if final is None else now + PROBE_WAITS[-1])
            continue
        ended = _end(pending, final.outcome, mail.sender, route, now >= expires_at)
        if ended is not None:
            done[address] = ended
            if ended is not Settled.DELIVERED:
                doubtful = pending.doubts > 0 or final.outcome.word is Word.UNKNOWN
                failures.append(Failure(address, final.outcome, ended, doubtful))
            continue
        if final.outcome.word is Word.UNKNOWN:
            doubted.append(address)
        own = own or retry_wait(mail.attempts, delivery.retry, random)
        due.append(next_try(now, own, final.outcome.wait, last_at))
    counted = any(not final.held for final in finals.values())
    return Verdict(done, tuple(failures), frozenset(doubted), max(due or untried, default=None), counted)


def _end(pending: Pending, outcome: Outcome, sender: str, route: RouteSettings, expired: bool) -> Settled | None:
    """How a recipient is finished by this outcome, or None when it is tried again.

    A doubt that is not tried again counts as failed, with a report that says so: nothing is lost in silence, nothing
    unconfirmed is counted as delivered, and the sender, who may ask the recipient, decides whether to send again.
    """
    match outcome.word:
        case Word.SENT:
            return Settled.DELIVERED
        case Word.REJECT:
            return Settled.FAILED
        case Word.UNKNOWN if route.unknown == "stop" or (route.unknown == "retry_once" and pending.doubts):
            return Settled.FAILED
        case Word.CONFIG if sender == NULL_SENDER and not outcome.whoever_sends:
            return Settled.FAILED  # this way takes no report; waiting for another is of no use to anybody
    return Settled.EXPIRED if expired else None
