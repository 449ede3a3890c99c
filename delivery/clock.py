"""The time and the timers of the delivery room, so that a test can hold them.

The event loop keeps the one heap of timers; nothing in this room sleeps or polls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

SLEWED: Final = 5.0
"""Seconds by which a clock may be corrected before it counts as set."""


class Timer(Protocol):
    """A call that has not been made yet."""

    def cancel(self) -> None:
        """Do not make the call. Harmless when it was made already."""


class Clock(Protocol):
    """Unix seconds, and calls at a time."""

    def now(self) -> float:
        """Unix seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back on the loop at `when` (unix seconds), or as soon as possible when that is over."""


class WallClock:
    """The machine's clock and the running event loop."""

    def now(self) -> float:
        return time.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, when - time.time()), callback)


class StepWatch:
    """Notices that the machine's clock was set: what is timed by it would wait as long again, or too short.

    `wall` gives unix seconds, `steady` seconds that nobody sets, and that go on while the machine sleeps.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] | None = None) -> None:
        self._wall = wall
        self._steady = steady or (lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
        self._apart = wall() - self._steady()

    def look(self) -> float:
        """How many seconds the clock was set forward since the last look, negative when back; 0 when it was not, or
        only slewed.
        """
        before, self._apart = self._apart, self._wall() - self._steady()
        step = self._apart - before
        return step if abs(step) > SLEWED else 0.0
