"""What delivery has counted since the start, of each upstream and customer; ops reads it, nobody else writes it.

A route's own numbers are in its lane. Must never cost a mail more than a few additions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from delivery.attempt import Errand
from delivery.lanes import Lane
from delivery.verdict import Verdict
from routing.counting import ByCustomer, Spread
from routing.mail import domain_of
from routing.outcome import Word
from spool.contract import Settled

TRIED: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds of one attempt that are told apart."""


@dataclass(slots=True)
class UpstreamNumbers:
    """One upstream: recipients by what came of them at each attempt, and how long attempts took."""

    outcomes: Counter[Word] = field(default_factory=Counter)
    took: Spread = field(default_factory=lambda: Spread(TRIED))


class Numbers:
    """All upstreams that were asked, and recipients (delivered, failed) by route and domain of the sender."""

    __slots__ = ("customers", "upstreams")

    def __init__(self) -> None:
        self.upstreams: dict[str, UpstreamNumbers] = {}
        self.customers = ByCustomer(2)

    def count(self, lane: Lane, errand: Errand, verdict: Verdict, now: float) -> None:
        """A mail was attempted, and this came of it."""
        mail = errand.mail
        delivered = sum([ended is Settled.DELIVERED for ended in verdict.done.values()])
        failed = len(verdict.done) - delivered
        if delivered:
            lane.took.add(max(0.0, now - mail.received_at), delivered)
        lane.delivered += delivered
        lane.failed += failed
        if verdict.counted:
            lane.deferred += len(mail.recipients) - len(verdict.done)
        if verdict.done:
            self.customers.add(lane.name, domain_of(mail.sender), (delivered, failed))
        for attempt in errand.attempts:
            upstream = self.upstreams.get(attempt.upstream)
            if upstream is None:
                upstream = self.upstreams[attempt.upstream] = UpstreamNumbers()
            upstream.took.add(attempt.seconds)
            for outcome in attempt.results.values():
                upstream.outcomes[outcome.word] += 1
