"""Delivery of one relay as the rest of it sees it: start, new rules, stop, and the numbers.

New rules must never lose what is known of the ways and accounts that stay, nor cut off a send.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Final

from config.relay_settings import Delivery
from delivery.accounts import Ledger, Meters, tell_near
from delivery.attempt import Attempts
from delivery.backoff import PROBE_WAITS, reach_waits
from delivery.clock import Clock, WallClock
from delivery.counters import UpstreamNumbers
from delivery.dispatch import Dispatch
from delivery.endpoint import Endpoint, Silence
from delivery.forecast import Forecast, forecast
from delivery.holds import HeldWay, Holds
from delivery.lanes import Lane, RouteNumbers, gates_for
from delivery.pace import Meter
from delivery.pauses import paced
from delivery.plan import Plan
from delivery.settling import Settling
from delivery.shares import Shares
from delivery.together import Together
from delivery.ways import Gate, Way
from routing.counting import ByCustomer
from routing.events import emit
from routing.mail import domain_of
from spool.contract import Leased, Spool, SpoolUnavailable, id_text
from spool.holding import Hold, keys_of
from spool.view import Load

_log = logging.getLogger("delivery")

_FORESEE_EVERY: Final = 900.0
"""Seconds between two looks ahead while mail waits for its pace."""

_LEARN_EVERY: Final = 60.0
"""Seconds between two looks at what other relays sent of a day's limit."""

_STUCK_AFTER: Final = 180.0
"""Seconds after which mail that is due, and that nothing keeps, should have been tried."""


class Scheduler:
    """Delivery of one relay, on one event loop."""

    def __init__(
        self, spool: Spool, plan: Plan, settings: Delivery, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        self._spool = spool
        self.plan = plan
        self._settings = settings
        self._clock = clock or WallClock()
        self._settling = Settling(spool, settings, self._clock, random or Random())  # noqa: S311 - jitter, no secret
        self._holds = Holds(self._clock, reach_waits(settings.retry), self._released, self._reached)
        self._ledger = Ledger(spool, self._clock)
        self._meters = Meters(plan.rules, plan.routes.values())
        self._gates: dict[str, Gate] = gates_for(plan.upstreams, {}, self._meters)
        self._shares = Shares(spool.cluster, self._clock)
        self._leaving: set[Gate] = set()
        self._together: Together | None = None
        self._unnamed: set[str] = set()
        self._foresaw_at = -_FORESEE_EVERY
        self._dispatch = Dispatch(
            spool,
            self._clock,
            self._settling,
            settings.fallback_after,
            self._belongs,
            self._make_lane,
            self._holds.go_round,
            self._on_pause,
        )
        self._dispatch.attempts = self._attempts_by(plan)
        self._share_gates()
        if spool.cluster:
            self._together = Together(spool.cluster, self._shares, self._clock, self._holds, self)
            self._holds.together = self._together

    async def start(self) -> None:
        """Take up what waits in the spool, and new mail from now on."""
        await self._ledger.load(self._meters)
        self._spool.on_arrival(self._dispatch.arrived)
        for name, backlog in (await self._spool.backlog()).items():
            self._dispatch.ring_at(self._dispatch.lane(name), backlog.next_due)
        if self._together:
            self._learn()

    async def replace(self, plan: Plan) -> None:
        """Go by new rules at once. Mail of changed routes and upstreams is tried now, and their holds end.

        Sends under way end as they began; upstreams that are gone are closed behind the last of them.
        """
        changed = self._swap(plan)
        before = await self._spool.backlog()
        await self._spool.reroute(lambda sender: found.name if (found := plan.table.match(sender)) else None)
        after = await self._spool.backlog()
        changed |= {name for name in after if name not in plan.routes}
        changed |= {name for name in after if name not in before or after[name].waiting > before[name].waiting}
        for name in changed & after.keys():
            await self._spool.wake(name, self._clock.now())
            self._dispatch.arrived(name)
        for lane in tuple(self._dispatch.lanes.values()):
            self._dispatch.resume(lane)

    async def stop(self, grace: float) -> None:
        """Drain: no new sends, those under way may end within `grace` seconds, the others come back uncounted.

        Upstreams are closed at the end. The spool is the caller's.
        """
        dispatch = self._dispatch
        dispatch.drain()
        self._shares.stop()
        for way in [way for lane in dispatch.lanes.values() for way in lane.ways]:
            way.gone = True
        for gate in (*self._gates.values(), *self._leaving):
            gate.serve_waiting(self._clock.now())
        if dispatch.sending:
            await asyncio.wait(dispatch.sending, timeout=grace)
        for task in tuple(dispatch.sending):
            task.cancel()
        await asyncio.gather(*dispatch.sending, *dispatch.asking, return_exceptions=True)
        await self._ledger.close()
        if self._together is not None:
            await self._together.stop()
        for gate in (*self._gates.values(), *self._leaving):
            await self._close(gate)

    def clock_set(self, seconds: float) -> None:
        """The machine's clock was set, back when negative. Limits count on from before; what was to come later does
        not come later still, nor at its old time when that is over. Mail in the spool is for `try_all`.
        """
        for meter in self._meters.by_name.values():
            meter.shift(seconds)
        if seconds < 0:
            self._foresaw_at += seconds
            for gate in self._gates.values():
                gate.rests_until += seconds
            for endpoint in {way.endpoint for way in self.ways()}:
                endpoint.set_back(-seconds)
        self._dispatch.look_again()

    async def try_all(self) -> None:
        """Make all waiting mail due now, but not what people hold."""
        for name in await self._spool.backlog():
            self._dispatch.wake(name)

    def recall(self, hold: Hold) -> None:
        """Begin no send that a new hold of people covers; sends under way end as they began."""
        self._dispatch.recall(lambda mail: hold.key in keys_of(id_text(mail.id), mail.route, mail.sender))

    def release(self, route: str, why: str) -> int:
        """Open the ways of a route that delivery put on hold, without a probe. Returns how many."""
        lane = self._dispatch.lanes.get(route)
        held = [way for way in lane.ways if way.held] if lane else []
        for way in held:
            self._holds.release(way, why)
        return len(held)

    def held(self) -> tuple[HeldWay, ...]:
        """The ways that delivery put on hold, also those that only other relays on the spool have."""
        return self._holds.all() + (self._together.elsewhere() if self._together else ())

    def silent(self) -> tuple[HeldWay, ...]:
        """The ways that mail is not tried by, because nobody answers there."""
        return self._holds.silent(self.ways())

    def paced(self) -> tuple[HeldWay, ...]:
        """The ways whose pace makes mail wait now."""
        return tuple(paced(self._dispatch.lanes.values(), self._clock.now(), self._dispatch.fallback_after))

    def routes(self) -> dict[str, RouteNumbers]:
        """The numbers of every route that had mail since the start, by name."""
        return {name: lane.numbers() for name, lane in self._dispatch.lanes.items()}

    def upstreams(self) -> dict[str, UpstreamNumbers]:
        """The numbers of every upstream that was asked since the start, by name."""
        return self._dispatch.numbers.upstreams

    @property
    def customers(self) -> ByCustomer:
        """Recipients delivered and failed, by route and domain of the sender."""
        return self._dispatch.numbers.customers

    def meters(self) -> tuple[Meter, ...]:
        """The meters of all accounts and routes with a limit."""
        return tuple(self._meters.by_name.values())

    def unreachable(self) -> dict[str, Silence]:
        """Upstreams that could not be reached at the last try, by name."""
        places = [(gate.name, gate.endpoint) for gate in self._gates.values()]
        places += [(way.name, way.endpoint) for lane in self._dispatch.lanes.values() for way in lane.ways]
        return {name: silence for name, endpoint in places if (silence := endpoint.silence)}

    async def stuck(self) -> tuple[str, ...]:
        """Routes whose mail has been due for minutes, with nothing in its way, and is not tried: a bug of ours."""
        late = self._clock.now() - _STUCK_AFTER
        waiting = await self._spool.backlog()
        due = [name for name, backlog in waiting.items() if backlog.next_due <= late]
        return () if self._dispatch.draining else tuple(name for name in due if not self._dispatch.sees(name))

    async def forecast(self) -> Forecast:
        """When queues will be empty and when a day's limit is reached. Mails count as one recipient each."""
        waiting = {
            name: Load(backlog.waiting, backlog.waiting) for name, backlog in (await self._spool.backlog()).items()
        }
        return forecast(self._meters, self.plan.routes, waiting, self._clock.now())

    @property
    def octets(self) -> int:
        """Octets of content that are leased now."""
        return self._dispatch.octets

    # ---- what relays that share the spool ask for, see `together.Rooms` --------------------------------------------

    def ways(self) -> list[Way]:
        """The ways of all routes with mail since the start."""
        return [way for lane in self._dispatch.lanes.values() for way in lane.ways]

    def know(self, route: str) -> None:
        """Have a lane for a route."""
        self._dispatch.lane(route)

    def look(self, way: Way) -> None:
        """Something changed for the mail that waits for a way."""
        self._dispatch.serve(way.gate)
        self._dispatch.resume(self._dispatch.lane(way.route))

    # ---- rules --------------------------------------------------------------------------------------------------

    def _swap(self, plan: Plan) -> set[str]:
        """Put a plan in force. Returns the names of the lanes that it changed."""
        old, self.plan = self._gates, plan
        self._meters = Meters(plan.rules, plan.routes.values(), self._meters)
        self._gates = gates_for(plan.upstreams, old, self._meters)
        self._share_gates()
        self._dispatch.attempts = self._attempts_by(plan)
        self._unnamed.clear()
        for gate in old.values():
            gate.ring.clear()
        changed = {lane.name for lane in self._dispatch.lanes.values() if self._follow(lane)}
        for gate in old.values():
            gate.serve_waiting(self._clock.now())
        self._retire(gate for name, gate in old.items() if self._gates.get(name) is not gate)
        return changed

    def _follow(self, lane: Lane) -> bool:
        known, lane.queued = lane.ways, False
        changed = lane.follow(self.plan.routes.get(lane.name), self._gates, self._meters)
        self._share_lane(lane)
        for way in known:
            if way not in lane.ways:
                way.gone = True
                self._holds.forget(way)
        lane.buffer = deque([mail for mail in lane.buffer if self._belongs(lane, mail)])
        return changed

    def _retire(self, gates: Iterable[Gate]) -> None:
        for gate in gates:
            self._leaving.add(gate)
            if not gate.busy:
                self._dispatch.spawn(self._close(gate), self._dispatch.asking)

    async def _close(self, gate: Gate) -> None:
        self._leaving.discard(gate)
        try:
            await self._holds.forget_gate(gate)
            await gate.upstream.close()
        except Exception:
            _log.exception("closing %s failed by a bug of ours", gate.name)

    def _make_lane(self, name: str) -> Lane:
        lane = Lane(name)
        lane.follow(self.plan.routes.get(name), self._gates, self._meters)
        self._share_lane(lane)
        return lane

    def _share_gates(self) -> None:
        """Keep the upstreams' limits together with other relays."""
        for name, gate in self._gates.items():
            if not gate.upstream.local:
                gate.share = self._shares.of(f"upstream {name}", gate.limit, partial(self._serve, name))
            if gate.share is not None:
                gate.share.on_held = gate.upstream.keep

    def _serve(self, upstream: str) -> None:
        gate = self._gates.get(upstream)
        for one in (*([gate] if gate else []), *self._leaving):
            self._dispatch.serve(one)

    def _share_lane(self, lane: Lane) -> None:
        for way in lane.ways:
            if self._together is not None and way.proof is None:
                way.proof = self._together.proof_of(way, partial(self.look, way))
        pace, changed = lane.route.settings.pace if lane.route else None, partial(self._dispatch.resume, lane)
        most = pace.concurrency if pace else None
        lane.share = self._shares.of(f"route {lane.name}", most, changed) if most else None

    def _belongs(self, lane: Lane, mail: Leased) -> bool:
        """Match the sender again. Mail that another route takes now goes there; mail that none takes is kept."""
        name = self.plan.match(mail.sender, lane.name)
        if name == lane.name:
            return True
        self._dispatch.octets -= len(mail.content)
        if name is not None:
            self._dispatch.written(name, self._settling.give_back(mail, mail.received_at, route=name))
            return False
        due_at = self._clock.now() + PROBE_WAITS[-1]
        note = f"no rule takes mail of {mail.sender or '<>'} any more: it is kept until one does"
        self._dispatch.written(lane.name, self._settling.give_back(mail, due_at, note=note))
        domain = domain_of(mail.sender)
        if domain not in self._unnamed:
            self._unnamed.add(domain)
            emit(_log, "held", logging.ERROR, mail=id_text(mail.id), route=lane.name, sender=mail.sender, why=note)
        return False

    # ---- what sends show ----------------------------------------------------------------------------------------

    def _attempts_by(self, plan: Plan) -> Attempts:
        return Attempts(
            plan,
            self._settings.fallback_after,
            self._clock.now,
            self._ledger,
            self._on_hold,
            self._on_broken,
            self._on_leave,
        )

    def _on_hold(self, way: Way, mail: Leased) -> None:
        if way.gone:
            way.proved()
        elif self._together is not None:
            self._together.found(way, mail)
        else:
            self._holds.hold(way, mail)

    def _on_broken(self, way: Way) -> None:
        if not way.gone:
            self._holds.go_round(way)

    def _on_leave(self, way: Way) -> None:
        self._dispatch.left(way)
        if way.gate in self._leaving and not way.gate.busy and not self._dispatch.draining:
            self._dispatch.spawn(self._close(way.gate), self._dispatch.asking)

    def _learn(self) -> None:
        """Hear now and then what the others sent, where a day has a limit."""
        if not self._dispatch.draining:
            self._clock.call_at(self._clock.now() + _LEARN_EVERY, self._learn)
            if any(one.rate.per_day for one in self._meters.by_name.values()):
                self._dispatch.spawn(self._hear_of_others(), self._dispatch.asking)

    async def _hear_of_others(self) -> None:
        with suppress(SpoolUnavailable):
            await self._ledger.learn(self._meters)

    def _on_pause(self) -> None:
        now = self._clock.now()
        if now - self._foresaw_at >= _FORESEE_EVERY and any(one.rate.per_day for one in self._meters.by_name.values()):
            self._foresaw_at = now
            self._dispatch.spawn(self._foresee(), self._dispatch.asking)

    async def _foresee(self) -> None:
        """Tell of the limits that what waits will reach, while there is time to do something about it."""
        try:
            quotas = (await self.forecast()).quotas
        except SpoolUnavailable:
            return  # mail that goes on waiting asks again
        for quota in quotas:
            meter = self._meters.by_name.get(quota.account)
            if meter is not None and quota.full_at is not None and meter.news(self._clock.now(), foreseen=True):
                tell_near(meter, self._clock.now(), max(0.0, quota.full_at - self._clock.now()))

    def _released(self, way: Way) -> None:
        self._dispatch.wake(way.route)

    def _reached(self, endpoint: Endpoint) -> None:
        for lane in tuple(self._dispatch.lanes.values()):
            if any(way.endpoint is endpoint for way in lane.ways):
                self._dispatch.wake(lane.name)
