"""Tells systemd that the relay makes progress (WatchdogSec=, sd_watchdog_enabled(3)); else systemd restarts it.

Progress is that the event loop turns, that the spool's writer answers, and that due mail is tried. Must never tell so
while one of them does not, nor keep quiet because of a full or failing disk, which no restart mends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping

from ops import notify
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable

_log = logging.getLogger("relay")


def seconds_allowed(environment: Mapping[str, str]) -> float | None:
    """Within how many seconds systemd wants to hear of us each time; None when it does not ask."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdigit() or int(text) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6


class Watchdog:
    """`probe` makes the spool's writer commit something, `stuck` names the routes whose due mail nobody tries."""

    def __init__(
        self,
        allowed: float,
        probe: Callable[[], Awaitable[None]],
        stuck: Callable[[], Awaitable[tuple[str, ...]]],
        tell: Callable[[], None] = lambda: notify.notify(WATCHDOG="1"),
    ) -> None:
        self._every = allowed / 3
        self._probe = probe
        self._stuck = stuck
        self._tell = tell

    async def run(self) -> None:
        """Look three times in the time allowed, for ever."""
        while True:
            wrong = await self.look()
            if wrong is None:
                self._tell()
            else:
                emit(_log, "no_progress", logging.ERROR, why=f"{wrong}; systemd restarts the relay if this goes on")
            await asyncio.sleep(self._every)

    async def look(self) -> str | None:
        """What does not move; None when all does."""
        try:
            async with asyncio.timeout(self._every):
                await self._answer()
                stuck = await self._stuck()
        except TimeoutError:
            return f"the spool's writer did not answer within {self._every:.3g} seconds"
        except (SpoolFull, SpoolUnavailable):
            return None
        except Exception as error:
            return f"looking failed by a bug of ours ({type(error).__name__})"
        return f"due mail of {', '.join(stuck[:5])} is not tried, and nothing keeps it" if stuck else None

    async def _answer(self) -> None:
        try:
            await self._probe()
        except (SpoolFull, SpoolUnavailable):
            return  # an answer too
