"""A progress bar for long work: how much is done, how fast, how long yet. On a terminal only, on standard error.

Must never get into what a script reads, and never slow the work down: it is drawn ten times a second at most.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from ops.terminal import is_terminal, paint_for

_EVERY: Final = 0.1
_BAR: Final = 24
_SETTLED_AFTER: Final = 0.5
"""Seconds of work before a rate means anything."""


class Progress:
    """`with Progress("dropped", 1000) as progress: progress.to(10)`. Draws nothing where nobody looks.

    `total` 0 means that it is not known. `clock` is in seconds.
    """

    def __init__(
        self, what: str, total: int = 0, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self.total = total
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._drawn_at = -_EVERY
        self._paint = paint_for(self._stream)
        self._shown = is_terminal(self._stream)
        self._drawn = False

    @property
    def shown(self) -> bool:
        """True when it draws."""
        return self._shown

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away: what comes after tells the result."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def to(self, done: int) -> None:
        """So much is done by now."""
        now = self._clock()
        if not self._shown or now - self._drawn_at < _EVERY:
            return
        self._drawn_at, self._drawn = now, True
        text = progress_line(self._what, done, self.total, now - self._began)
        columns = shutil.get_terminal_size().columns
        self._stream.write(f"\r{self._paint(text[: columns - 1], 'cyan')}\x1b[K")
        self._stream.flush()


def progress_line(what: str, done: int, total: int, seconds: float) -> str:
    """`[######------]  5,000 of 20,000 dropped, 2,500/s, 6s left`."""
    rate = done / seconds if seconds >= _SETTLED_AFTER else 0.0
    told = [f"{done:,} of {total:,} {what}" if total else f"{done:,} {what}"]
    if rate >= 1:
        told.append(f"{rate:,.0f}/s")
    if rate > 0 and done < total:
        told.append(f"{_time((total - done) / rate)} left")
    if not total:
        return ", ".join(told)
    filled = min(_BAR, _BAR * done // total)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]  {', '.join(told)}"


def _time(seconds: float) -> str:
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m {rest}s" if minutes < 60 else f"{minutes // 60}h {minutes % 60}m"
