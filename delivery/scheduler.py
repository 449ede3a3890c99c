"""Moves mail from the spool to the upstreams: who goes next, how many at a time, and when again.

The only place that waits. It must never take mail for a route whose ways are all on hold, nor lose sight of mail that
is due: whatever happens to a mail, its lane is looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections import deque
from collections.abc import Coroutine, Iterable
from random import Random
from typing import Final

from config.rules import Delivery, Route
from delivery.attempt import Attempts, Errand, our_fault
from delivery.backoff import PROBE_WAITS
from delivery.clock import Clock, WallClock
from delivery.holds import Holds
from delivery.lanes import Lane, RouteNumbers, gates_for
from delivery.plan import Plan
from delivery.settling import Settling, Written
from delivery.verdict import Verdict
from delivery.ways import Gate, Way
from routing.events import emit
from routing.mail import domain_of
from spool.contract import Leased, Settled, Spool, id_text

_log = logging.getLogger("delivery")

MEMORY: Final = 8 << 20
"""Octets of content that may be leased; beyond it every lane has one mail at a time."""

_STORE_WAIT: Final = 5.0
"""Seconds until the spool is asked again after it failed us."""


class Scheduler:
    """Delivery of one relay, on one event loop."""

    def __init__(
        self, spool: Spool, plan: Plan, settings: Delivery, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        self._spool = spool
        self._plan = plan
        self._settings = settings
        self._clock = clock or WallClock()
        self._settling = Settling(spool, settings, self._clock, random or Random())  # noqa: S311 - jitter, no secret
        self._holds = Holds(self._clock, self._released)
        self._gates: dict[str, Gate] = gates_for(plan.upstreams, {})
        self._attempts = self._attempts_by(plan)
        self._lanes: dict[str, Lane] = {}
        self._sending: set[Task[None]] = set()
        self._asking: set[Task[None]] = set()
        self._leaving: set[Gate] = set()
        self._octets = 0
        self._unnamed: set[str] = set()
        self._draining = False

    # ---- for relay.py and ops -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what waits in the spool, and new mail from now on."""
        self._spool.on_arrival(self._arrived)
        for name, backlog in (await self._spool.backlog()).items():
            self._ring_at(self._lane(name), backlog.next_due)

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
            await self._wake(name)
        for lane in tuple(self._lanes.values()):
            self._offer(lane)
            self._feed(lane)

    async def stop(self, grace: float) -> None:
        """Drain: no new sends, those under way may end within `grace` seconds, the others come back uncounted.

        Upstreams are closed at the end. The spool is the caller's.
        """
        self._draining = True
        for lane in self._lanes.values():
            self._set_timer(lane, None)
            self._empty(lane)
        gates = [*self._gates.values(), *self._leaving]
        for way in [way for lane in self._lanes.values() for way in lane.ways]:
            way.gone = True
        for gate in gates:
            gate.serve_waiting()
        if self._sending:
            await asyncio.wait(self._sending, timeout=grace)
        for task in tuple(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, *self._asking, return_exceptions=True)
        for gate in (*self._gates.values(), *self._leaving):
            await self._close(gate)

    def routes(self) -> dict[str, RouteNumbers]:
        """The numbers of every route that had mail since the start, by name."""
        return {name: lane.numbers() for name, lane in self._lanes.items()}

    def unreachable(self) -> dict[str, float]:
        """Upstreams that could not be reached at the last try, and since when (unix seconds)."""
        since = {name: gate.unreachable_since for name, gate in self._gates.items()}
        return {name: at for name, at in since.items() if at is not None}

    @property
    def octets(self) -> int:
        """Octets of content that are leased now."""
        return self._octets

    # ---- from the spool to a lane -------------------------------------------------------------------------------

    def _arrived(self, route: str) -> None:
        lane = self._lane(route)
        lane.more = True
        self._feed(lane)

    def _feed(self, lane: Lane) -> None:
        """Ask the spool for more mail of a lane, if there may be some and it can be used."""
        if not lane.more or lane.leasing or self._draining or (lane.route and self._first(lane) is None):
            return
        wanted = lane.wanted(MEMORY - self._octets)
        if wanted:
            lane.leasing, lane.more = True, False
            self._spawn(self._lease(lane, wanted), self._asking)

    async def _lease(self, lane: Lane, limit: int) -> None:
        try:
            mails = await self._spool.lease(lane.name, limit, self._clock.now())
            self._octets += sum([len(mail.content) for mail in mails])
            lane.keep([mail for mail in mails if self._belongs(lane, mail)])
            lane.more = lane.more or len(mails) == limit
            if lane.rang and not lane.more:
                await self._ask_when(lane)
        except Exception:
            _log.exception("the spool gave no mail of %s; it is asked again", lane.name)
            self._ring_at(lane, self._clock.now() + _STORE_WAIT)
        finally:
            lane.leasing = False
        if self._draining:
            self._empty(lane)
        self._offer(lane)
        self._feed(lane)

    async def _ask_when(self, lane: Lane) -> None:
        """Set the timer for the lane's next mail; those of one second are taken together."""
        lane.rang = False
        due = await self._spool.next_due(lane.name)
        if due is not None:
            self._ring_at(lane, max(due, self._clock.now() + 1.0))

    def _belongs(self, lane: Lane, mail: Leased) -> bool:
        """Match the sender again. Mail that another route takes now goes there; mail that none takes is kept."""
        name = self._plan.match(mail.sender, lane.name)
        if name == lane.name:
            return True
        self._octets -= len(mail.content)
        if name is not None:
            self._written(name, self._settling.give_back(mail, mail.received_at, route=name))
            return False
        due_at = self._clock.now() + PROBE_WAITS[-1]
        note = f"no rule takes mail of {mail.sender or '<>'} any more: it is kept until one does"
        self._written(lane.name, self._settling.give_back(mail, due_at, note=note))
        domain = domain_of(mail.sender)
        if domain not in self._unnamed:
            self._unnamed.add(domain)
            emit(_log, "held", logging.ERROR, mail=id_text(mail.id), route=lane.name, sender=mail.sender, why=note)
        return False

    def _ring_at(self, lane: Lane, when: float) -> None:
        """Look at the lane again at that time, unless it is looked at before."""
        if not self._draining and (lane.timer is None or when < lane.timer_at):
            self._set_timer(lane, when)

    def _set_timer(self, lane: Lane, when: float | None) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
        lane.timer, lane.timer_at = None, when or 0.0
        if when is not None:
            lane.timer = self._clock.call_at(when, lambda: self._rang(lane))

    def _rang(self, lane: Lane) -> None:
        lane.timer = None
        lane.rang = lane.more = True
        self._feed(lane)

    # ---- from a lane through a gate -----------------------------------------------------------------------------

    def _first(self, lane: Lane) -> Way | None:
        return lane.first(self._clock.now(), self._settings.fallback_after)

    def _offer(self, lane: Lane) -> None:
        """Let a lane with mail take its turn at the gate that its mail leaves by now."""
        gate = self._queue(lane)
        if gate is not None:
            self._serve(gate)

    def _queue(self, lane: Lane) -> Gate | None:
        """Put a lane into the ring of its gate, if it has mail that may leave. Mail of a lane on hold goes back."""
        if not lane.buffer or lane.queued or lane.in_flight >= lane.limit or self._draining:
            return None
        way = self._first(lane)
        if way is None:
            self._empty(lane)
        elif way.proven or not way.busy:
            lane.queued = True
            way.gate.ring.append(lane)
            return way.gate
        return None

    def _serve(self, gate: Gate) -> None:
        """Let mail through a gate while it has room: a lane gives one mail, then it is the next lane's turn."""
        if gate.waiting:
            gate.serve_waiting()
        while gate.ring and gate.busy < gate.limit and not self._draining:
            lane = gate.ring.popleft()
            lane.queued = False
            way = self._first(lane)
            if lane.buffer and lane.route and way and way.gate is gate and way.free and lane.in_flight < lane.limit:
                self._send(lane, lane.route, way)
            other = self._queue(lane)
            if other is not None and other is not gate:
                self._serve(other)
            self._feed(lane)

    def _send(self, lane: Lane, route: Route, way: Way) -> None:
        for passed in lane.ways[: lane.ways.index(way)]:
            if passed.held is None:
                self._holds.go_round(passed.gate)
        errand = Errand(lane.buffer.popleft(), route, lane.ways)
        lane.in_flight += 1
        way.take()
        self._spawn(self._deliver(lane, errand, way, self._attempts), self._sending)

    async def _deliver(self, lane: Lane, errand: Errand, way: Way, attempts: Attempts) -> None:
        mail = errand.mail
        try:
            await attempts.carry(errand, way)
        except asyncio.CancelledError:
            _log.debug("a send was cut off by the stop; what it has not sent comes back")
        except Exception as error:
            _log.exception("an attempt failed by a bug of ours; the mail is tried again")
            errand.fault = our_fault(error)
        try:
            written = await self._settling.conclude(errand, attempts.plan)
            self._count(lane, errand, written.verdict)
            self._written(lane.name, written)
        except Exception:
            _log.exception("settling failed by a bug of ours; the mail is tried again")
            self._written(lane.name, self._settling.give_back(mail, self._clock.now() + PROBE_WAITS[0]))
        finally:
            lane.in_flight -= 1
            self._octets -= len(mail.content)
            self._offer(lane)
            self._feed(lane)

    # ---- after a send -------------------------------------------------------------------------------------------

    def _written(self, route: str, written: Written) -> None:
        """Once a mail that comes back is on disk, look at its lane when it is due."""
        due_at = written.verdict.due_at
        if due_at is not None:
            written.kept.add_done_callback(lambda _: self._comes_back(route, due_at))

    def _comes_back(self, route: str, due_at: float) -> None:
        if due_at <= self._clock.now():
            self._arrived(route)
        else:
            self._ring_at(self._lane(route), due_at)

    def _count(self, lane: Lane, errand: Errand, verdict: Verdict) -> None:
        for ended in verdict.done.values():
            if ended is Settled.DELIVERED:
                lane.delivered += 1
            else:
                lane.failed += 1
        if verdict.counted:
            lane.deferred += len(errand.mail.recipients) - len(verdict.done)

    def _on_hold(self, way: Way, mail: Leased) -> None:
        if not way.gone:
            self._holds.hold(way, mail)

    def _on_leave(self, way: Way) -> None:
        self._serve(way.gate)
        if way.gate in self._leaving and not way.gate.busy and not self._draining:
            self._spawn(self._close(way.gate), self._asking)

    def _released(self, way: Way) -> None:
        self._spawn(self._wake(way.route), self._asking)

    async def _wake(self, route: str) -> None:
        await self._spool.wake(route, self._clock.now())
        self._arrived(route)

    def _empty(self, lane: Lane) -> None:
        """Give a lane's mail back to the spool, to be taken in the order in which it came."""
        while lane.buffer:
            mail = lane.buffer.popleft()
            self._octets -= len(mail.content)
            self._written(lane.name, self._settling.give_back(mail, mail.received_at))

    # ---- rules --------------------------------------------------------------------------------------------------

    def _swap(self, plan: Plan) -> set[str]:
        """Put a plan in force. Returns the names of the lanes that it changed."""
        old, self._plan = self._gates, plan
        self._gates = gates_for(plan.upstreams, old)
        self._attempts = self._attempts_by(plan)
        self._unnamed.clear()
        for gate in old.values():
            gate.ring.clear()
        changed = {lane.name for lane in self._lanes.values() if self._follow(lane)}
        for gate in old.values():
            gate.serve_waiting()
        self._retire(gate for name, gate in old.items() if self._gates.get(name) is not gate)
        return changed

    def _follow(self, lane: Lane) -> bool:
        known, lane.queued = lane.ways, False
        changed = lane.follow(self._plan.routes.get(lane.name), self._gates)
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
                self._spawn(self._close(gate), self._asking)

    async def _close(self, gate: Gate) -> None:
        self._leaving.discard(gate)
        try:
            await self._holds.forget_gate(gate)
            await gate.upstream.close()
        except Exception:
            _log.exception("closing %s failed by a bug of ours", gate.name)

    def _attempts_by(self, plan: Plan) -> Attempts:
        return Attempts(plan, self._settings.fallback_after, self._clock.now, self._on_hold, self._on_leave)

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name)
            lane.follow(self._plan.routes.get(name), self._gates)
        return lane

    @staticmethod
    def _spawn(work: Coroutine[None, None, None], into: set[Task[None]]) -> None:
        task = asyncio.create_task(work)
        into.add(task)
        task.add_done_callback(into.discard)
