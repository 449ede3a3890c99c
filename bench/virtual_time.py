"""An event loop whose time jumps to the next timer, so that a day of delivery takes a minute.

It must never jump while the spool's thread still works: what that answers belongs to the present.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

START = 1_700_006_400.0
"""Midnight: where the virtual clock begins, in unix seconds."""


class _Jumping(selectors.DefaultSelector):
    """Waits for what is under way outside the loop, and for nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.jump: Callable[[float], bool] = lambda _: False
        self.real: Callable[[], bool] = lambda: True

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None and self.jump(timeout):
            return []
        return super().select(timeout if self.real() else None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`fence(done)` makes the outside call `done` on the loop after all that it was asked before; whoever asks it
    anything sets `asked`. Without a fence time is real.
    """

    def __init__(self) -> None:
        self._at = 0.0
        self._jumping = _Jumping()
        self._fences = 0
        self.fence: Callable[[Callable[[], None]], None] | None = None
        self.asked = True
        super().__init__(self._jumping)
        self._jumping.jump = self._jump
        self._jumping.real = lambda: self.fence is None

    def time(self) -> float:
        return self._at if self.fence is not None else super().time()

    def _jump(self, seconds: float) -> bool:
        if self.fence is None:
            return False
        if self.asked:
            self.asked = False
            self._fences += 1
            self.fence(self._passed)
        if self._fences:
            return False
        self._at += seconds
        return True

    def _passed(self) -> None:
        self._fences -= 1


class VirtualClock:
    """The delivery room's clock on a virtual loop."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return START + self._loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(max(when - START, self._loop.time()), callback)
