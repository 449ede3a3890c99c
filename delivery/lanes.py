"""A lane per route: the mail taken for it, its ways out and its numbers.

An idle lane is an entry in a dictionary: no task, no timer. State only; the scheduler moves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from config.rules import Route
from delivery.accounts import Meters
from delivery.canary import Choosing, choosing
from delivery.choice import Standing, next_upstream
from delivery.clock import Timer
from delivery.endpoint import Endpoint
from delivery.shares import Share
from delivery.ways import Gate, Way
from routing.counting import Spread
from routing.outcome import Hint
from spool.contract import Leased
from upstreams.base import Upstream

BATCH: Final = 16
"""Most mails taken from the spool at once for a lane."""

TOOK: Final = (1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Seconds from the 250 to the delivery that are told apart."""


@dataclass(frozen=True, slots=True)
class HeldNumbers:
    """A way on hold: by which upstream, since when (unix seconds), the upstream's reply and what to do."""

    upstream: str
    since: float
    reply: str
    hint: Hint | None


@dataclass(frozen=True, slots=True)
class RouteNumbers:
    """One route since the start: mails `in_flight` now; recipients `delivered`, `deferred` (each time) and `failed`
    (refused or expired); its ways on hold; how long those `delivered` took, from their 250 to the upstream's.
    """

    in_flight: int
    delivered: int
    deferred: int
    failed: int
    held: tuple[HeldNumbers, ...]
    took: Spread


class Lane:
    """What the scheduler keeps of one route. `route` is None when the rules do not have it any more.

    `more` says that the spool may have mail that is due, `leasing` that we are asking, `queued` that the lane stands in
    the ring of a gate, `rang` that its timer went off and the next due time must be asked for. `pause` is set while its
    pace makes it wait; it keeps one mail at hand then. `share` is its part of a limit that relays keep together. `ways`
    are all of the route, a canary last; which of them its next mail may use, and in which order, says `in_line`.
    """

    __slots__ = (
        "buffer",
        "choosing",
        "deferred",
        "delivered",
        "failed",
        "in_flight",
        "largest",
        "leasing",
        "limit",
        "more",
        "name",
        "pause",
        "queued",
        "rang",
        "route",
        "share",
        "timer",
        "timer_at",
        "took",
        "ways",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.route: Route | None = None
        self.ways: tuple[Way, ...] = ()
        self.choosing: Choosing | None = None
        self.limit = 1
        self.share: Share | None = None
        self.buffer: deque[Leased] = deque()
        self.in_flight = 0
        self.leasing = self.more = self.queued = self.rang = False
        self.timer: Timer | None = None
        self.pause: Timer | None = None
        self.timer_at = 0.0
        self.largest = 0
        self.delivered = self.deferred = self.failed = 0
        self.took = Spread(TOOK)

    def follow(self, route: Route | None, gates: Mapping[str, Gate], meters: Meters) -> bool:
        """Go by new rules. Ways that did not change keep what is known of them. True when anything changed."""
        same = route is not None and self.route is not None and route.settings == self.route.settings
        old = {id(way.gate): way for way in self.ways} if same else {}
        canary = route.settings.canary if route else None
        names = dict.fromkeys(route.settings.upstreams) if route else ()
        spill_after = route.settings.spill_after if route else None
        meter = meters.routes.get(self.name)
        redirected = route is not None and route.settings.redirect is not None
        ways = tuple(
            old.get(id(gates[name]))
            or Way(
                self.name,
                gates[name],
                meter,
                spill_after,
                redirected=redirected,
                trial=canary is not None and name == canary.via,
            )
            for name in names
        )
        changed = ways != self.ways or not same
        self.route, self.ways = route, ways
        self.choosing = choosing(canary) if canary else None
        pace = route.settings.pace if route else None
        width = max((way.gate.limit for way in ways), default=1)
        self.limit = min(width, pace.concurrency) if pace and pace.concurrency else width
        return changed

    def first(self, now: float, fallback_after: float) -> Way | None:
        """The way that its next mail takes now; None while all are on hold."""
        ways = self.in_line(now)
        if len(ways) == 1:
            return None if ways[0].closed else ways[0]
        standing = standings(ways, now, self.recipients)
        name = next_upstream([way.name for way in ways], standing, {}, now, fallback_after)
        return next((way for way in ways if way.name == name), None)

    def in_line(self, now: float) -> tuple[Way, ...]:
        """The ways that its next mail may use, the first to be asked first.

        A canary leads them when the mail is for it and can start at once; otherwise it has no part in it, so that
        nothing that is wrong with it, and no queue at it, keeps mail waiting.
        """
        if self.choosing is None:
            return self.ways
        canary, ring = self.ways[-1], self.ways[-1].gate.ring
        if not self.buffer or (ring and ring[0] is not self):
            return self.via
        mail = self.buffer[0]
        taken = self.choosing.takes(mail.id, [pending.address for pending in mail.recipients])
        return (canary, *self.via) if taken and canary.ready(self.recipients, now) else self.via

    @property
    def full(self) -> bool:
        """Whether as many of its mails are under way as may be."""
        return self.in_flight >= self.limit or (self.share is not None and not self.share.lets())

    @property
    def via(self) -> tuple[Way, ...]:
        """Its ways but for a canary."""
        return self.ways[:-1] if self.choosing else self.ways

    @property
    def spills(self) -> bool:
        """Whether its mail may take another way than wait for its pace."""
        return any(way.spill_after is not None for way in self.ways)

    @property
    def recipients(self) -> int:
        """How many the next mail is for."""
        return len(self.buffer[0].recipients) if self.buffer else 1

    def keep(self, mails: list[Leased]) -> None:
        """Mails that were leased. `largest` forgets slowly, so that after a big mail the batches stay small a while."""
        self.buffer.extend(mails)
        if mails:
            self.largest = max(self.largest // 2, *[len(mail.content) for mail in mails])

    def wanted(self, room: int) -> int:
        """How many mails to lease now, when `room` octets more may be in memory. An idle lane always gets one."""
        ahead = min(self.limit, BATCH)
        if len(self.buffer) > ahead // 2 or self.pause is not None:
            return 0
        if not self.largest:
            return 1  # nothing is known of its sizes yet
        fits = max(room // self.largest, 0)
        return min(ahead - len(self.buffer), fits) or int(not self.buffer and not self.in_flight)

    def numbers(self) -> RouteNumbers:
        held = [(way.name, way.held) for way in self.ways]
        notes = [HeldNumbers(name, hold.since, hold.outcome.reply, hold.outcome.hint) for name, hold in held if hold]
        return RouteNumbers(self.in_flight, self.delivered, self.deferred, self.failed, tuple(notes), self.took)


def standings(ways: tuple[Way, ...], now: float, recipients: int = 1) -> dict[str, Standing]:
    return {way.name: way.standing(now, recipients) for way in ways}


def gates_for(upstreams: Mapping[str, Upstream], old: Mapping[str, Gate], meters: Meters) -> dict[str, Gate]:
    """A gate for every upstream; those of upstreams that are used on stay, with who is inside and who waits."""
    endpoints = {gate.endpoint.name: gate.endpoint for gate in old.values() if gate.endpoint.name}
    gates: dict[str, Gate] = {}
    for name, upstream in upstreams.items():
        known, place = old.get(name), upstream.connects_to
        if known is not None and known.upstream is upstream:
            gates[name] = known
        else:
            gates[name] = Gate(upstream, endpoints.setdefault(place, Endpoint(place)) if place else None)
        gates[name].meter = meters.upstreams.get(name)
    return gates
