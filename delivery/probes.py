"""Asking an upstream on a timetable whether it works again, instead of trying with mail.

A watch runs while a way is on hold or mail goes round an upstream that cannot be reached. Must never probe more often
than the timetable says: a wrong password tried too often locks the account.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from delivery.backoff import PROBE_WAITS, probe_wait
from delivery.choice import unreached
from delivery.clock import Clock, Timer
from routing.events import emit
from routing.outcome import Outcome, Stage, Word
from upstreams.base import Upstream

_log = logging.getLogger("delivery.probes")


class Prober:
    """Probes one upstream for everybody who watches it.

    One probe at a time, and a refusal less than half a minute old answers for the next who ask: a wrong password that
    fifty routes share is not tried fifty times. A connect that failed locks nothing, so it is asked anew.
    """

    __slots__ = ("_clock", "_failed", "_failed_at", "_running", "_upstream")

    def __init__(self, upstream: Upstream, clock: Clock) -> None:
        self._upstream = upstream
        self._clock = clock
        self._running: asyncio.Task[Outcome] | None = None
        self._failed: Outcome | None = None
        self._failed_at = 0.0

    async def ask(self) -> Outcome:
        """What a probe says now. Never raises but for cancellation."""
        age = self._clock.now() - self._failed_at  # less than nothing when the clock was set back
        if self._failed and not unreached(self._failed) and 0 <= age < PROBE_WAITS[0] / 2:
            return self._failed
        if self._running is None:
            self._running = asyncio.create_task(self._probe())
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Give up a probe that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _probe(self) -> Outcome:
        try:
            outcome = await self._upstream.probe()
        except Exception as error:
            _log.exception("the probe of %s failed by a bug of ours", self._upstream.name)
            outcome = Outcome(Word.RETRY, f"the relay failed: {type(error).__name__}", Stage.PREPARE)
        finally:
            self._running = None
        self._failed = None if outcome.word is Word.SENT else outcome
        self._failed_at = self._clock.now()
        return outcome


def is_ready(outcome: Outcome) -> bool:
    """What a way on hold waits for."""
    return outcome.word is Word.SENT


def is_reached(outcome: Outcome) -> bool:
    """What an endpoint waits for: any answer of the other side, such as a refused login, which is not its trouble."""
    return not unreached(outcome)


class Watch:
    """Probes by `ask` until the answer is `enough`, then calls `ready` once. `failures` counts on from earlier ones;
    `waits` is the timetable in seconds; the next probe is at `next_at` (unix seconds). `failed` is told of each
    that says no.
    """

    __slots__ = (
        "_ask",
        "_asking",
        "_clock",
        "_enough",
        "_failed",
        "_fields",
        "_ready",
        "_timer",
        "_waits",
        "failures",
        "next_at",
    )

    def __init__(
        self,
        ask: Callable[[], Awaitable[Outcome]],
        enough: Callable[[Outcome], bool],
        clock: Clock,
        ready: Callable[[], None],
        failures: int = 0,
        waits: Sequence[float] = PROBE_WAITS,
        failed: Callable[[Outcome], None] | None = None,
        **fields: object,
    ) -> None:
        self._ask = ask
        self._enough = enough
        self._clock = clock
        self._ready = ready
        self._waits = waits
        self._failed = failed
        self._fields = fields
        self._timer: Timer | None = None
        self._asking: asyncio.Task[None] | None = None
        self.failures = failures
        self.next_at = 0.0

    def start(self, stated: float | None = None) -> float:
        """Set the timer for the next probe; returns when that is. `stated` is a wait that the upstream asked for."""
        return self.start_at(self._clock.now() + probe_wait(self.failures, stated, self._waits))

    def start_at(self, when: float) -> float:
        """The next probe is then, unless one is under way."""
        if self._asking is None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_at(when, self._due)
            self.next_at = when
        return self.next_at

    def stop(self) -> None:
        """No more probes for this watch, unless it is started again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _due(self) -> None:
        self._asking = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        outcome = await self._ask()
        self._asking = None
        if self._enough(outcome):
            self._ready()
            return
        if not unreached(outcome) or not self.failures:
            self.failures += 1  # only what may lock an account is asked more and more seldom
        when = self.start(outcome.wait)
        wait = when - self._clock.now()
        emit(_log, "probed", logging.INFO, **self._fields, reply=outcome.reply, code=outcome.code, next=wait)
        if self._failed is not None:
            self._failed(outcome)
