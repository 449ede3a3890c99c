"""When a mail is tried again and when it is given up: numbers in, numbers out.

Times are unix seconds, waits are seconds. `now` and randomness are handed in; nothing here sleeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

JITTER: Final = 0.1
"""A wait is lengthened by up to this part of it, so that mail that failed together does not come back together."""

PROBE_WAITS: Final = (60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Waits before the probes of a way that does not work; the last one repeats."""


def retry_wait(attempts: int, waits: Sequence[float], random: Random) -> float:
    """Seconds until the next try after `attempts` earlier tries. The last wait repeats."""
    return waits[min(attempts, len(waits) - 1)] * (1 + JITTER * random.random())


def reach_waits(retry: Sequence[float]) -> tuple[float, ...]:
    """The timetable for an upstream that nobody answers at: the retry waits, as far as they are no longer than
    `PROBE_WAITS[1]`, so that mail does not wait hours for a host that is back.
    """
    return tuple(wait for wait in retry if wait <= PROBE_WAITS[1]) or PROBE_WAITS[:2]


def probe_wait(failures: int, stated: float | None = None, waits: Sequence[float] = PROBE_WAITS) -> float:
    """Seconds until the next probe after `failures` earlier ones; never less than the upstream itself stated."""
    return max(waits[min(failures, len(waits) - 1)], stated or 0.0)


def next_try(now: float, own: float, stated: float | None, last_at: float) -> float:
    """When to try again: after our own wait or the stated one, whichever is longer, and at `last_at` (the expiry, or
    when the sender is to hear of the delay) at the latest.

    The stated time is obeyed even past that: a try before it cannot succeed (RFC 9110 10.2.3, Retry-After).
    """
    return max(min(now + own, max(last_at, now)), now + (stated or 0.0))
