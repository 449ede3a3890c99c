"""The meters of all routes and accounts that have a limit, and the note on disk of what is sent by them.

A send that counts for longer than a second is written down before it is made, in a stream of mail some ahead: after a
crash too much is counted, never too little. The windows themselves are in pace.py.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from config.rules import Rate, Route, UpstreamRule, users_of
from delivery.clock import Clock, Timer
from delivery.pace import DAY, Meter, over, tightest
from routing.events import emit
from spool.contract import SPENT_SLOT, Spool, SpoolFull, SpoolUnavailable, Toll
from spool.view import Spent
from upstreams.traits import traits_of

_log = logging.getLogger("delivery.pace")

_LONGEST_SEND: Final = SPENT_SLOT
"""Seconds after its start until which a send may be counted by the other side."""

_KEPT_AHEAD: Final = 1.0
"""Seconds without a send after which what was noted ahead is taken back."""

_LAST_WORDS: Final = 2.0
"""Seconds at a stop for taking it back."""


class Meters:
    """The meters that a set of rules asks for: `routes` by route name, `upstreams` by upstream name, where upstreams
    that send as the same account have the same one.
    """

    __slots__ = ("by_name", "routes", "upstreams")

    def __init__(
        self, upstreams: Mapping[str, UpstreamRule], routes: Iterable[Route], old: Meters | None = None
    ) -> None:
        known = old.by_name if old else {}
        self.by_name: dict[str, Meter] = {}
        self.upstreams: dict[str, Meter] = {}
        self.routes: dict[str, Meter] = {}
        accounts: dict[str, list[UpstreamRule]] = {}
        for upstream in upstreams.values():
            accounts.setdefault(account_of(upstream), []).append(upstream)
        routes = tuple(routes)
        users = users_of(routes)
        for name, members in accounts.items():
            rate, ours = tightest(rate_of(upstream) for upstream in members), {member.name for member in members}
            if rate != Rate():
                sharers = len({user for member in ours for user in users.get(member, ())})
                self.upstreams.update(dict.fromkeys(ours, self._meter(name, rate, sharers, known)))
        for route in routes:
            pace = route.settings.pace
            if pace is not None and (rate := over(pace, Rate())) != Rate():
                self.routes[route.name] = self._meter(f"route {route.name}", rate, None, known)

    def _meter(self, name: str, rate: Rate, sharers: int | None, known: dict[str, Meter]) -> Meter:
        """The meter of that name; one that was there before keeps what it has counted."""
        meter = known.get(name) or Meter(name, rate, sharers)
        meter.rate, meter.sharers = rate, sharers
        self.by_name[name] = meter
        return meter

    def restore(self, spent: Sequence[Spent], now: float) -> None:
        """Count what was sent before the start, as late as it may have been."""
        for one in spent:
            meter = self.by_name.get(one.account)
            if meter is not None:
                meter.count(one.mails, one.recipients, min(now, one.at + _LONGEST_SEND))
        for meter in self.by_name.values():
            if meter.rate.per_second and not meter.lasting:
                meter.count(meter.rate.per_second, 0, now)


def account_of(upstream: UpstreamRule) -> str:
    """The name of the account that an upstream sends as: the provider's, or its own."""
    return traits_of(upstream.settings).account or f"upstream {upstream.name}"


def rate_of(upstream: UpstreamRule) -> Rate:
    """What ops allow it, and for what they left out, what the provider is known to allow."""
    return over(upstream.pace, traits_of(upstream.settings).rate)


class Fare:
    """One send in the windows of its route and its account, from its making until `end`."""

    __slots__ = ("ended", "meters", "noted", "recipients", "route", "started_at", "tickets")

    def __init__(self, meters: tuple[Meter, ...], route: str, recipients: int, now: float) -> None:
        self.meters = meters
        self.route = route
        self.recipients = recipients
        self.started_at = now
        self.ended = False
        self.noted = False
        self.tickets: tuple[int, ...] = ()
        for meter in meters:
            meter.begin(route, recipients)

    def spent(self, sign: int = 1) -> list[Spent]:
        """What to write down before the send; with -1, to take back."""
        lasting = [meter.name for meter in self.meters if meter.lasting]
        return [Spent(name, self.started_at, sign, sign * self.recipients) for name in lasting]

    def end(self, now: float, counted: bool) -> list[Spent]:
        """It is over. Returns what to take back on disk when it is not `counted` after all."""
        if self.ended:
            return []
        self.ended = True
        for meter in self.meters:
            meter.end(self.route, self.recipients, now, counted)
        return self.spent(-1) if self.noted and not counted else []


class Ledger:
    """Writes to the spool what is sent: all that waits in one commit, and in a stream of mail some more for those that
    come next, so that they need not wait for the disk.
    """

    __slots__ = ("_ahead", "_clock", "_count", "_lock", "_spool", "_task", "_timer", "_used_at", "_waiting", "_written")

    def __init__(self, spool: Spool, clock: Clock) -> None:
        self._spool = spool
        self._clock = clock
        self._lock = asyncio.Lock()
        self._waiting: list[Spent] = []
        self._count = self._written = 0
        self._ahead: dict[str, Spent] = {}
        """By account what is on disk for sends that have not come."""
        self._used_at = 0.0
        self._timer: Timer | None = None
        self._task: Task[None] | None = None

    async def load(self, meters: Meters) -> None:
        """Fill the meters at the start."""
        now = self._clock.now()
        if meters.by_name:
            meters.restore(await self._spool.spent(now - DAY - SPENT_SLOT - _LONGEST_SEND), now)

    async def learn(self, meters: Meters) -> None:
        """What other relays on the spool sent today, for what is told of it; room is asked for before each send anyway.

        Raises SpoolUnavailable.
        """
        now, today = self._clock.now(), Counter[str]()
        for one in await self._spool.spent(now - DAY):
            today[one.account] += one.recipients
        for name, meter in meters.by_name.items():
            meter.hear(today[name], now)

    async def close(self) -> None:
        """Take back what was noted for sends that do not come any more. Where that fails, too much is counted."""
        if self._timer is not None:
            self._timer.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._take_back_all(), _LAST_WORDS)

    async def write(self, fare: Fare) -> bool:
        """Returns when the send is counted on disk; False when other relays have used up the room. Raises SpoolFull or
        SpoolUnavailable. But for True it must not be made.
        """
        now = self._clock.now()
        room = await self._spool.admit([Toll(one.name, one.limits, fare.recipients) for one in fare.meters])
        if isinstance(room, float):
            for meter in fare.meters:
                meter.full_until = now + room
            return False
        fare.tickets = room
        for meter in fare.meters:
            if meter.news(now):
                tell_near(meter, now)
        mine = fare.spent()
        if mine and not self._use(mine):
            await self._note(fare, mine)
        self._used_at = now
        fare.noted = True
        return True

    def _use(self, mine: Sequence[Spent]) -> bool:
        """Let these be of those that were noted ahead, if there are enough for all of them."""
        left = []
        for one in mine:
            noted = self._ahead.get(one.account)
            if noted is None or not _one_slot(noted, one) or not noted.mails or noted.recipients < one.recipients:
                return False
            left.append(replace(noted, mails=noted.mails - 1, recipients=noted.recipients - one.recipients))
        self._ahead |= {one.account: one for one in left}
        return True

    async def _note(self, fare: Fare, mine: Sequence[Spent]) -> None:
        self._waiting += mine
        self._count += 1
        number = self._count
        async with self._lock:
            if self._written >= number:
                return  # it was in another's commit
            if self._use(mine):
                self._waiting = _without(self._waiting, mine)
                return
            await self._flush(mine, [*self._more(fare, self._clock.now())])

    def _more(self, fare: Fare, now: float) -> Iterator[Spent]:
        """What to note ahead for sends like this one."""
        for meter in fare.meters:
            noted = self._ahead.get(meter.name)
            wanted = meter.ahead(fare.recipients, now)
            more = Spent(meter.name, now, wanted, wanted * fare.recipients)
            if noted and _one_slot(noted, more):
                more = replace(more, mails=wanted - noted.mails, recipients=(wanted - noted.mails) * fare.recipients)
            if meter.lasting and more.mails > 0:
                yield more

    async def _flush(self, mine: Sequence[Spent] = (), more: Sequence[Spent] = ()) -> None:
        batch, upto, self._waiting = [*self._waiting, *more], self._count, []
        try:
            await self._spool.spend(batch)
        except BaseException:
            # It may be on disk all the same: what is taken back must not be taken back twice.
            self._waiting = [one for one in _without(batch, [*mine, *more]) if one.mails > 0] + self._waiting
            raise
        self._written = upto
        for one in more:
            self._keep_ahead(one)

    def _keep_ahead(self, more: Spent) -> None:
        before = self._ahead.get(more.account)
        if before and _one_slot(before, more):
            more = replace(more, mails=before.mails + more.mails, recipients=before.recipients + more.recipients)
        elif before:
            self._waiting.append(_negative(before))
        self._ahead[more.account] = more
        if self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + _KEPT_AHEAD, self._rang)

    def _rang(self) -> None:
        until, self._timer = self._used_at + _KEPT_AHEAD, None
        if self._clock.now() < until:
            self._timer = self._clock.call_at(until, self._rang)
        else:
            self._task = asyncio.get_running_loop().create_task(self._take_back_all())

    async def _take_back_all(self) -> None:
        async with self._lock:
            ahead, self._ahead = self._ahead, {}
            self._waiting += [_negative(one) for one in ahead.values() if one.mails or one.recipients]
            if self._waiting:
                with suppress(SpoolFull, SpoolUnavailable):
                    await self._flush()

    def end(self, fare: Fare, counted: bool) -> None:
        """A send is over; what it turned out not to count goes with the next that is written."""
        if fare.ended or not fare.meters:
            fare.ended = True
            return
        if fare.tickets:
            self._spool.passed(fare.tickets, counted=counted)
        self._waiting += fare.end(self._clock.now(), counted)


def _one_slot(one: Spent, other: Spent) -> bool:
    """Whether the spool keeps them as one."""
    return one.at // SPENT_SLOT == other.at // SPENT_SLOT


def _negative(one: Spent) -> Spent:
    return replace(one, mails=-one.mails, recipients=-one.recipients)


def _without(spent: Iterable[Spent], these: Sequence[Spent]) -> list[Spent]:
    return [one for one in spent if not any(one is other for other in these)]


def tell_near(meter: Meter, now: float, full_in: float | None = None) -> None:
    """An account comes near its day's limit: for ops to hear of before mail waits. `full_in` is in seconds."""
    used, limit = meter.used_today(now), meter.rate.per_day
    emit(_log, "quota_near", logging.WARNING, account=meter.name, recipients=used, per_day=limit, full_in=full_in)
