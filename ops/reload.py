"""New rules for a running relay: read, compared, told, and only then swapped in.

All that can fail is done before anything is swapped: on any error the old rules stay, and `last` says why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from config.problems import Problem
from config.relay_settings import Relay
from config.rules import Rules
from delivery.plan import Plan, build_plan
from ops.check import Checked
from ops.rules_diff import Change, RuleSet, changes
from routing.events import emit
from spool.contract import SpoolUnavailable
from upstreams.base import Host, Kinds

_log = logging.getLogger("relay")
Agree = Callable[[str | None, Rules | None], Awaitable[str | None]]
"""Asked with why new rules cannot be (None: they can) and the rules: why they shall not be, None when they shall."""
_TOLD: Final = 50
"""Customers that a reload tells of in the log; where more change, the last line says how many."""


@dataclass(frozen=True, slots=True)
class LastReload:
    """What became of the last reload: `at` is unix seconds, `problem` a sentence, None when the new rules count.
    `changes` are what it changed; `incomplete`: the rules count, but waiting mail was not looked through.
    """

    at: float
    problem: str | None = None
    changes: tuple[Change, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a reload would do just now: `problem` is why it would be refused."""

    changes: tuple[Change, ...]
    problems: tuple[Problem, ...]
    problem: str | None = None


async def alone(refusal: str | None, rules: Rules | None) -> str | None:  # noqa: ARG001 - see `Agree`
    """Nobody else has a say."""
    return refusal


class Reloader:
    """Replaces the rules of one relay. `check` reads the files (in a thread), `plan` gives the rules in force, `swap`
    puts others there, `agree` asks whoever must do the same. `last` is for the page, the metrics and systemd.
    """

    def __init__(
        self,
        check: Callable[[], Checked],
        plan: Callable[[], Plan],
        swap: Callable[[Plan, Rules], Awaitable[None]],
        kinds: Kinds,
        host: Host,
        relay: Relay,
        agree: Agree = alone,
    ) -> None:
        self._agree = agree
        self._check = check
        self._plan = plan
        self._swap = swap
        self._kinds = kinds
        self._host = host
        self._relay = relay
        self.last = LastReload(time.time())

    async def reload(self, *, aloud: bool = True) -> None:
        """Go by the files on disk from now on, or stay with what is there and say why. Never raises. Not `aloud`, where
        another process of the same relay says what became of it.
        """
        try:
            checked = await asyncio.to_thread(self._check)
            for problem in checked.problems if aloud else ():
                tell_problem(problem)
            refusal, plan = await self._prepare(checked)
            refusal = await self._agree(refusal, checked.rules)
            if refusal or plan is None or checked.rules is None:
                self._refuse(refusal or "this is a bug of the relay, please report it", aloud)
                return
            found = changes(_rules_of(self._plan()), _rules_of(plan))
            _tell(found if aloud else ())
            await self._swap(plan, checked.rules)
        except SpoolUnavailable as error:
            why = f"the new rules count, but waiting mail was not looked through ({error}); reload again"
            emit(_log, "reload_incomplete", logging.ERROR, why=why)
            self.last = LastReload(time.time(), why, incomplete=True)
            return
        except Exception:
            _log.exception("a reload failed by a bug of ours")
            self._refuse("this is a bug of the relay, please report it")
            return
        self.last = LastReload(time.time(), None, found)
        if not aloud:
            return
        if checked.relay != self._relay:
            emit(_log, "restart_needed", logging.WARNING, why="relay.yaml changed, and it is read at start only")
        emit(_log, "reloaded", routes=len(plan.routes), upstreams=len(plan.upstreams), changed=len(found))

    async def rehearse(self) -> Rehearsed:
        """What `reload` would do, without doing it."""
        checked = await asyncio.to_thread(self._check)
        refusal, plan = await self._prepare(checked)
        if plan is None:
            return Rehearsed((), checked.problems, refusal)
        return Rehearsed(changes(_rules_of(self._plan()), _rules_of(plan)), checked.problems)

    def status(self, text: str) -> str:
        """A line for systemd: `text`, and what is wrong with the rules on disk."""
        if self.last.problem is None:
            return text
        at, why = time.strftime("%H:%M:%S", time.localtime(self.last.at)), " ".join(self.last.problem.split())
        became = "left waiting mail as it was" if self.last.incomplete else "was refused, older rules count"
        return f"{text}; the reload at {at} {became}: {why}"

    async def _prepare(self, checked: Checked) -> tuple[str | None, Plan | None]:
        """All that may fail: a plan, or why there is none."""
        rules = checked.rules
        if checked.relay is None or rules is None:
            first, more = checked.errors[0], len(checked.errors) - 1
            return f"{first}{f' (and {more} more)' if more else ''}", None
        try:
            return None, build_plan(rules, self._kinds, self._host, self._plan())
        except ValueError as error:
            return str(error), None

    def _refuse(self, why: str, aloud: bool = True) -> None:
        self.last = LastReload(time.time(), why)
        if aloud:
            emit(_log, "reload_refused", logging.ERROR, why=f"the old rules stay: {why}")


def tell_problem(problem: Problem) -> None:
    """A line of the log for what is wrong in a file."""
    emit(_log, "config", logging.WARNING if problem.warning else logging.ERROR, problem=problem)


def _tell(found: tuple[Change, ...]) -> None:
    for change in found[:_TOLD]:
        emit(_log, "rules_change", route=change.route, how=change.how, what=list(change.what) or None)
    if len(found) > _TOLD:
        emit(_log, "rules_change", more=len(found) - _TOLD)


def _rules_of(plan: Plan) -> RuleSet:
    return RuleSet(plan.routes, plan.rules)
