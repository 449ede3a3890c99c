"""How much content of mails that are still on their way in may be in memory: one budget over all connections.

Must never let the budget be passed by more than one mail, and never let two mails wait for each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final

from intake.sips import SIP_OCTETS

SLOWEST: Final = 1024.0
"""Octets a second that a client must bring while others wait for the memory that its mail holds."""
_LONGEST: Final = 1000.0
"""And in so many seconds at least as much again as it holds: who holds much must not trickle."""
_NEXT_READ: Final = 1 << 18
"""What a client brings at most, once it may go on."""


class Memory:
    """Of all the mails in it the oldest always goes on; the others wait while the budget is used up.

    So there is no deadlock, and the most that is held is `octets` and the rest of one mail. Whoever neither waits nor
    brings enough is turned out while others wait; that is looked at every `look` seconds.
    """

    __slots__ = ("_look", "_octets", "_shares", "_timer", "_waiting", "begun", "cup", "used")

    def __init__(self, octets: int, look: float) -> None:
        self.used = 0
        self.begun = 0
        """Mails that come in now, whatever they hold."""
        self.cup = bytearray(SIP_OCTETS)
        """For reading a little at a time (`Sips`)."""
        self._octets = octets
        self._look = look
        self._shares: dict[Share, None] = {}
        self._waiting: deque[Share] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def crowded(self) -> bool:
        """So many mails come in that one read of each may fill the budget."""
        return self.crowded_by(self.begun)

    def crowded_by(self, mails: int) -> bool:
        """Whether one read of each of so many mails may fill the budget."""
        return mails * _NEXT_READ > self._octets

    def charge(self, share: Share, octets: int) -> bool:
        """`share` has `octets` now, which count at once. False when it must `wait` before it reads on."""
        self.used += octets - share.octets
        share.octets = octets
        self._shares[share] = None
        if self.used <= self._octets:
            self._let_in()
            return True
        return share is next(iter(self._shares))

    def release(self, share: Share) -> None:
        """The mail is kept or given up."""
        if share in self._shares:
            del self._shares[share]
            self.used -= share.octets
            share.octets = 0
            self._let_in()

    async def wait(self, share: Share) -> None:
        """Returns when it is this mail's turn to grow."""
        share.turn = asyncio.get_running_loop().create_future()
        self._waiting.append(share)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._look, self._turn_out_the_slow)
        try:
            await share.turn
        finally:
            share.turn, share.seen = None, None
            if share in self._waiting:
                self._waiting.remove(share)

    def _let_in(self) -> None:
        if not self._waiting:
            return
        room = self._octets - self.used
        oldest = next(iter(self._shares), None)
        if oldest is not None and oldest in self._waiting:
            self._let(oldest)
        while self._waiting and room > 0:
            room -= _NEXT_READ
            self._let(self._waiting[0])

    def _let(self, share: Share) -> None:
        self._waiting.remove(share)
        if share.turn is not None and not share.turn.done():
            share.turn.set_result(None)

    def _turn_out_the_slow(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        for share in tuple(self._shares):
            if share.turn is not None or share.whole:
                continue
            least = (SLOWEST + share.octets / _LONGEST) * self._look
            if share.seen is not None and share.octets - share.seen < least:
                share.too_slow()
            share.seen = share.octets
        self._timer = asyncio.get_running_loop().call_later(self._look, self._turn_out_the_slow)


class Share:
    """What one mail holds; a context manager that gives it back. `too_slow` ends its connection."""

    __slots__ = ("_memory", "octets", "seen", "too_slow", "turn", "whole")

    def __init__(self, memory: Memory, too_slow: Callable[[], None]) -> None:
        self.octets = 0
        self.whole = False
        """All of the mail is here: it waits for us now."""
        self.turn: asyncio.Future[None] | None = None
        self.seen: int | None = None
        self.too_slow = too_slow
        self._memory = memory

    def __enter__(self) -> Share:
        self._memory.begun += 1
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._memory.begun -= 1
        self._memory.release(self)
