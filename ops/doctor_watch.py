"""The daily look at every route inside `serve`: one child process after another, and an alert for each *new* problem.

What is open is kept in a file, so that a restart tells nothing twice. The look runs in a child because what it
loads would stay in the relay's memory for ever. Must never hold up mail, nor end the relay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from routing.events import emit

_log = logging.getLogger("relay.doctor")
FIRST_LOOK: Final = 1200.0
"""Seconds after the start within which a route that was never looked at is."""

_PATIENCE: Final = 900.0
"""Seconds that a look may take."""
_ROOT: Final = Path(__file__).resolve().parent.parent

Tell = Callable[[str, Mapping[str, Any]], None]
"""Handed the event `doctor_problem` or `doctor_mended`, and the fields of the verdict."""


def tell_log(event: str, verdict: Mapping[str, Any]) -> None:
    """The event as a line of the log."""
    level = logging.ERROR if event == "doctor_problem" else logging.INFO
    fields = {name: verdict.get(name) or None for name in ("route", "check", "where", "what", "mend")}
    emit(_log, event, level, **fields)


@dataclass(slots=True)
class Seen:
    """What is known of one route: when it was looked at (unix seconds), and its open problems by key."""

    at: float
    open: dict[str, str] = field(default_factory=dict)


class Memory:
    """What was found at earlier looks, in a file. One that cannot be read counts as empty, and says so in the log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.routes: dict[str, Seen] = {}
        try:
            for name, seen in json.loads(path.read_bytes()).items():
                self.routes[name] = Seen(float(seen["at"]), dict(seen["open"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            emit(_log, "doctor_forgot", logging.WARNING, file=path, error=error)
            self.routes = {}

    def keep(self) -> None:
        """Write it, never half. A disk that takes nothing is only logged: the next look tries again."""
        said = {name: {"at": seen.at, "open": seen.open} for name, seen in self.routes.items()}
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fresh.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
            fresh.replace(self._path)
        except OSError as error:
            emit(_log, "doctor_forgot", logging.WARNING, file=self._path, error=error)

    def compare(self, route: str, verdicts: list[dict[str, Any]], now: float) -> list[tuple[str, dict[str, Any]]]:
        """What is new and what is mended, and from now on known. A warning may be a DNS that did not answer: it
        neither opens nor mends anything.
        """
        seen = self.routes.setdefault(route, Seen(now))
        seen.at = now
        found = {f"{verdict['check']} {verdict['where']}": verdict for verdict in verdicts}
        news = []
        for key, verdict in found.items():
            if verdict["grade"] == "problem":
                if key not in seen.open:
                    news.append(("doctor_problem", {**verdict, "route": route}))
                seen.open[key] = verdict["what"]
        for key in [key for key in seen.open if found.get(key, {"grade": "good"})["grade"] == "good"]:
            check, _, where = key.partition(" ")
            mended = found.get(key) or {"check": check, "where": where, "what": "is there no more"}
            news.append(("doctor_mended", {**mended, "route": route}))
            del seen.open[key]
        return news


class DoctorWatch:
    """Looks at each of `routes` every `every` seconds, one at a time. `run` until it is cancelled."""

    def __init__(
        self,
        config: Path,
        memory: Memory,
        every: float,
        routes: Callable[[], Collection[str]],
        tell: Tell,
        random: Random,
    ) -> None:
        self._config = config
        self._memory = memory
        self._every = every
        self._routes = routes
        self._tell = tell
        self._random = random
        self._due: dict[str, float] = {}

    async def run(self) -> None:
        while True:
            now = time.time()
            self._plan(now)
            ready = [name for name, at in self._due.items() if at <= now]
            if ready:
                await self._look_safely(min(ready, key=lambda name: self._due[name]))
            else:
                wait = min(self._due.values(), default=now + 60.0) - now
                await asyncio.sleep(min(60.0, max(0.05, wait)))

    def _plan(self, now: float) -> None:
        """A time for each route that has none; those of routes that are gone are forgotten, and those of a clock that
        was ahead.
        """
        wanted, last = set(self._routes()), now + 1.1 * self._every + FIRST_LOOK
        self._due = {name: at for name, at in self._due.items() if name in wanted and at <= last}
        soon = min(FIRST_LOOK, self._every / 10)
        for name in wanted - self._due.keys():
            first = now + soon * self._random.uniform(0.5, 1.0)
            seen = self._memory.routes.get(name)
            self._due[name] = max(first, seen.at + self._every) if seen and seen.at <= now else first

    async def _look_safely(self, route: str) -> None:
        self._due[route] = time.time() + self._every * self._random.uniform(0.9, 1.1)
        try:
            verdicts = await self._look(route)
        except Exception as error:
            emit(_log, "doctor_failed", logging.WARNING, route=route, error=f"{type(error).__name__}: {error}")
            return
        news = self._memory.compare(route, verdicts, time.time())
        for name in self._memory.routes.keys() - set(self._routes()):
            del self._memory.routes[name]
        await asyncio.to_thread(self._memory.keep)
        for event, verdict in news:
            self._tell(event, verdict)

    async def _look(self, route: str) -> list[dict[str, Any]]:
        """The verdicts of a child. Raises for one that takes too long or says nothing that can be read."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "doctor", "--json", "--config", str(self._config), "--", route,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )  # fmt: skip
        try:
            async with asyncio.timeout(_PATIENCE):
                output, complaint = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        try:
            verdicts: list[dict[str, Any]] = json.loads(output)
        except ValueError:
            raise RuntimeError(complaint.decode("utf-8", "replace")[-300:].strip() or "it said nothing") from None
        if verdicts and not any(verdict["route"] for verdict in verdicts):
            raise RuntimeError("the rules on disk have errors, which `check` tells")
        return verdicts
