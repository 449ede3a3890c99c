"""Bar charts as SVG, made here so that they need no script. Pure: numbers in, numbers out, and the template draws.

Colours come from the style sheet by class, so that they follow dark and light.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

Period = Literal["hour", "day", "month"]
PERIODS: Final[tuple[Period, ...]] = ("hour", "day", "month")

WIDTH: Final = 720
HEIGHT: Final = 160
_GAP: Final = 0.25
"""The part of a bar's place that stays empty."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One stretch of time: `delivered` stands at the bottom, `failed` above it, `accepted` is a line across. All are
    in the units of the picture, `y` from the top. `label` is for the axis, "" for none; `name` is for people.
    """

    x: float
    width: float
    delivered: tuple[float, float]
    failed: tuple[float, float]
    accepted: float
    counts: tuple[int, int, int]
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of `width` by `height`; `top` is what its full height stands for."""

    bars: tuple[Bar, ...]
    width: float
    height: float
    top: int


def edges(period: Period, now: float) -> tuple[float, ...]:
    """Where the bars of a period begin, and the end of the last: 12 of five minutes, 24 of an hour, 31 days of this
    machine's calendar (so a day that changes the clock has 23 or 25 hours).
    """
    if period == "month":
        today = datetime.fromtimestamp(now).astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        days = [(today + timedelta(days=day)).date() for day in range(-30, 2)]
        return tuple(time.mktime(day.timetuple()) for day in days)
    step, count = (300.0, 12) if period == "hour" else (3600.0, 24)
    end = (now // step + 1) * step
    return tuple(end - step * left for left in range(count, -1, -1))


def chart(
    period: Period,
    starts: Sequence[float],
    rows: Sequence[tuple[int, int, int]],
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Chart:
    """Bars for (accepted, delivered, failed) in each stretch that begins at `starts`."""
    top = _round_up(max([max(accepted, delivered + failed) for accepted, delivered, failed in rows], default=0))
    place = width / max(1, len(rows))
    bars = []
    for number, (start, counts) in enumerate(zip(starts, rows, strict=True)):
        accepted, delivered, failed = (count * height / top for count in counts)
        bars.append(
            Bar(
                x=round(number * place + place * _GAP / 2, 2),
                width=round(place * (1 - _GAP), 2),
                delivered=(round(height - delivered, 2), round(delivered, 2)),
                failed=(round(height - delivered - failed, 2), round(failed, 2)),
                accepted=round(max(1.0, height - accepted - 1.5), 2),
                counts=counts,
                name=_name(period, start),
                label=_label(period, start, number),
            )
        )
    return Chart(tuple(bars), width, height, top)


@dataclass(frozen=True, slots=True)
class Spark:
    """A chart without words, as one path of SVG for each of the three."""

    delivered: str
    failed: str
    accepted: str
    width: float
    height: float


def spark(rows: Sequence[tuple[int, int, int]], width: float = 180, height: float = 28) -> Spark:
    """Bars for (accepted, delivered, failed): small, and many on a page."""
    top = max([max(accepted, delivered + failed) for accepted, delivered, failed in rows], default=0) or 1
    place = width / max(1, len(rows))
    wide = round(place * (1 - _GAP), 1)
    paths: tuple[list[str], ...] = ([], [], [])
    for number, counts in enumerate(rows):
        x, (accepted, delivered, failed) = round(number * place, 1), (round(c * height / top, 1) for c in counts)
        if delivered:
            paths[0].append(f"M{x} {height}h{wide}v-{delivered}h-{wide}z")
        if failed:
            paths[1].append(f"M{x} {round(height - delivered, 1)}h{wide}v-{failed}h-{wide}z")
        if accepted:
            paths[2].append(f"M{x} {round(height - accepted - 1, 1)}h{wide}")
    delivered_path, failed_path, accepted_path = ("".join(path) for path in paths)
    return Spark(delivered_path, failed_path, accepted_path, width, height)


def _round_up(most: int) -> int:
    """The next of 1, 2, 3, 4, 5, 6, 8, 10, 20 ...: a height that reads well."""
    step = 1
    while True:
        for factor in (1, 2, 3, 4, 5, 6, 8):
            if most <= step * factor:
                return step * factor
        step *= 10


def _name(period: Period, start: float) -> str:
    return time.strftime("%Y-%m-%d" if period == "month" else "%Y-%m-%d %H:%M", time.localtime(start))


def _label(period: Period, start: float, number: int) -> str:
    every = {"hour": 3, "day": 4, "month": 5}[period]
    if number % every:
        return ""
    return time.strftime("%d-%m" if period == "month" else "%H:%M", time.localtime(start))
