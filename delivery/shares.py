"""This relay's part of the limits on sends at one time that relays on one spool keep together.

Slots are taken in the spool when mail needs them and kept for a while, so that mail in a row does not ask again. Must
never let a send start without a slot; those under way end as they began, whatever is heard meanwhile.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from delivery.clock import Clock, Timer
from spool.cluster import Cluster
from spool.contract import SpoolFull, SpoolUnavailable

_ASK_AGAIN: Final = 1.0
"""Seconds until slots are asked for again that others have: who asks stays in line."""
_WANTED_FOR: Final = 3.0
"""Seconds for which it counts that others wait; they say so every second."""
_TURN: Final = 0.25
"""Seconds for which a relay keeps a slot that it was given, also when others wait and there are not enough for all."""
_KEPT: Final = 30.0
"""Seconds after which slots go back that were not used in them."""


class Share:
    """Slots of one limit that this relay has: `held`, of which `busy` are in use. There are `size` for all relays.

    `changed` is called when one more send may perhaps start.
    """

    __slots__ = (
        "_again",
        "_ask",
        "_asking",
        "_changed",
        "_clock",
        "_give_back",
        "_most",
        "_part",
        "_part_until",
        "_turn_until",
        "busy",
        "held",
        "lasts_until",
        "on_held",
        "size",
    )

    def __init__(
        self,
        size: int,
        clock: Clock,
        ask: Callable[[int], Awaitable[int]],
        give_back: Callable[[int], None],
        changed: Callable[[], None],
    ) -> None:
        self.size = size
        self.on_held: Callable[[int], None] = _nobody
        """Called with `held` when it changes."""
        self.lasts_until = inf
        """When slots that were lent for a time are others' again."""
        self.busy = self.held = self._most = 0
        self._clock = clock
        self._ask = ask
        self._give_back = give_back
        self._changed = changed
        self._part, self._part_until, self._turn_until = 0, 0.0, 0.0
        self._asking: Task[None] | None = None
        self._again: Timer | None = None

    @property
    def waiting(self) -> bool:
        """Whether mail waits for slots that others have."""
        return self._asking is not None or self._again is not None

    def lets(self) -> bool:
        """Whether one more send may start now; where not, slots are asked for."""
        self._yield()
        if self._clock.now() >= self.lasts_until:
            self.release()
        if self.busy < self.held:
            self._most = max(self._most, self.busy + 1)
            return True
        if self.held < self.size and not self.waiting:
            self._asking = asyncio.create_task(self._take())
        return False

    def begin(self) -> None:
        self.busy += 1

    def end(self) -> None:
        self.busy -= 1

    def wanted(self, part: int) -> None:
        """Others wait: this relay keeps `part`."""
        now = self._clock.now()
        self._part, self._part_until = part, now + _WANTED_FOR
        self._yield()
        if not part and now < self._turn_until:
            self._clock.call_at(self._turn_until + 0.01, self._yield)  # timers may ring a moment early

    def freed(self) -> None:
        """Somebody gave slots back."""
        if self._again is not None:
            self._again.cancel()
            self._rang()

    def release(self) -> None:
        """Give back all that is not in use."""
        self._keep(self.busy)

    def tidy(self) -> None:
        """Give back what was not used since the last time."""
        most, self._most = self._most, self.busy
        self._keep(max(self.busy, most))

    def void(self) -> int:
        """The slots are others' now; how many are in use all the same."""
        self.held = self.busy
        return self.busy

    def stop(self) -> None:
        """Ask no more."""
        if self._again is not None:
            self._again.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def _yield(self) -> None:
        if self.held > self.size or self._part_until:
            now = self._clock.now()
            if now >= self._part_until:
                self._part_until = 0.0
            part = self._part if self._part_until else self.size
            part = max(part, 1) if now < self._turn_until else part
            self._keep(max(self.busy, min(self.size, part)))

    def _keep(self, count: int) -> None:
        surplus = self.held - count
        if surplus > 0:
            self.held = count
            self.on_held(count)
            self._give_back(surplus)

    async def _take(self) -> None:
        try:
            taken = await self._ask(self.size - self.held)
        except (SpoolFull, SpoolUnavailable):
            taken = 0  # what it has stays; without the spool no mail comes anyway
        finally:
            self._asking = None
        self.held += taken
        self._most = max(self._most, self.held)
        if taken:
            self._turn_until, self._part_until = self._clock.now() + _TURN, 0.0
            self.on_held(self.held)
            self._changed()
        else:
            self._again = self._clock.call_at(self._clock.now() + _ASK_AGAIN, self._rang)

    def _rang(self) -> None:
        self._again = None
        self._changed()


def _nobody(_held: int) -> None:
    """Nobody asks how many."""


class Shares:
    """All limits that this relay has slots of. Nothing is done, and None given, where one relay has the spool."""

    def __init__(self, cluster: Cluster | None, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._by_name: dict[str, Share] = {}
        self._tidying = False

    def of(self, name: str, size: int, changed: Callable[[], None]) -> Share | None:
        """The share of a limit. One that was there before keeps its slots."""
        cluster = self._cluster
        if cluster is None:
            return None
        share = self._by_name.get(name)
        if share is None:

            async def ask(count: int) -> int:
                self._tidy_later()
                return await cluster.take(name, made.size, count)

            made = share = self.add(name, size, ask, changed)
        share.size = size
        return share

    def add(self, name: str, size: int, ask: Callable[[int], Awaitable[int]], changed: Callable[[], None]) -> Share:
        """A share whose slots are asked for in a way of their own."""
        give_back = lambda count: self._cluster.give_back(name, count) if self._cluster else None  # noqa: E731
        share = self._by_name[name] = Share(size, self._clock, ask, give_back, changed)
        return share

    def get(self, name: str) -> Share | None:
        return self._by_name.get(name)

    def wanted(self, name: str, part: int) -> None:
        if share := self._by_name.get(name):
            share.wanted(part)

    def freed(self, name: str) -> None:
        if share := self._by_name.get(name):
            share.freed()

    def reborn(self) -> None:
        """The others took this relay for dead. What is under way counts against the limits all the same."""
        for name, share in self._by_name.items():
            under_way = share.void()
            if under_way and self._cluster:
                self._cluster.claim(name, under_way)

    def stop(self) -> None:
        """Ask for nothing more; what is left comes free when the spool is closed."""
        for share in self._by_name.values():
            share.stop()

    def _tidy_later(self) -> None:
        """Unused slots go back; nothing looks for them while there are none."""
        if not self._tidying:
            self._tidying = True
            self._clock.call_at(self._clock.now() + _KEPT, self._tidy)

    def _tidy(self) -> None:
        self._tidying = False
        for share in self._by_name.values():
            share.tidy()
        if any(share.held for share in self._by_name.values()):
            self._tidy_later()
