"""The meters of all routes and accounts that have a limit, and the note on disk of what is sent by them.

A send that counts for longer than a second is written down before it is made: after a crash too much is counted, never
too little. The windows themselves are in pace.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from config.rules import Rate, Route, UpstreamRule
from delivery.pace import DAY, Meter, over, tightest
from routing.events import emit
from spool.contract import SPENT_SLOT, Spool, Toll
from spool.view import Spent
from upstreams.traits import traits_of

_log = logging.getLogger("delivery.pace")

_LONGEST_SEND: Final = SPENT_SLOT
"""Seconds after its start until which a send may be counted by the other side."""


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
        for name, members in accounts.items():
            rate, ours = tightest(rate_of(upstream) for upstream in members), {member.name for member in members}
            sharers = sum(not ours.isdisjoint(route.settings.upstreams) for route in routes)
            if rate != Rate():
                self.upstreams |= dict.fromkeys(ours, self._meter(name, rate, sharers, known))
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
    """Writes to the spool what is sent: all that waits in one commit."""

    __slots__ = ("_count", "_lock", "_now", "_spool", "_waiting", "_written")

    def __init__(self, spool: Spool, now: Callable[[], float]) -> None:
        self._spool = spool
        self._now = now
        self._lock = asyncio.Lock()
        self._waiting: list[Spent] = []
        self._count = self._written = 0

    async def load(self, meters: Meters) -> None:
        """Fill the meters at the start."""
        now = self._now()
        if meters.by_name:
            meters.restore(await self._spool.spent(now - DAY - SPENT_SLOT - _LONGEST_SEND), now)

    async def write(self, fare: Fare) -> bool:
        """Returns when the send is counted on disk; False when other relays have used up the room. Raises SpoolFull or
        SpoolUnavailable. But for True it must not be made.
        """
        now = self._now()
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
        self._waiting += mine
        self._count += 1
        number = self._count
        async with self._lock:
            if mine and self._written < number:
                await self._flush(mine)
        fare.noted = True
        return True

    async def _flush(self, mine: Sequence[Spent]) -> None:
        batch, upto, self._waiting = self._waiting, self._count, []
        try:
            await self._spool.spend(batch)
        except BaseException:
            self._waiting = [one for one in batch if not any(one is my for my in mine)] + self._waiting
            raise
        self._written = upto

    def end(self, fare: Fare, counted: bool) -> None:
        """A send is over; what it turned out not to count goes with the next that is written."""
        if fare.ended or not fare.meters:
            fare.ended = True
            return
        if fare.tickets:
            self._spool.passed(fare.tickets, counted=counted)
        self.take_back(fare.end(self._now(), counted))

    def take_back(self, spent: Sequence[Spent]) -> None:
        """What was not sent after all goes with the next that is written."""
        self._waiting += spent


def tell_near(meter: Meter, now: float, full_in: float | None = None) -> None:
    """An account comes near its day's limit: for ops to hear of before mail waits. `full_in` is in seconds."""
    used, limit = meter.used_today(now), meter.rate.per_day
    emit(_log, "quota_near", logging.WARNING, account=meter.name, recipients=used, per_day=limit, full_in=full_in)
