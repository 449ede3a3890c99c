"""The running relay at one moment, as values that another thread may read: taken on the loop, in a millisecond.

Everything that needs the disk is left to the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from delivery.endpoint import Silence
from delivery.holds import HeldWay
from delivery.lanes import HeldNumbers
from delivery.plan import Plan
from ops.expiry import Expiry
from ops.reload import LastReload
from ops.status.facts import Facts
from ops.status.health import Report, State
from spool.contract import Backlog, Buffered
from spool.holding import Hold


@dataclass(frozen=True, slots=True)
class ClosedWay:
    """A way that delivery keeps mail from: when it is probed again, and why it is closed."""

    way: HeldWay
    why: HeldNumbers | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`backlog` is None when the spool did not tell; `in_flight` is by route, `unreachable` by upstream.
    Times are unix seconds. `expiries` reads files: it is for the page's thread.
    """

    now: float
    report: Report
    reload: LastReload
    started_at: float
    plan: Plan
    backlog: Mapping[str, Backlog] | None
    in_flight: Mapping[str, int]
    closed: tuple[ClosedWay, ...]
    silent: tuple[HeldWay, ...]
    paced: tuple[HeldWay, ...]
    holds: tuple[Hold, ...]
    unreachable: Mapping[str, Silence]
    buffered: Buffered | None
    expiries: Callable[[], tuple[Expiry, ...]]

    @property
    def ways(self) -> tuple[HeldWay, ...]:
        """All that keep mail here: on hold, without an answer, or with no room in their pace."""
        return tuple(one.way for one in self.closed) + self.silent + self.paced


def take(facts: Facts, state: State, backlog: Mapping[str, Backlog] | None) -> Snapshot:
    """On the loop."""
    lanes = facts.scheduler.routes()
    why = {(route, held.upstream): held for route, numbers in lanes.items() for held in numbers.held}
    return Snapshot(
        now=facts.clock(),
        report=state.report,
        reload=facts.reload,
        started_at=facts.started_at,
        plan=facts.plan(),
        backlog=backlog,
        in_flight=state.in_flight,
        closed=tuple(ClosedWay(way, why.get((way.route, way.upstream))) for way in facts.scheduler.held()),
        silent=facts.scheduler.silent(),
        paced=facts.scheduler.paced(),
        holds=facts.spool.held.all(),
        unreachable=facts.scheduler.unreachable(),
        buffered=facts.spool.buffered,
        expiries=facts.hands.expiries or (lambda: ()),
    )
