"""Where a mail's number comes from: the time it came, then chance, and always greater than the one before.

Pure: the clock and the randomness are handed in. It must never give a number twice, whatever the clock does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LOW_BITS: Final = 21
"""What is left of 63 bits after 42 bits of milliseconds since 1970 (until the year 2109)."""


GREATEST: Final = (1 << 63) - 1
"""No mail has a greater number."""


class Numbers:
    """Gives numbers, each greater than the last and than `last` at the start.

    `clock` gives unix seconds, `chance(bits)` a random number of that many bits. When the clock stands still or steps
    back, the numbers count on from the greatest one: for as long as only the lowest `run` bits change, for the bits
    above them may be what keeps two nodes' numbers apart, and then by chance in the next millisecond.
    """

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[int], int], last: int = 0, *, run: int = _LOW_BITS
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._last = last
        self._run = run

    def next(self) -> int:
        number = first_number(self._clock()) | self._chance(_LOW_BITS - 1)
        if number <= self._last:
            number = self._last + 1
            if number >> self._run != self._last >> self._run:
                number = next_moment(self._last) | self._chance(_LOW_BITS - 1)
        self._last = number
        return number

    def skip_to(self, last: int) -> None:
        """Never give a number up to `last` from now on."""
        self._last = max(self._last, last)


def next_moment(number: int) -> int:
    """The smallest number of the millisecond after that of `number`."""
    return ((number >> _LOW_BITS) + 1) << _LOW_BITS


def first_number(at: float) -> int:
    """The smallest number a mail of that moment (unix seconds) can have."""
    return int(at * 1000) << _LOW_BITS
