"""Counts that rooms keep for people to read: spread over steps of time, and by customer. Pure, and cheap at every mail.

What a mail brings along must never make a count grow without bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

OTHERS: Final = "*"
"""The customer that stands for all that came when there were too many to tell apart."""


class Spread:
    """How often, and how long: `counts` are those up to each of `limits` (seconds), and the last those beyond."""

    __slots__ = ("counts", "limits", "total")

    def __init__(self, limits: tuple[float, ...]) -> None:
        self.limits = limits
        self.counts = [0] * (len(limits) + 1)
        self.total = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(self.limits, seconds)] += times
        self.total += seconds * times


class ByCustomer:
    """Rows of `width` counts by (route, customer), at most `most` of them until they are taken."""

    __slots__ = ("_most", "_rows", "_width")

    def __init__(self, width: int, most: int = 2000) -> None:
        self._width = width
        self._most = most
        self._rows: dict[tuple[str, str], list[int]] = {}

    def add(self, route: str, customer: str, counts: tuple[int, ...]) -> None:
        row = self._rows.get((route, customer))
        if row is None:
            key = (route, customer if len(self._rows) < self._most else OTHERS)
            row = self._rows.setdefault(key, [0] * self._width)
        for place, count in enumerate(counts):
            row[place] += count

    def take(self) -> Mapping[tuple[str, str], list[int]]:
        """All that was counted since the last time."""
        taken, self._rows = self._rows, {}
        return taken
