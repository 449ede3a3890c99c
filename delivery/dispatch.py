"""Who goes next and how many at a time: mail from the spool into lanes, and from lanes through gates.

The only place that waits. It must never take mail for a route whose ways are all on hold, nor lose sight of mail that
is due: whatever happens to a mail, its lane is looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Coroutine
from math import inf
from typing import Final

from config.rules import Route
from delivery.accounts import Fare
from delivery.attempt import Attempts, Errand, our_fault
from delivery.clock import Clock
from delivery.counters import Numbers
from delivery.lanes import Lane
from delivery.settling import Settling, Written
from delivery.shares import Share
from delivery.ways import Gate, Way
from routing.events import emit
from spool.contract import Leased, Spool, SpoolUnavailable

_log = logging.getLogger("delivery")

MEMORY: Final = 8 << 20
"""Octets of content that may be leased; beyond it every lane has one mail at a time."""

_STORE_WAIT: Final = 5.0
"""Seconds until the spool is asked again after it failed us."""

_SHORT_PAUSE: Final = 5.0
"""Seconds that mail may stay in memory while its pace makes it wait."""


class Dispatch:
    """The lanes of a scheduler, which sets `attempts` before it calls anything, and again at new rules.

    `fallback_after` as in `Delivery`. `belongs(lane, mail)` says whether the lane is still the mail's own; when it is
    not, the mail has been seen to. `make_lane(name)` gives a lane that follows the rules. `go_round(way)` is told of a
    way that mail passes by because nobody answers at its end, `on_pause()` of mail that waits for its pace for longer.
    """

    attempts: Attempts

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        settling: Settling,
        fallback_after: float,
        belongs: Callable[[Lane, Leased], bool],
        make_lane: Callable[[str], Lane],
        go_round: Callable[[Way], None],
        on_pause: Callable[[], None],
    ) -> None:
        self._spool = spool
        self._clock = clock
        self._settling = settling
        self.fallback_after = fallback_after
        self._belongs = belongs
        self._make_lane = make_lane
        self._go_round = go_round
        self._on_pause = on_pause
        self._blocked: set[Lane] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.numbers = Numbers()
        self.lanes: dict[str, Lane] = {}
        self.sending: set[Task[None]] = set()
        self.asking: set[Task[None]] = set()
        self.octets = 0
        self.draining = False

    def lane(self, name: str) -> Lane:
        """The lane of a route; made when it is asked for the first time."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = self._make_lane(name)
        return lane

    def drain(self) -> None:
        """Start no more sends, and give back the mail at hand."""
        self.draining = True
        for lane in self.lanes.values():
            self._set_timer(lane, None)
            self._unpause(lane)
            self.empty(lane)

    # ---- from the spool to a lane -------------------------------------------------------------------------------

    def arrived(self, route: str) -> None:
        """The spool may have mail of a route that is due."""
        lane = self.lane(route)
        lane.more = True
        self.feed(lane)

    def feed(self, lane: Lane) -> None:
        """Ask the spool for more mail of a lane, if there may be some and it can be used."""
        while lane.more and not lane.leasing and not self.draining and (not lane.route or self._first(lane)):
            wanted = lane.wanted(MEMORY - self.octets)
            if not wanted:
                return
            lane.leasing, lane.more = True, False
            mails = None if lane.rang else self._spool.lease_at_hand(lane.name, wanted, self._clock.now())
            if mails is None:
                self.spawn(self._lease(lane, wanted), self.asking)
                return
            try:
                self._take(lane, mails, wanted)
                self.offer(lane)
            finally:
                lane.leasing = False

    def _take(self, lane: Lane, mails: list[Leased], wanted: int) -> None:
        self.octets += sum([len(mail.content) for mail in mails])
        lane.keep([mail for mail in mails if self._belongs(lane, mail)])
        lane.more = lane.more or len(mails) == wanted

    async def _lease(self, lane: Lane, wanted: int) -> None:
        try:
            self._take(lane, await self._spool.lease(lane.name, wanted, self._clock.now()), wanted)
            if lane.rang and not lane.more:
                await self._ask_when(lane)
        except SpoolUnavailable as error:  # nobody's bug: a line for each lane and nothing more
            emit(_log, "lease_waits", logging.WARNING, route=lane.name, why=str(error), again_in=_STORE_WAIT)
            self.ring_at(lane, self._clock.now() + _STORE_WAIT)
        except Exception:
            _log.exception("leasing mail of %s failed by a bug of ours; the spool is asked again", lane.name)
            self.ring_at(lane, self._clock.now() + _STORE_WAIT)
        finally:
            lane.leasing = False
        if self.draining:
            self.empty(lane)
        self.offer(lane)
        self.feed(lane)

    async def _ask_when(self, lane: Lane) -> None:
        """Set the timer for the lane's next mail; those of one second are taken together."""
        lane.rang = False
        due = await self._spool.next_due(lane.name)
        if due is not None:
            self.ring_at(lane, max(due, self._clock.now() + 1.0))

    def ring_at(self, lane: Lane, when: float) -> None:
        """Look at the lane again at that time (`inf`: people hold its mail), unless it is looked at before."""
        if not self.draining and when != inf and (lane.timer is None or when < lane.timer_at):
            self._set_timer(lane, when)

    def look_again(self) -> None:
        """The clock was set: whatever a lane waits for, ask anew when that is."""
        for lane in tuple(self.lanes.values()):
            if lane.timer is not None:
                self._set_timer(lane, None)
                self._rang(lane)
            self.resume(lane)

    def _set_timer(self, lane: Lane, when: float | None) -> None:
        if lane.timer is not None:
            lane.timer.cancel()
        lane.timer, lane.timer_at = None, when or 0.0
        if when is not None:
            lane.timer = self._clock.call_at(when, lambda: self._rang(lane))

    def _rang(self, lane: Lane) -> None:
        lane.timer = None
        lane.rang = lane.more = True
        self.feed(lane)

    # ---- from a lane through a gate -----------------------------------------------------------------------------

    def _first(self, lane: Lane) -> Way | None:
        return lane.first(self._clock.now(), self.fallback_after)

    def offer(self, lane: Lane) -> None:
        """Let a lane with mail take its turn at the gate that its mail leaves by now."""
        gate = self._queue(lane)
        if gate is not None:
            self.serve(gate)

    def _queue(self, lane: Lane) -> Gate | None:
        """Put a lane into the ring of its gate, if it has mail that may leave. Mail of a lane on hold goes back."""
        if not lane.buffer or lane.queued or lane.pause or self.draining or lane.full:
            return None
        way = self._first(lane)
        if way is None:
            self.empty(lane)
        elif way.open_to_try:
            lane.queued = True
            way.gate.ring.append(lane)
            return way.gate
        return None

    def serve(self, gate: Gate) -> None:
        """Let mail through a gate while it has room: a lane gives one mail, then it is the next lane's turn.

        A lane that its pace makes wait steps aside, but on an account that is shared, and whose room is its by turn, it
        keeps its place and the others wait for it.
        """
        if gate.serving:  # it is being served: what this call is about comes to its turn
            return
        gate.serving = True
        try:
            self._serve(gate)
        finally:
            gate.serving = False

    def _serve(self, gate: Gate) -> None:
        if gate.waiting:
            gate.serve_waiting(self._clock.now())
        while gate.ring and gate.free and not self.draining:
            lane = gate.ring[0]
            way = self._first(lane)
            ready = lane.buffer and lane.route and way and way.gate is gate and way.free and not lane.full
            if ready and way and not self._in_time(lane, way):
                return
            gate.ring.popleft()
            lane.queued = False
            if ready and lane.route and way and not lane.pause:
                self._send(lane, lane.route, way)
            other = self._queue(lane)
            if other is not None and other is not gate:
                self.serve(other)
            self.feed(lane)

    def _in_time(self, lane: Lane, way: Way) -> bool:
        """Pause a lane whose pace has no room now. False when the whole gate waits for it."""
        turn = way.turn(lane.recipients, self._clock.now())
        if turn.at > self._clock.now():
            spills = [one.turn(lane.recipients, self._clock.now()).at for one in lane.ways if lane.spills]
            self._pause_until(lane, min([turn.at, *[at for at in spills if at > self._clock.now()]]))
            return not turn.first
        self._unpause(lane)
        return True

    def _pause_until(self, lane: Lane, when: float) -> None:
        """Look at a lane's next mail again when its pace has room, or when any send ends (`inf`). Until then it waits
        in the spool, but for the first.
        """
        self._unpause(lane)
        self._blocked.add(lane)
        lane.pause = self._clock.call_at(when, lambda: self.resume(lane)) if when != inf else _Endless()
        if when - self._clock.now() > _SHORT_PAUSE:
            self.empty(lane, but=1)
            self._on_pause()

    def _unpause(self, lane: Lane) -> None:
        if lane.pause is not None:
            lane.pause.cancel()
            lane.pause = None
            self._blocked.discard(lane)

    def resume(self, lane: Lane) -> None:
        """Its time has come, or something else has changed for it: new rules, a way that works again."""
        self._unpause(lane)
        for way in lane.ways if lane.queued else ():
            self.serve(way.gate)  # it kept its place in the ring of one of them
        self.offer(lane)
        self.feed(lane)

    def _send(self, lane: Lane, route: Route, way: Way) -> None:
        ways = (way, *lane.via) if way.trial else lane.via
        for passed in (*ways[: ways.index(way)], *[one for one in lane.ways if one.trial]):
            if passed.held is None and passed.endpoint.since is not None:
                self._go_round(passed)
        mail = lane.buffer.popleft()
        if not self._spool.ours(mail):
            self.octets -= len(mail.content)
            lane.more = True
            return
        errand = Errand(mail, route, ways)
        lane.in_flight += 1
        fare = way.take(len(errand.mail.recipients), self._clock.now())
        if lane.share is not None:
            lane.share.begin()
        self.spawn(self._deliver(lane, lane.share, errand, way, fare, self.attempts), self.sending)

    async def _deliver(
        self, lane: Lane, share: Share | None, errand: Errand, way: Way, fare: Fare, attempts: Attempts
    ) -> None:
        mail = errand.mail
        try:
            await attempts.carry(errand, way, fare)
        except asyncio.CancelledError:
            _log.debug("a send was cut off by the stop; what it has not sent comes back")
        except Exception as error:
            _log.exception("an attempt failed by a bug of ours; the mail is tried again")
            errand.fault = our_fault(error)
        try:
            written = await self._settling.conclude(errand, attempts.plan)
            self.numbers.count(lane, errand, written.verdict, self._clock.now())
            self.written(lane.name, written)
        except Exception:
            _log.exception("settling failed by a bug of ours; who does not have the mail is tried again")
            self.written(lane.name, self._settling.salvage(errand))
        finally:
            lane.in_flight -= 1
            if share is not None:
                share.end()
            self.octets -= len(mail.content)
            self.offer(lane)
            self.feed(lane)

    # ---- after a send -------------------------------------------------------------------------------------------

    def left(self, way: Way) -> None:
        """A slot came free, and perhaps room in a window that others wait for."""
        self.serve(way.gate)
        for lane in [lane for lane in self._blocked if isinstance(lane.pause, _Endless) or lane.spills]:
            self.resume(lane)

    def written(self, route: str, written: Written) -> None:
        """Once a mail that comes back is on disk, look at its lane when it is due."""
        due_at = written.verdict.due_at
        if due_at is not None:
            written.kept.add_done_callback(lambda _: self._comes_back(route, due_at))

    def _comes_back(self, route: str, due_at: float) -> None:
        if due_at <= self._clock.now():
            self.arrived(route)
        else:
            self.ring_at(self.lane(route), due_at)

    def wake(self, route: str) -> None:
        """Make all mail of a route due now."""
        self.spawn(self._wake(route), self.asking)

    async def _wake(self, route: str) -> None:
        try:
            await self._spool.wake(route, self._clock.now())
        except SpoolUnavailable:
            if not self.draining:
                self._clock.call_at(self._clock.now() + _STORE_WAIT, lambda: self.wake(route))
        self.arrived(route)
        self.resume(self.lane(route))

    def sees(self, route: str) -> bool:
        """Whether a route's due mail moves, or waits for something that is known: a send, its pace, a way on hold."""
        lane = self.lanes.get(route)
        if lane is None:
            return False
        shares = (lane.share, *[share for way in lane.ways for share in (way.gate.share, way.proof)])
        moves = lane.in_flight or lane.leasing or lane.pause or any(way.gate.busy for way in lane.ways)
        moves = moves or any(share is not None and share.waiting for share in shares)
        return bool(moves) or (lane.route is not None and self._first(lane) is None)

    def empty(self, lane: Lane, but: int = 0) -> None:
        """Give a lane's mail back to the spool, `but` so many, to be taken in the order in which it came."""
        lane.more = lane.more or len(lane.buffer) > but
        while len(lane.buffer) > but:
            mail = lane.buffer.pop()
            self.octets -= len(mail.content)
            self.written(lane.name, self._settling.give_back(mail, mail.received_at))

    def recall(self, covers: Callable[[Leased], bool]) -> None:
        """Give back what people hold now, of the mail at hand that is not under way yet."""
        for lane in tuple(self.lanes.values()):
            held = [mail for mail in lane.buffer if covers(mail)]
            for mail in held:
                lane.buffer.remove(mail)
                self.octets -= len(mail.content)
                self.written(lane.name, self._settling.give_back(mail, mail.received_at))

    def spawn(self, work: Coroutine[None, None, None], into: set[Task[None]]) -> None:
        """Run it, and keep it in that set while it runs."""
        if self._loop is None:  # kept, for to ask for it is a call of the system in Python 3.11
            self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(work)
        into.add(task)
        task.add_done_callback(into.discard)


class _Endless:
    """A pause that only the end of a send ends."""

    def cancel(self) -> None:
        """Nothing is under way."""
