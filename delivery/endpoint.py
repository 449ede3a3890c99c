"""Whether anybody answers where upstreams connect to: what one of them finds out, all with the same endpoint know.

Connects only: a login that is refused, and a hold, are one customer's own trouble and must never come in here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from routing.outcome import Outcome

if TYPE_CHECKING:
    from delivery.ways import Gate

BROKEN_AFTER: Final = 3
"""Failed connects in a row after which an endpoint is asked by probes alone, until somebody answers."""
FRESH: Final = 900.0
"""Seconds for which an answer stands for all mail; probes come every five minutes. It is older only when the machine
slept or its clock was set forward: then mail may have grown too old, and must be tried before it is given up.
"""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nobody answers: `since` is in unix seconds, `outcome` what came of the last try."""

    since: float
    outcome: Outcome | None


class Endpoint:
    """A host and port, in the words of `Upstream.connects_to`. `since` is when the first connect failed (unix seconds),
    `trouble` the last outcome of that sort; both are None while somebody answers.

    `gates` are those that lead there, the one to probe by next first. `breaks` is False where the host hangs on the
    mail's sender, so that no probe could ask for all. While `asking`, mail waits for a probe that is under way.
    """

    __slots__ = ("_asked_at", "_failures", "asking", "breaks", "gates", "name", "since", "trouble")

    def __init__(self, name: str = "", *, breaks: bool = True) -> None:
        self.name = name
        self.breaks = breaks
        self.gates: deque[Gate] = deque()
        self.since: float | None = None
        self.trouble: Outcome | None = None
        self.asking = False
        self._failures = 0
        self._asked_at = 0.0

    @property
    def broken(self) -> bool:
        """True when mail is not tried: what would come of it is `known`."""
        return self.breaks and self._failures >= BROKEN_AFTER

    @property
    def silence(self) -> Silence | None:
        """None while somebody answers."""
        return None if self.since is None else Silence(self.since, self.trouble)

    def answered(self) -> None:
        """Somebody is there."""
        self.since, self.trouble, self._failures = None, None, 0

    def unanswered(self, outcome: Outcome, now: float) -> None:
        """A connect failed."""
        self.trouble = outcome
        self._failures += 1
        self._asked_at = now
        if self.since is None:
            self.since = now

    def broke(self, outcome: Outcome, now: float) -> None:
        """A connect failed as those of others did before: that is enough."""
        self.unanswered(outcome, now)
        self._failures = max(self._failures, BROKEN_AFTER)

    def still_unanswered(self, now: float) -> None:
        """A probe of it failed too."""
        self._asked_at = now

    def known(self, now: float) -> Outcome | None:
        """What would come of a mail tried now, when that is known."""
        return self.trouble if self.broken and now - self._asked_at < FRESH else None

    def set_back(self, seconds: float) -> None:
        """The clock was set back: nobody has answered for as long as before."""
        self._asked_at -= seconds
        if self.since is not None:
            self.since -= seconds

    def next_to_probe(self) -> Gate | None:
        """The gates take turns, so that what is wrong with one customer's account keeps nobody waiting."""
        if not self.gates:
            return None
        self.gates.rotate(-1)
        return self.gates[-1]
