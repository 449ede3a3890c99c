"""The time and the timers of the delivery room, so that a test can hold them.

The event loop keeps the one heap of timers; nothing in this room sleeps or polls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


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
