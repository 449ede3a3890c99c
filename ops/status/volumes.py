"""Moves what the rooms counted into the spool, every minute and before somebody looks: for the charts of the page.

A mail costs two additions in memory and nothing on disk. After a crash the last minute is missing from the charts, from
nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Task
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Final

from ops.status.facts import Facts
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable
from spool.view import Volume

_log = logging.getLogger("status")

_EVERY: Final = 60.0
_PATIENCE: Final = 1.0
"""Seconds that a page waits for the charts to have it all."""
_FRESH: Final = 5.0
"""Seconds within which a page that is asked for again writes nothing."""


class Volumes:
    """Counts that are not on disk yet are kept until they are."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._left: list[Volume] = []
        self._written_at = 0.0
        self._writing: Task[None] | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.write()

    async def refresh(self) -> None:
        """Before somebody looks: what was counted up to now is in the charts, unless the spool lets us wait for it."""
        if monotonic() - self._written_at > _FRESH:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self.write()

    async def write(self) -> None:
        """Take over what was counted since the last time. What the spool does not take goes with the next.

        Whoever does not wait for the end breaks nothing off: what may be on disk already must not be counted again.
        """
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await asyncio.shield(self._writing)

    async def _write(self) -> None:
        self._written_at = monotonic()
        rooms, now = self._facts, self._facts.clock()
        taken = _joined(rooms.intake.numbers.customers.take(), rooms.scheduler.customers.take(), now)
        self._left = [*self._left, *taken][-10_000:]
        if not self._left:
            return
        try:
            await rooms.spool.tally(self._left)
        except (SpoolFull, SpoolUnavailable) as error:
            emit(_log, "volumes_wait", logging.WARNING, error=str(error))
        else:
            self._left = []


def _joined(
    accepted: Mapping[tuple[str, str], list[int]], ended: Mapping[tuple[str, str], list[int]], now: float
) -> list[Volume]:
    found = []
    for route, customer in {**accepted, **ended}:
        mails, recipients = accepted.get((route, customer), (0, 0))
        delivered, failed = ended.get((route, customer), (0, 0))
        found.append(Volume(now, route, customer, mails, recipients, delivered, failed))
    return found
