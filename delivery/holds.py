"""Ways on hold and upstreams that mail goes round: who is probed when, and what happens when one is ready again.

Must never open a way on its own guess: a probe that succeeded, new rules or ops do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from delivery.backoff import PROBE_WAITS
from delivery.choice import unreached
from delivery.clock import Clock
from delivery.endpoint import Endpoint
from delivery.probes import Prober, Watch, is_reached, is_ready
from delivery.story import tell_held, tell_reached, tell_released, tell_unreachable
from delivery.ways import Gate, Way
from routing.outcome import Outcome
from spool.cluster import Closed
from spool.contract import Leased

if TYPE_CHECKING:
    from delivery.together import Together


@dataclass(frozen=True, slots=True)
class HeldWay:
    """A way that delivery put on hold: since when and why, and when it is probed again (unix seconds). `only` is the
    one relay of several that it is closed for. `silent`: no hold, but nobody answers there, so that mail is not tried.
    `paced`: no hold either, but its pace has no room before `next_probe`; its next mail came at `since`, and `at_hand`
    are those (ids) that the spool takes for under way.
    """

    route: str
    upstream: str
    since: float
    reply: str
    hint: str | None
    next_probe: float
    only: str = ""
    silent: bool = False
    paced: bool = False
    at_hand: tuple[int, ...] = ()

    @property
    def on_hold(self) -> bool:
        """Whether it is one of the holds that delivery makes, and not a wait."""
        return not (self.silent or self.paced)


def held_way(closed: Closed) -> HeldWay:
    """A way on hold as relays on one spool know it."""
    key, outcome = closed.key, closed.outcome
    only = closed.found_by if closed.alone else ""
    return HeldWay(key.route, key.upstream, closed.since, outcome.reply, _text(outcome.hint), closed.next_probe, only)


class Holds:
    """All holds of a scheduler. `released(way)` is called when mail may use a way again, `reached(endpoint)` when
    somebody answers again where nobody did. `reach_waits` are the seconds between the probes of such an endpoint, one
    probe for all upstreams there: a connect locks no account, so they need not grow long. `together` is told what
    relays that share the spool should know, and decides which of them probes.
    """

    together: Together | None = None

    def __init__(
        self,
        clock: Clock,
        reach_waits: Sequence[float],
        released: Callable[[Way], None],
        reached: Callable[[Endpoint], None],
    ) -> None:
        self._clock = clock
        self._reach_waits = reach_waits
        self._released = released
        self._when_reached = reached
        self._probers: dict[Gate, Prober] = {}
        self._watches: dict[Way | Endpoint, Watch] = {}
        self._probed_elsewhere: dict[Way, float] = {}
        """Ways on hold that another relay probes, and when it does."""

    def hold(self, way: Way, mail: Leased) -> None:
        """Probe a way that has just closed until it is ready. Says so once, with the reply."""
        if way.held is None:
            return
        watch = self._watch(way, way.failures - 1)
        tell_held(way, mail, watch.start(way.held.outcome.wait) - self._clock.now())

    def probe(self, way: Way, failures: int, when: float) -> None:
        """Probe a way on hold from `when` on, after so many failed probes: this relay is the one that does."""
        self._probed_elsewhere.pop(way, None)
        if way not in self._watches:
            self._watch(way, max(0, failures)).start_at(when)

    def leave_probing(self, way: Way, failures: int, when: float) -> None:
        """Another relay probes a way on hold, `when` next."""
        self._stop(way)
        way.failures = failures
        self._probed_elsewhere[way] = when

    def next_probe(self, way: Way) -> float | None:
        """When this relay probes a way next; None when it does not."""
        watch = self._watches.get(way)
        return watch.next_at if watch else None

    def _watch(self, way: Way, failures: int) -> Watch:
        ready, failed = partial(self.release, way, "a probe succeeded", works=True), partial(self._probe_failed, way)
        ask, names = partial(self._ask_way, way), {"route": way.route, "upstream": way.name}
        watch = Watch(ask, is_ready, self._clock, ready, failures, PROBE_WAITS, failed, **names)
        self._watches[way] = watch
        return watch

    def _probe_failed(self, way: Way, _outcome: Outcome) -> None:
        watch = self._watches.get(way)
        if self.together is not None and watch is not None:
            self.together.probed(way, watch.failures + 1, watch.next_at)

    def release(self, way: Way, why: str, *, works: bool = False) -> None:
        """Open a way on hold, for one mail at a time until one is delivered. `works`: a probe has shown it."""
        watch = self._watches.pop(way, None)
        self._probed_elsewhere.pop(way, None)
        if way.held is None:
            return
        if watch is not None:
            watch.stop()
            way.failures = watch.failures + 1
        now = self._clock.now()
        tell_released(way, way.held.since, now, why)
        way.release(now)
        if self.together is not None:
            self.together.opened(way, works)
        self._released(way)

    def all(self) -> tuple[HeldWay, ...]:
        """Every way on hold, the first that closed first."""
        ways = [(way.held, way, watch.next_at) for way, watch in self._watches.items() if isinstance(way, Way)]
        ways += [(way.held, way, when) for way, when in self._probed_elsewhere.items()]
        found = [
            HeldWay(way.route, way.name, held.since, held.outcome.reply, _text(held.outcome.hint), when)
            for held, way, when in ways
            if held
        ]
        return tuple(sorted(found, key=lambda way: way.since))

    def silent(self, ways: Iterable[Way]) -> tuple[HeldWay, ...]:
        """Those of `ways` that mail is not tried by, because nobody answers where they lead."""
        found = []
        for way in ways:
            watch, silence = self._watches.get(way.endpoint), way.endpoint.silence
            if watch and silence and silence.outcome and way.endpoint.broken and not way.held:
                outcome = silence.outcome
                told = HeldWay(
                    way.route, way.name, silence.since, outcome.reply, _text(outcome.hint), watch.next_at, silent=True
                )
                found.append(told)
        return tuple(found)

    def go_round(self, way: Way) -> None:
        """Probe where a way leads, as mail goes round it or is not tried, because nobody answers there."""
        endpoint = way.endpoint
        if endpoint not in self._watches:
            ready, ask, failed = partial(self._reached, way), partial(self._ask_at, way), partial(self._unreached, way)
            watch = Watch(ask, is_reached, self._clock, ready, 0, self._reach_waits, failed, upstream=way.name)
            self._watches[endpoint] = watch
            known = self.together is not None and self.together.silent(way)
            tell_unreachable(way, watch.start() - self._clock.now(), known=known)

    def watches(self, endpoint: Endpoint) -> bool:
        """Whether this relay gets no answer there, and probes it or waits for another that does."""
        return endpoint in self._watches

    def probe_at(self, endpoint: Endpoint, when: float) -> None:
        """Probe an endpoint then, and not before."""
        if endpoint in self._watches:
            self._watches[endpoint].start_at(max(when, self._clock.now()))

    def reach_wait(self, silent_for: float) -> float:
        """Seconds between two probes of an endpoint, whoever makes them."""
        return self._reach_waits[0 if silent_for < 2 * self._reach_waits[0] else -1]

    async def ask(self, way: Way) -> Outcome:
        """One probe of where a way leads."""
        return await self._prober(way.gate).ask()

    def _unreached(self, way: Way, _outcome: Outcome) -> None:
        if self.together is not None:
            self.together.still_silent(way)

    def forget(self, way: Way) -> None:
        """No more probes for it, nor where it alone leads."""
        self._probed_elsewhere.pop(way, None)
        if self.together is not None:
            self.together.forget(way)
        for subject in (way, way.endpoint) if way.endpoint is not way.gate.endpoint else (way,):
            self._stop(subject)

    async def forget_gate(self, gate: Gate) -> None:
        """No more probes of the upstream; when this returns none is under way."""
        for way in [one for one in self._watches if isinstance(one, Way) and one.gate is gate]:
            self.forget(way)
        endpoint = gate.endpoint
        if gate in endpoint.gates:
            endpoint.gates.remove(gate)
        if not endpoint.gates:
            self._stop(endpoint)
        elif endpoint in self._watches:  # perhaps it is this gate that is being asked: another one is, next time
            self._watches[endpoint].stop()
            self._watches[endpoint].start()
        prober = self._probers.pop(gate, None)
        if prober is not None:
            await prober.close()

    def _stop(self, subject: Way | Endpoint) -> None:
        watch = self._watches.pop(subject, None)
        if watch is not None:
            watch.stop()

    async def _ask_way(self, way: Way) -> Outcome:
        """A way on hold is not asked at an endpoint where nobody answers: one probe there is enough for all."""
        if way.endpoint.broken and way.endpoint.trouble is not None:
            return way.endpoint.trouble
        outcome = await self._prober(way.gate).ask()
        if unreached(outcome):
            way.endpoint.unanswered(outcome, self._clock.now())
        else:
            way.endpoint.answered()
        if way.endpoint.broken:
            self.go_round(way)
        return outcome

    async def _ask_at(self, way: Way) -> Outcome:
        outcome = await self._prober(way.endpoint.next_to_probe() or way.gate).ask()
        if unreached(outcome):
            way.endpoint.still_unanswered(self._clock.now())
        return outcome

    def _reached(self, way: Way) -> None:
        since = way.endpoint.since
        self._watches.pop(way.endpoint, None)
        way.endpoint.answered()
        tell_reached(way, since, self._clock.now())
        if self.together is not None:
            self.together.reached(way)
        self._when_reached(way.endpoint)

    def _prober(self, gate: Gate) -> Prober:
        return self._probers.setdefault(gate, Prober(gate.upstream, self._clock))


def _text(hint: object) -> str | None:
    return None if hint is None else str(hint)
