"""The look at the calendar inside `serve`: an event for each thing that comes 30, 14, 7 or 1 days near its end.

What was told is kept in the spool: a restart tells nothing twice, and neither do several relays on one spool.
Must never end the relay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from ops.expiry import DAY, Expiry, fields_of, step_of
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable

_log = logging.getLogger("relay.expiry")
_EVERY: Final = 3600.0
_FIRST: Final = 1.0
_REMEMBERED: Final = 400 * DAY
"""How long it is known, beyond the end itself, that a step was told."""

First = Callable[[str, float], Awaitable[bool]]
"""`ops.once.first`, of a spool."""


class News:
    """Knows which ends have come to a step that nobody has told of yet. A new end begins anew."""

    def __init__(self, first: First) -> None:
        self._first = first
        self._known: set[str] = set()

    async def has(self, one: Expiry, now: float) -> bool:
        """Whether it has; from now on it is told. Raises SpoolFull and SpoolUnavailable: then it is news yet."""
        step = step_of(one, now)
        if step is None or one.ends_at is None:
            return False
        mark = f"expiry {step} {one.ends_at:.0f} {one.key}"
        if mark in self._known:
            return False
        fresh = await self._first(mark, max(now, one.ends_at) + _REMEMBERED)
        self._known.add(mark)
        return fresh


async def watch_expiry(found: Callable[[], Iterable[Expiry]], first: First, every: float = _EVERY) -> None:
    """Look now and then, until it is cancelled."""
    news = News(first)
    await asyncio.sleep(_FIRST)
    while True:
        try:
            now = time.time()
            for one in found():
                if await news.has(one, now):
                    tell(one, now)
        except (SpoolFull, SpoolUnavailable) as error:
            emit(_log, "expiry_waits", logging.WARNING, error=str(error))
        except Exception:
            _log.exception("the calendar failed by a bug of ours; it is looked at again")
        await asyncio.sleep(every)


def tell(one: Expiry, now: float) -> None:
    """The event: an error on the last day and after it, else a warning."""
    said = fields_of(one, now)
    level = logging.ERROR if one.ends_at is not None and one.ends_at - now <= DAY else logging.WARNING
    told = {name: said[name] for name in ("what", "where", "days", "ends_at", "source")}
    emit(_log, "expiry_near", level, **told, routes=list(one.routes) or None)
