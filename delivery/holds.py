"""Ways on hold and upstreams that mail goes round: who is probed when, and what happens when one is ready again.

Must never open a way on its own guess: a probe that succeeded, new rules or ops do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from delivery.backoff import PROBE_WAITS
from delivery.clock import Clock
from delivery.probes import Prober, Watch
from delivery.story import tell_held, tell_reached, tell_released, tell_unreachable
from delivery.ways import Gate, Way
from spool.contract import Leased


@dataclass(frozen=True, slots=True)
class HeldWay:
    """A way that delivery put on hold: since when and why, and when it is probed again (unix seconds)."""

    route: str
    upstream: str
    since: float
    reply: str
    hint: str | None
    next_probe: float


class Holds:
    """All holds of a scheduler. `released(way)` is called when mail may use a way again, `reached(gate)` when an
    upstream that could not be reached answers again. `reach_waits` are the seconds between the probes of
    one that cannot: a connect locks no account, so they need not grow long.
    """

    def __init__(
        self,
        clock: Clock,
        reach_waits: Sequence[float],
        released: Callable[[Way], None],
        reached: Callable[[Gate], None],
    ) -> None:
        self._clock = clock
        self._reach_waits = reach_waits
        self._released = released
        self._when_reached = reached
        self._probers: dict[Gate, Prober] = {}
        self._watches: dict[Way | Gate, Watch] = {}

    def hold(self, way: Way, mail: Leased) -> None:
        """Probe a way that has just closed until it is ready. Says so once, with the reply."""
        if way.held is None:
            return
        ready = partial(self.release, way, "a probe succeeded")
        names = {"route": way.route, "upstream": way.name}
        watch = Watch(self._prober(way.gate), self._clock, ready, way.failures - 1, PROBE_WAITS, **names)
        self._watches[way] = watch
        tell_held(way, mail, watch.start(way.held.outcome.wait) - self._clock.now())

    def release(self, way: Way, why: str) -> None:
        """Open a way on hold, for one mail at a time until one is delivered."""
        watch = self._watches.pop(way, None)
        if way.held is None:
            return
        if watch is not None:
            watch.stop()
            way.failures = watch.failures + 1
        now = self._clock.now()
        tell_released(way, way.held.since, now, why)
        way.release(now)
        self._released(way)

    def all(self) -> tuple[HeldWay, ...]:
        """Every way on hold, the first that closed first."""
        ways = [(way.held, way, watch) for way, watch in self._watches.items() if isinstance(way, Way) and way.held]
        found = [
            HeldWay(way.route, way.name, held.since, held.outcome.reply, _text(held.outcome.hint), watch.next_at)
            for held, way, watch in ways
        ]
        return tuple(sorted(found, key=lambda way: way.since))

    def go_round(self, gate: Gate) -> None:
        """Probe an upstream that mail goes round, or is not tried at, because it cannot be reached."""
        if gate not in self._watches:
            ready = partial(self._reached, gate)
            watch = Watch(self._prober(gate), self._clock, ready, 0, self._reach_waits, upstream=gate.name)
            self._watches[gate] = watch
            tell_unreachable(gate, watch.start() - self._clock.now())

    def forget(self, subject: Way | Gate) -> None:
        """No more probes for it."""
        watch = self._watches.pop(subject, None)
        if watch is not None:
            watch.stop()

    async def forget_gate(self, gate: Gate) -> None:
        """No more probes of the upstream; when this returns none is under way."""
        for subject in [one for one in self._watches if one is gate or (isinstance(one, Way) and one.gate is gate)]:
            self.forget(subject)
        prober = self._probers.pop(gate, None)
        if prober is not None:
            await prober.close()

    def _reached(self, gate: Gate) -> None:
        self._watches.pop(gate, None)
        tell_reached(gate, self._clock.now())
        gate.answered()
        self._when_reached(gate)

    def _prober(self, gate: Gate) -> Prober:
        return self._probers.setdefault(gate, Prober(gate.upstream, self._clock))


def _text(hint: object) -> str | None:
    return None if hint is None else str(hint)
