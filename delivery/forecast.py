"""When queues will be empty and when a day's limit is reached, from what waits and what was sent. Pure.

It plays the meters forward on copies: nothing that delivery goes by is changed, and nothing is promised but pace. How
fast an upstream answers, outages and holds are not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from config.rules import Route
from delivery.accounts import Meters
from delivery.pace import DAY, Meter
from spool.view import Load

_AHEAD: Final = 60 * DAY
_STEP: Final = 600.0


@dataclass(frozen=True, slots=True)
class QueueForecast:
    """A route's mail that waits and when the last of it may have left by its pace (unix seconds; None: not in two
    months). `paced` is False when no pace makes it wait. Of `via`, the first upstream is counted with.
    """

    route: str
    upstream: str
    waiting: Load
    empty_at: float | None
    paced: bool


@dataclass(frozen=True, slots=True)
class QuotaForecast:
    """An account's (or route's) recipients in 24 hours: `used` now, the `limit`, and when it is reached if what waits
    leaves at its pace and the last hour goes on; None when it is not within a day.
    """

    account: str
    used: int
    limit: int
    full_at: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    queues: tuple[QueueForecast, ...]
    quotas: tuple[QuotaForecast, ...]


def forecast(meters: Meters, routes: Mapping[str, Route], loads: Mapping[str, Load], now: float) -> Forecast:
    """All queues with mail and all limits on a day. Routes that the rules do not have any more are left out."""
    played = deepcopy(meters)
    for meter in played.by_name.values():
        meter.end_all(now)
    full = {name: _at_this_rate(deepcopy(meter), now) for name, meter in played.by_name.items()}
    queues: list[QueueForecast] = []
    for group in _groups(played, routes, loads):
        played_group = _play(group, full, now)
        queues += [
            QueueForecast(one.route, one.upstream, loads[one.route], at, bool(one.meters))
            for one, at in zip(group, played_group, strict=True)
        ]
    quotas = [
        QuotaForecast(name, meter.used_today(now), meter.rate.per_day, full[name])
        for name, meter in meters.by_name.items()
        if meter.rate.per_day is not None
    ]
    return Forecast(tuple(queues), tuple(quotas))


class _Queue:
    """A route's backlog while it is played."""

    __slots__ = ("left", "meters", "recipients", "route", "upstream")

    def __init__(self, route: str, upstream: str, load: Load, meters: tuple[Meter, ...]) -> None:
        self.route = route
        self.upstream = upstream
        self.meters = meters
        self.left = load.mails
        each = max(1, ceil(load.recipients / max(1, load.mails)))
        self.recipients = min([each, *[meter.largest for meter in meters if meter.largest is not None]])

    def leave(self, now: float) -> bool:
        """Send what may leave now before it is another's turn. False when nothing may."""
        fits = min([self.left, *[meter.room(self.route, self.recipients, now) for meter in self.meters]])
        self.left -= fits
        if fits:
            for meter in self.meters:
                meter.count(fits, fits * self.recipients, now, self.route)
        return fits > 0

    def next_at(self, now: float) -> float:
        return max((meter.turn(self.route, self.recipients, now).at for meter in self.meters), default=now)


def _groups(meters: Meters, routes: Mapping[str, Route], loads: Mapping[str, Load]) -> Iterable[list[_Queue]]:
    """Queues that share an account take turns; all others are alone."""
    groups: dict[str, list[_Queue]] = {}
    for name, load in loads.items():
        if name in routes and load.mails:
            upstream = routes[name].settings.via[0]
            found = (meters.routes.get(name), meters.upstreams.get(upstream))
            queue = _Queue(name, upstream, load, tuple(meter for meter in found if meter is not None))
            account = meters.upstreams.get(upstream)
            groups.setdefault(account.name if account else f"route {name}", []).append(queue)
    return groups.values()


def _play(group: Sequence[_Queue], full: dict[str, float | None], now: float) -> list[float | None]:
    """When each queue of a group is empty; notes in `full` when a meter's day is used up."""
    empty: dict[str, float] = {}
    at = now
    while at <= now + _AHEAD:
        moved = [queue.leave(at) for queue in group if queue.left]
        empty |= {queue.route: at for queue in group if not queue.left and queue.route not in empty}
        waiting = [queue for queue in group if queue.left]
        if not waiting:
            break
        if not any(moved):
            _note_full(waiting, full, at, now)
            at = min(queue.next_at(at) for queue in waiting)
    return [empty.get(queue.route) for queue in group]


def _note_full(waiting: Iterable[_Queue], full: dict[str, float | None], at: float, now: float) -> None:
    """What waits for most of an hour waits for its day."""
    for queue in waiting:
        for meter in queue.meters:
            known = full.get(meter.name)
            if meter.rate.per_day and at <= now + DAY and at < (inf if known is None else known):
                wanted = meter.turn(queue.route, queue.recipients, at).at
                if meter.used_today(at) + queue.recipients > meter.rate.per_day * 0.9 and wanted > at + 60.0:
                    full[meter.name] = at


def _at_this_rate(meter: Meter, now: float) -> float | None:
    """When the day's limit is reached if as much is sent as in the last hour."""
    rate = meter.used_lately(now) / 3600.0
    if not rate or meter.rate.per_day is None:
        return None
    sent = 0.0
    for step in range(int(DAY / _STEP) + 1):
        at = now + step * _STEP
        if meter.used_today(at) + sent >= meter.rate.per_day:
            return at
        sent += rate * _STEP
    return None
