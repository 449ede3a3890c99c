"""A look at every route before mail needs it: verdicts on its records in the DNS, its ways out and its quota.

Nothing is ever sent. What cannot be known from here is a warning that says so, never "good".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from config import names
from config.problems import Problem
from config.relay_settings import CallCentre
from config.rules import Route, Rules
from ops.resolver import Lookup
from routing.mail import domain_of
from routing.table import Table
from upstreams.base import Host, Kinds

_TOGETHER: Final = 6
"""Routes looked at together."""


class Grade(StrEnum):
    """How good a thing is."""

    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line: `check` is what was looked at, `where` the domain, upstream or file, `mend` what to do, "" if nothing.

    `route` is "" for what concerns all of them.
    """

    route: str
    check: str
    grade: Grade
    where: str
    what: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """A route with all that its checks need. `sender` is an address that mail of it leaves as; `invented` is True when
    nobody knows one, and only its domain is real. `domains` are those of From as mail leaves.
    """

    route: Route
    rules: Rules
    us: CallCentre | None
    dns: Lookup
    kinds: Kinds
    host: Host
    domains: tuple[str, ...]
    sender: str
    invented: bool

    def verdict(self, check: str, grade: Grade, where: str, what: str, mend: str = "") -> Verdict:
        return Verdict(self.route.name, check, grade, where, what, mend)


class Check(Protocol):
    async def __call__(self, patient: Patient, /) -> Iterable[Verdict]: ...


async def examine(patients: Iterable[Patient], checks: Iterable[Check]) -> list[Verdict]:
    """All verdicts, route by route in the order they came, each in the order of `checks`."""
    slots = asyncio.Semaphore(_TOGETHER)
    wanted = tuple(checks)

    async def one(patient: Patient) -> list[Verdict]:
        async with slots:
            found = await asyncio.gather(*(check(patient) for check in wanted))
        return [verdict for verdicts in found for verdict in verdicts]

    return [verdict for verdicts in await asyncio.gather(*map(one, patients)) for verdict in verdicts]


def chosen(rules: Rules, asked: str | None) -> list[Route]:
    """The routes that somebody means by a domain, an address, a pattern or a route's name; all without one."""
    if asked is None:
        return list(rules.routes)
    text = asked.strip().lower()
    found = [route for route in rules.routes if text == route.name or text in route.settings.from_]
    if found:
        return found
    route = Table(rules.routes).match(text if "@" in text else f"postmaster@{text}")
    addresses = [route for route in rules.routes if any(domain_of(one) == text for one in route.settings.from_)]
    return list(
        dict.fromkeys([*([route] if route and names.ANY_PATTERN not in route.settings.from_ else []), *addresses])
    )


def domains_of(route: Route) -> tuple[str, ...]:
    """The From domains that mail of a route leaves with: the sender's of ours, else those of its patterns."""
    if route.settings.sender is not None:
        return (names.normal(domain_of(route.settings.sender.address)),)
    special = (names.NULL_PATTERN, names.ANY_PATTERN)
    bare = [text.removeprefix("*.") for text in route.settings.from_ if text not in special]
    return tuple(dict.fromkeys(names.normal(domain_of(text) or text) for text in bare))


def sender_of(route: Route, rules: Rules, given: str | None = None) -> tuple[str, bool]:
    """An address that mail of the route leaves as, and whether it was made up: ours, a pattern's, a test's, or none."""
    if route.settings.sender is not None:
        return route.settings.sender.address, False
    table = Table(rules.routes)
    told = [given] if given else []
    told += [text for text in route.settings.from_ if "@" in text]
    told += [test.settings.from_ for test in rules.tests if "@" in test.settings.from_]
    for address in told:
        if (found := table.match(address)) is not None and found.name == route.name:
            return address, False
    domains = domains_of(route)
    return (f"postmaster@{domains[0]}", True) if domains else ("", True)


def from_rules(problems: Iterable[Problem], routes: Iterable[Route]) -> list[Verdict]:
    """What `check` says of these routes and their upstreams, as verdicts."""
    found = []
    for route in routes:
        paths = tuple(f"upstreams.{name}" for name in route.settings.upstreams)
        for problem in problems:
            here = problem.path == f"route {route.name}" or problem.path.startswith(f"route {route.name},")
            theirs = any(problem.path == path or problem.path.startswith(f"{path}.") for path in paths)
            own = problem.place.file == route.place.file and problem.place.line == route.place.line
            if here or theirs or own:
                found.append(from_check(problem, route.name))
    return found


def from_check(problem: Problem, route: str) -> Verdict:
    """One finding of `check`."""
    grade = Grade.WARNING if problem.warning else Grade.PROBLEM
    what = f"{problem.path}: {problem.wrong}" if problem.path else problem.wrong
    return Verdict(route, "rules", grade, str(problem.place), what, problem.mend)
