"""The look at the calendar inside `serve`: an event for each thing that comes 30, 14, 7 or 1 days near its end.

What was told is kept beside the spool, so that a restart tells nothing twice. Must never end the relay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ops.expiry import Expiry, fields_of, step_of
from routing.events import emit

_log = logging.getLogger("relay.expiry")
_EVERY: Final = 3600.0
_FIRST: Final = 1.0


class Told:
    """Which step of which end was told, in a file; one that cannot be read counts as empty."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._steps: dict[str, list[float]] = {}
        try:
            if path is not None:
                kept = json.loads(path.read_bytes())
                self._steps = {key: [float(end), float(step)] for key, (end, step) in kept.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            emit(_log, "expiry_forgot", logging.WARNING, file=path, error=str(error))

    def news(self, found: Iterable[Expiry], now: float) -> list[Expiry]:
        """Those that came to a step which was not told yet, from now on told. A new end begins anew."""
        fresh, steps = [], {}
        for one in found:
            step = step_of(one, now)
            if step is None or one.ends_at is None:
                continue
            before = self._steps.get(one.key)
            told = before is not None and before[0] == one.ends_at and before[1] <= step
            steps[one.key] = before if told and before is not None else [one.ends_at, float(step)]
            if not told:
                fresh.append(one)
        if steps != self._steps:
            self._steps = steps
            self._keep()
        return fresh

    def _keep(self) -> None:
        if self._path is None:
            return
        new = self._path.with_name(self._path.name + ".new")
        try:
            new.write_text(json.dumps(self._steps), "utf-8")
            new.replace(self._path)
        except OSError as error:
            emit(_log, "expiry_forgot", logging.WARNING, file=self._path, error=str(error))


async def watch_expiry(found: Callable[[], Iterable[Expiry]], told: Told, every: float = _EVERY) -> None:
    """Look now and then, until it is cancelled."""
    await asyncio.sleep(_FIRST)
    while True:
        try:
            now = time.time()
            for one in told.news(found(), now):
                tell(one, now)
        except Exception:
            _log.exception("the calendar failed by a bug of ours; it is looked at again")
        await asyncio.sleep(every)


def tell(one: Expiry, now: float) -> None:
    """The event: an error on the last day and after it, else a warning."""
    said = fields_of(one, now)
    level = logging.ERROR if one.ends_at is not None and one.ends_at - now <= 86400 else logging.WARNING
    told = {name: said[name] for name in ("what", "where", "days", "ends_at", "source")}
    emit(_log, "expiry_near", level, **told, routes=list(one.routes) or None)
