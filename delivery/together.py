"""What the delivery of several relays on one spool knows together: ways on hold, who probes them, and silent hosts.

Made only where relays share the spool; without the database each goes by what it knows itself. Must never send because
of what another says, nor let one relay's cut network close anything to the others for longer than they need to look.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Final, Protocol
from uuid import uuid4

from delivery.backoff import PROBE_WAITS, probe_wait
from delivery.clock import Clock
from delivery.fingerprint import fingerprint, has_secret
from delivery.holds import HeldWay, Holds, held_way
from delivery.plan import Plan
from delivery.shares import Share, Shares
from delivery.silence import Silence
from delivery.ways import Hold, Way
from routing.events import emit
from spool.cluster import TRIAL_LASTS, Closed, ClosedNow, Cluster, News, WayKey, trial_of
from spool.contract import Leased, SpoolFull, SpoolUnavailable

_log = logging.getLogger("delivery.together")
_LAST_WORDS: Final = 2.0
"""Seconds at a stop for what other relays should know."""
_AWAY: Final = (SpoolFull, SpoolUnavailable)


class Rooms(Protocol):
    """What the scheduler lets its `Together` see and do."""

    @property
    def plan(self) -> Plan:
        """The rules in force."""

    def ways(self) -> Iterable[Way]:
        """The ways of all routes with mail since the start."""

    def know(self, route: str) -> None:
        """Have a lane for a route of the rules, also without mail."""

    def look(self, way: Way) -> None:
        """Something changed for the mail that waits for a way."""


class Together:
    """The ears of one scheduler, and its mouth."""

    def __init__(self, cluster: Cluster, shares: Shares, clock: Clock, holds: Holds, rooms: Rooms) -> None:
        self._cluster = cluster
        self._shares = shares
        self._clock = clock
        self._holds = holds
        self._rooms = rooms
        self._silence = Silence(cluster, clock, holds, rooms.ways, rooms.look)
        self._alone = f"only relay {uuid4().hex[:12]}"
        self._keys: dict[Way, WayKey] = {}
        self._known: dict[Way, ClosedNow] = {}
        """What stands in the database for ways that are on hold here."""
        self._asking: set[Way] = set()
        """Ways of which an answer is under way that is newer than the next news."""
        self._left_to_others: set[Way] = set()
        self._had_turn: set[Way] = set()
        """Ways whose last probe was this relay's: the next is another's, where there is one."""
        self._contradicted: dict[Way, float] = {}
        """Ways on hold that worked for another relay, and when (unix seconds)."""
        self._to_open: dict[WayKey, bool] = {}
        self._news = News()
        self._tasks: set[Task[None]] = set()
        cluster.listen(self)

    # ---- what others say ---------------------------------------------------------------------------------------

    def news(self, news: News) -> None:
        """See `Ears.news`."""
        self._news = news
        for key, works in self._to_open.items():
            self._spawn(self._open(key, works=works))
        by_way: dict[tuple[str, str], list[ClosedNow]] = {}
        for row in news.closed:
            by_way.setdefault((row.closed.key.route, row.closed.key.upstream), []).append(row)
        for route in {route for route, _ in by_way}:
            if route in self._rooms.plan.routes:
                self._rooms.know(route)
        for way in tuple(self._rooms.ways()):
            rows = by_way.get((way.route, way.name), [])
            if (rows or way.held) and way not in self._asking:
                self._compare(way, rows)
        self._silence.news(news.silent)

    def wanted(self, limit: str, part: int) -> None:
        """See `Ears.wanted`."""
        self._shares.wanted(limit, part)

    def freed(self, limit: str) -> None:
        """See `Ears.freed`."""
        self._shares.freed(limit)

    def works(self, key: WayKey) -> None:
        """See `Ears.works`."""
        now = self._clock.now()
        self._contradicted |= {way: now for way, known in self._keys.items() if known == key}

    def reborn(self) -> None:
        """See `Ears.reborn`. What it holds is said again at the next news."""
        self._shares.reborn()
        self._known.clear()
        self._silence.reborn()

    def elsewhere(self) -> tuple[HeldWay, ...]:
        """The ways that other relays hold and this one does not: its rules or secrets are others."""
        mine = {self._keys[way] for way in self._rooms.ways() if way.held and way in self._keys}
        return tuple(held_way(row.closed) for row in self._news.closed if row.closed.key not in mine)

    # ---- what this relay finds out -----------------------------------------------------------------------------

    def proof_of(self, way: Way, changed: Callable[[], None]) -> Share | None:
        """What a way needs before its first mail: one relay at a time tries a login that may be wrong."""
        if not self._has_login(way):
            return None
        limit = trial_of(way.route, way.name)
        return self._shares.add(limit, 1, partial(self._attempt, way, limit), changed)

    def found(self, way: Way, mail: Leased) -> None:
        """A mail put a way on hold."""
        self._asking.add(way)
        self._spawn(self._close(way, mail))

    def opened(self, way: Way, works: bool) -> None:
        """A way is open again: by a probe of this relay (`works`), or by its people."""
        row = self._known.pop(way, None)
        if row is not None:
            self._to_open[row.closed.key] = works
            self._spawn(self._open(row.closed.key, works=works))
        if self._is_alone(way):
            del self._keys[way]

    def probed(self, way: Way, failures: int, next_probe: float) -> None:
        """A probe failed. The next is another relay's: what is wrong may be this one's address or network."""
        row = self._known.get(way)
        if row is not None:
            self._cluster.probed(row.closed.key, failures, next_probe)
            if not row.closed.alone:
                self._had_turn.add(way)
                self._cluster.leave(row.closed.key)

    def forget(self, way: Way) -> None:
        """New rules took a way away."""
        row, key = self._known.pop(way, None), self._keys.pop(way, None)
        self._contradicted.pop(way, None)
        for ways in (self._left_to_others, self._had_turn):
            ways.discard(way)
        if row is not None and row.mine and key is not None:
            self._cluster.leave(key)

    def silent(self, way: Way) -> bool:
        """Nobody answers where a way leads. Whether other relays said so before."""
        return self._silence.found(way)

    def still_silent(self, way: Way) -> None:
        """Nor does anybody answer a probe there."""
        self._silence.asked(way)

    def reached(self, way: Way) -> None:
        """Somebody answered there."""
        self._silence.reached(way)

    async def stop(self) -> None:
        """Say what there is to say, and ask nothing more."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_WORDS)
        for task in (*self._tasks, *self._silence.tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._silence.tasks, return_exceptions=True)

    # ---- inside ------------------------------------------------------------------------------------------------

    def _compare(self, way: Way, rows: Iterable[ClosedNow]) -> None:
        """Hold or open a way as the others do."""
        key = self._keys.get(way)
        if key is None:
            self._asking.add(way)
            self._spawn(self._compare_later(way))
            return
        row = next((row for row in rows if row.closed.key == key), None)
        if key in self._to_open:
            return
        if row is not None and way.held is None:
            self._hold(way, row)
        elif row is not None:
            self._follow(way, row)
        elif self._known.pop(way, None) is not None:
            self._holds.release(way, "another relay found that it works, or an order of people opened it")
        elif way.held is not None:
            self._asking.add(way)
            self._spawn(self._say(way))

    async def _compare_later(self, way: Way) -> None:
        try:
            await self._key(way)
        except _AWAY:
            return  # the next news ask again
        finally:
            self._asking.discard(way)
        rows = [row for row in self._news.closed if (row.closed.key.route, row.closed.key.upstream) == _name(way)]
        if not way.gone:
            self._compare(way, rows)

    def _hold(self, way: Way, row: ClosedNow) -> None:
        """Another relay found that a way does not work: that is enough."""
        closed = row.closed
        way.held, way.proven, way.failures = Hold(closed.outcome, closed.since), False, closed.failures
        emit(
            _log,
            "held_by_another",
            route=way.route,
            upstream=way.name,
            node=closed.found_by,
            reply=closed.outcome.reply,
            next=max(0.0, closed.next_probe - self._clock.now()),
        )
        self._follow(way, row)
        self._rooms.look(way)

    def _follow(self, way: Way, row: ClosedNow) -> None:
        """See to it that one relay probes."""
        self._known[way] = row
        if row.mine:
            self._holds.probe(way, row.closed.failures - 1, row.closed.next_probe)
        else:
            self._holds.leave_probing(way, row.closed.failures, row.closed.next_probe)
        if not row.nobody:
            self._left_to_others.discard(way)
            if not row.mine:
                self._had_turn.discard(way)
        elif way in self._left_to_others or (way.endpoint.since is None and way not in self._had_turn):
            self._asking.add(way)
            self._spawn(self._adopt(way, row))
        else:
            self._left_to_others.add(way)  # the others first; the news after these may find it with nobody still

    async def _adopt(self, way: Way, row: ClosedNow) -> None:
        key = row.closed.key
        try:
            adopted = await self._cluster.adopt(key)
        except _AWAY:
            adopted = False  # the next news ask again
        finally:
            self._asking.discard(way)
        if adopted and way.held is not None and not way.gone:
            if way not in self._had_turn:
                emit(_log, "probes_taken_over", route=way.route, upstream=way.name)
            self._had_turn.discard(way)
            self._follow(way, replace(row, mine=True, nobody=False))

    async def _close(self, way: Way, mail: Leased) -> None:
        """Put a way on hold for all, before the next relay tries it."""
        held = way.held
        row = None
        try:
            if held is not None:
                row = await self._tell(way, held)
        except _AWAY:
            pass  # each relay for itself, until the next news
        finally:
            self._asking.discard(way)
            way.proved()
        if held is None or way.held is not held or way.gone:
            if row is not None and row.mine:
                await self._open(row.closed.key, works=False)  # new rules or people were faster
            return
        if row is None or row.mine:
            self._holds.hold(way, mail)
        if row is not None:
            if not row.mine:
                way.held = None
                self._hold(way, row)
            else:
                self._known[way] = row

    async def _say(self, way: Way) -> None:
        """Say of a way on hold what the database does not know: it was away, or took this relay for dead."""
        try:
            held = way.held
            row = await self._tell(way, held) if held is not None else None
        except _AWAY:
            row = None
        finally:
            self._asking.discard(way)
        if row is not None and way.held is not None and not way.gone:
            self._follow(way, row)

    async def _tell(self, way: Way, held: Hold) -> ClosedNow:
        key = await self._key(way)
        works_elsewhere = self._clock.now() - self._contradicted.pop(way, -inf) < PROBE_WAITS[-1]
        if works_elsewhere and way.failures > 1:  # and nothing was sent here since
            key = self._keys[way] = replace(key, settings=self._alone)
        next_probe = self._holds.next_probe(way)
        if next_probe is None:
            next_probe = self._clock.now() + probe_wait(way.failures - 1, held.outcome.wait, PROBE_WAITS)
        alone = self._is_alone(way)
        return await self._cluster.close(Closed(key, held.since, held.outcome, way.failures, next_probe, alone))

    async def _open(self, key: WayKey, *, works: bool) -> None:
        try:
            await self._cluster.open(key, works=works)
        except _AWAY:
            return  # with the next news
        self._to_open.pop(key, None)

    async def _attempt(self, way: Way, limit: str, _wanted: int) -> int:
        """Ask to be the one who tries a way. Whoever tried it before may have found out enough."""
        started = self._clock.now()
        mine, rows = await self._cluster.attempt(way.route, way.name)
        if way.proof is not None:
            way.proof.lasts_until = started + TRIAL_LASTS
        if rows and not way.gone:
            key = await self._key(way)
            row = next((row for row in rows if row.closed.key == key and key not in self._to_open), None)
            if row is not None:
                if mine:
                    self._cluster.give_back(limit, 1)
                if way.held is None and way not in self._asking:
                    self._hold(way, row)
                return 0
        return int(mine)

    async def _key(self, way: Way) -> WayKey:
        """The way as all relays know it."""
        key = self._keys.get(way)
        if key is None:
            settings = self._alone
            route, rule = self._rooms.plan.routes.get(way.route), self._rooms.plan.rules.get(way.name)
            if route is not None and rule is not None and has_secret(rule.settings):
                salt = await self._cluster.salt()
                settings = await asyncio.to_thread(fingerprint, route.settings, rule, salt)
            key = self._keys[way] = WayKey(way.route, way.name, settings)
            if way.gone:
                del self._keys[way]
        return key

    def _has_login(self, way: Way) -> bool:
        rule = self._rooms.plan.rules.get(way.name)
        return rule is not None and has_secret(rule.settings)

    def _is_alone(self, way: Way) -> bool:
        key = self._keys.get(way)
        return key is not None and key.settings == self._alone

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _name(way: Way) -> tuple[str, str]:
    return way.route, way.name
