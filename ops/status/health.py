"""Whether the relay lives (`/healthz`) and takes mail (`/readyz`), as found out by trying, not by hoping.

A disk without room is no illness: a restart mends nothing, so the relay is alive and not ready. Must never ask the disk
more often than every few seconds, however often it is asked itself.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import Task
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

from ops.status.facts import Facts, Phase
from spool.contract import SpoolFull, SpoolUnavailable

_FRESH: Final = 2.0
"""Seconds that an answer of the spool stands."""

_PHASE: Final = "phase"

PATIENCE: Final = 5.0
"""Seconds within which a commit must be on disk."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `wrong` says what is the matter, None when it is well; `ill` when a restart may mend it, and
    not `bars` when new mail is taken all the same.
    """

    name: str
    wrong: str | None = None
    ill: bool = True
    bars: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """All that was looked at, at one moment."""

    checks: tuple[Check, ...]

    @property
    def alive(self) -> bool:
        return not any(check.wrong and check.ill for check in self.checks)

    @property
    def ready(self) -> bool:
        return not any(check.wrong and check.bars for check in self.checks)

    @property
    def serving(self) -> bool:
        """It listens, be all well or not."""
        return not any(check.wrong for check in self.checks if check.name == _PHASE)

    def text(self, good: bool) -> bytes:
        """`{"ok": bool, "checks": {name: "ok" or what is wrong}}`, on one line."""
        checks = {check.name: check.wrong or "ok" for check in self.checks}
        return json.dumps({"ok": good, "checks": checks}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class State:
    """How the relay is, and how many mails it has under way by route."""

    report: Report
    in_flight: Mapping[str, int]

    def text(self) -> bytes:
        """For another worker."""
        checks = [(one.name, one.wrong, one.ill, one.bars) for one in self.report.checks]
        return json.dumps({"checks": checks, "in_flight": self.in_flight}).encode()


class Health:
    """Looks at the rooms behind `facts`. For one event loop: that it answers at all shows that the loop turns."""

    def __init__(self, facts: Facts, patience: float = PATIENCE) -> None:
        self._facts = facts
        self._patience = patience
        self._asking: Task[tuple[Check, Check]] | None = None
        self._asked_at = 0.0

    async def state(self) -> State:
        """As `look`, and what is under way."""
        lanes = self._facts.scheduler.routes()
        return State(await self.look(), {route: one.in_flight for route, one in lanes.items() if one.in_flight})

    async def look(self) -> Report:
        """Never raises."""
        if self._asking is None or (self._asking.done() and monotonic() - self._asked_at > _FRESH):
            self._asking = asyncio.create_task(self._ask())
        spool, delivery = await asyncio.shield(self._asking)
        return Report((self._phase(), spool, delivery, self._intake()))

    async def _ask(self) -> tuple[Check, Check]:
        try:
            async with asyncio.timeout(self._patience):
                await self._facts.spool.probe()
                stuck = await self._facts.scheduler.stuck()
            spool = Check("spool")
        except SpoolFull as error:
            spool, stuck = Check("spool", f"takes no new mail: {error}", ill=False), ()
        except SpoolUnavailable as error:
            spool, stuck = Check("spool", f"cannot commit: {error}"), ()
        except TimeoutError:
            spool, stuck = Check("spool", f"did not commit within {self._patience:g} seconds"), ()
        except Exception as error:
            spool, stuck = Check("spool", f"failed by a bug of ours: {type(error).__name__}"), ()
        finally:
            self._asked_at = monotonic()
        wrong = (
            f"due mail of {', '.join(stuck[:5])} is not tried, and nothing keeps it: a bug of ours" if stuck else None
        )
        return spool, Check("delivery", wrong)

    def _phase(self) -> Check:
        phase = self._facts.phase
        return Check(_PHASE, None if phase is Phase.SERVING else str(phase), ill=False)

    def _intake(self) -> Check:
        """Not listening is an illness only while it should listen."""
        if self._facts.phase is not Phase.SERVING:
            return Check("intake", "does not listen", ill=False)
        if not self._facts.intake.listening:
            return Check("intake", "does not listen")
        full = f"all {self._facts.relay.limits.connections} connections are taken; new clients are told 421"
        return Check("intake", full if self._facts.intake.full else None, ill=False)
