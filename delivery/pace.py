"""How much may be sent now, by a route or on an account: sliding windows over what was sent before. Pure.

Must never let more into any window than its limit, whenever the other side counts a send: it is counted from its start
until the window's length after its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from config.rules import Rate

_SLOTS: Final = 128
"""Sends that ended within this part of a window's length are remembered as one, at the time of the last."""

_KEPT_FREE: Final = 10
"""Where routes share an account, one part in so many is left for those that have not had an equal share."""

_ALERT_AT: Final = 0.8
"""The part of a day's limit at which people are told."""

_MOST_AHEAD: Final = 32
_AHEAD_PART: Final = 20
"""No more sends are noted ahead than so many, and one part in so many of each limit."""

DAY: Final = 86400.0


class Window:
    """What was sent in the last `length` seconds, in mails or in recipients."""

    __slots__ = ("_ended", "_ended_sum", "_open", "length")

    def __init__(self, length: float) -> None:
        self.length = length
        self._open = 0
        self._ended: deque[tuple[float, float, int]] = deque()
        """First end, last end and units of a slot."""
        self._ended_sum = 0

    def used(self, now: float) -> int:
        """Units that count now."""
        while self._ended and self._ended[0][1] + self.length <= now:
            self._ended_sum -= self._ended.popleft()[2]
        return self._open + self._ended_sum

    def free_at(self, units: int, limit: int, now: float) -> float:
        """When `units` more fit under `limit`, if nothing else is sent: `now`, later, or `inf` while that hangs on
        sends that have not ended. Monotone: never sooner for more units or a lower limit.
        """
        excess = self.used(now) + units - limit
        if excess <= 0:
            return now
        for _, last, ended in self._ended:
            excess -= ended
            if excess <= 0:
                return last + self.length
        return inf

    def begin(self, units: int) -> None:
        self._open += units

    def end_all(self, at: float) -> None:
        """As if all that is under way had ended."""
        self.end(self._open, at, True)

    def shift(self, seconds: float) -> None:
        """Move all times."""
        self._ended = deque([(first + seconds, last + seconds, units) for first, last, units in self._ended])

    def end(self, units: int, at: float, counted: bool) -> None:
        """A send ended; one that is not `counted` said nothing to the other side."""
        self._open -= units
        if not counted:
            return
        self._ended_sum += units
        if self._ended and at - self._ended[-1][0] < self.length / _SLOTS:
            first, last, before = self._ended.pop()
            self._ended.append((first, max(last, at), before + units))
        else:
            self._ended.append((at, at, units))


@dataclass(frozen=True, slots=True)
class Turn:
    """When a send may start (unix seconds; `inf`: not before another has ended).

    `first` is True when it is this route's turn on a shared account: the others have to wait for it.
    """

    at: float
    first: bool = False


class Meter:
    """What one route, or one account, may send and has sent. `sharers` is how many routes leave by the account; None
    for the meter of a route.

    Shared by several, a part of each limit is left for routes that have had less than an equal share of it: one
    customer's campaign cannot take the whole day from the others. A route never waits for nothing: with no use of its
    own it may go up to the limit itself.
    """

    __slots__ = ("_by_route", "_told_at", "_windows", "full_until", "name", "others_today", "rate", "sharers")

    def __init__(self, name: str, rate: Rate, sharers: int | None = None) -> None:
        self.name = name
        self.rate = rate
        self.sharers = sharers
        self.others_today = 0
        """Recipients of other relays on the same spool in the last 24 hours, as far as it was heard."""
        self.full_until = -inf
        """Until then other relays have used up what they share with this one."""
        self._told_at = -inf
        self._windows = _windows()
        self._by_route: dict[str, tuple[Window, ...]] = {}

    @property
    def limits(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Mails in a second and in a minute, recipients in an hour and in a day."""
        return _limits(self.rate)

    @property
    def largest(self) -> int | None:
        """Most recipients of one send that can ever fit; None for any number."""
        return min((limit for limit in (self.rate.per_hour, self.rate.per_day) if limit), default=None)

    @property
    def lasting(self) -> bool:
        """Whether what was sent must be known after a restart: for more than a second."""
        return self.rate != Rate(per_second=self.rate.per_second)

    def turn(self, route: str, recipients: int, now: float) -> Turn:
        """When `route` may send to so many `recipients` at once."""
        turn = Turn(max(now, self.full_until))
        own = self._by_route.get(route)
        for number, (window, limit) in enumerate(zip(self._windows, _limits(self.rate), strict=True)):
            if limit is None:
                continue
            units = recipients if _counts_recipients(window) else 1
            free_at, light_at = window.free_at(units, limit, now), now
            if own is not None and self.sharers is not None and self.sharers > 1:
                light_at = own[number].free_at(0, (limit - 1) // self.sharers, now)
            if light_at > now:  # it has had its share: what is kept free is not for it
                free_at = min(max(free_at, light_at), window.free_at(units, limit - max(1, limit // _KEPT_FREE), now))
            if free_at > turn.at:
                turn = Turn(free_at, self.sharers is not None and light_at <= now)
        return turn

    def begin(self, route: str, recipients: int) -> None:
        for window in self._touched(route):
            window.begin(recipients if _counts_recipients(window) else 1)

    def end(self, route: str, recipients: int, at: float, counted: bool) -> None:
        for window in self._touched(route):
            window.end(recipients if _counts_recipients(window) else 1, at, counted)

    def count(self, mails: int, recipients: int, at: float, route: str | None = None) -> None:
        """Count what was sent by then, of any route or of one."""
        for window in self._windows if route is None else self._touched(route):
            units = recipients if _counts_recipients(window) else mails
            window.begin(units)
            window.end(units, at, True)

    def end_all(self, at: float) -> None:
        """As if all that is under way had ended: for a look ahead."""
        for window in self._all():
            window.end_all(at)

    def shift(self, seconds: float) -> None:
        """The clock was set: what was sent is as long ago as before."""
        self.full_until += seconds
        self._told_at += seconds
        for window in self._all():
            window.shift(seconds)

    def room(self, route: str, recipients: int, now: float) -> int:
        """How many mails to so many recipients each `route` may send now before it is another's turn; 0 for none."""
        if self.turn(route, recipients, now).at > now:
            return 0
        rooms = [1_000_000]
        for number, (window, limit) in enumerate(zip(self._windows, _limits(self.rate), strict=True)):
            if limit is not None:
                units = recipients if _counts_recipients(window) else 1
                share = limit if self.sharers is None else limit // (_KEPT_FREE * self.sharers)
                own = self._by_route[route][number].used(now) if route in self._by_route else 0
                kept = limit // _KEPT_FREE if self.sharers and self.sharers > 1 and own else 0
                rooms.append(min(max(1, share), limit - kept - window.used(now)) // units)
        return max(1, min(rooms))

    def ahead(self, recipients: int, now: float) -> int:
        """How many more sends to so many recipients may be noted before they come: no more than came in the last
        second beside this one, for after a crash they count as sent.
        """
        most = min(self._windows[0].used(now) - 1, _MOST_AHEAD)
        for window, limit in zip(self._windows, _limits(self.rate), strict=True):
            if limit is not None:
                most = min(most, limit // (_AHEAD_PART * (recipients if _counts_recipients(window) else 1)))
        return max(0, most)

    def used_today(self, now: float) -> int:
        """Recipients of the last 24 hours, of all relays."""
        return self._windows[-1].used(now) + self.others_today

    def hear(self, today: int, now: float) -> None:
        """So many recipients went out in the last 24 hours, by whichever relay."""
        self.others_today = max(0, today - self._windows[-1].used(now))

    def used_lately(self, now: float) -> int:
        """Recipients of the last hour."""
        return self._windows[-2].used(now)

    def news(self, now: float, foreseen: bool = False) -> bool:
        """True when the day's limit is near, or foreseen to be reached, and nobody was told in the last 24 hours."""
        limit = self.rate.per_day
        if limit is None or now - self._told_at < DAY or not (foreseen or self.used_today(now) >= limit * _ALERT_AT):
            return False
        self._told_at = now
        return True

    def _all(self) -> Iterable[Window]:
        return (*self._windows, *[window for own in self._by_route.values() for window in own])

    def _touched(self, route: str) -> Iterable[Window]:
        if self.sharers is None:
            return self._windows
        return (*self._windows, *self._by_route.setdefault(route, _windows()))


def tightest(rates: Iterable[Rate]) -> Rate:
    """The lowest of each limit."""
    rows = list(zip(*(_limits(rate) for rate in rates), strict=True))
    second, minute, hour, day = (min((limit for limit in row if limit is not None), default=None) for row in rows)
    return Rate(per_second=second, per_minute=minute, per_hour=hour, per_day=day)


def over(own: Rate, known: Rate) -> Rate:
    """What ops wrote, and where they wrote nothing what is known of the provider."""
    pairs = zip(_limits(own), _limits(known), strict=True)
    second, minute, hour, day = (known if own is None else own for own, known in pairs)
    return Rate(per_second=second, per_minute=minute, per_hour=hour, per_day=day)


def _windows() -> tuple[Window, ...]:
    return Window(1.0), Window(60.0), Window(3600.0), Window(DAY)


def _limits(rate: Rate) -> tuple[int | None, int | None, int | None, int | None]:
    return rate.per_second, rate.per_minute, rate.per_hour, rate.per_day


def _counts_recipients(window: Window) -> bool:
    return window.length >= 3600.0
