"""Hosts where nobody answers, as several relays see them: each by its own connects, one asking for all in turn.

What another says is a reason to look, never to send nothing: its network may be cut. Must never leave a host closed to
a relay that could reach it for longer than one probe.
"""

from __future__ import annotations

import asyncio
from asyncio import Task
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from delivery.choice import unreached
from delivery.clock import Clock
from delivery.endpoint import Endpoint
from delivery.ways import Way
from routing.outcome import Outcome
from spool.cluster import Cluster, Silent

if TYPE_CHECKING:
    from delivery.holds import Holds

_PATIENCE: Final = 90.0
"""Seconds by which the next relay in line waits longer for the one before: its probe may take a while."""


class Silence:
    """`ways` are those of all routes, `look` tells that something changed for the mail of one."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        holds: Holds,
        ways: Callable[[], Iterable[Way]],
        look: Callable[[Way], None],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._holds = holds
        self._ways = ways
        self._look = look
        self._rows: dict[str, list[Silent]] = {}
        self._looked_at: set[tuple[str, int]] = set()
        """What others said that this relay has seen for itself."""
        self.tasks: set[Task[None]] = set()

    def found(self, way: Way) -> bool:
        """This relay gets no answer where a way leads. Whether others said so before."""
        self.asked(way)
        return any(not row.mine for row in self._rows.get(way.endpoint.name, ()))

    def asked(self, way: Way) -> None:
        """It got none just now."""
        endpoint = way.endpoint
        if _is_known_to_others(endpoint) and endpoint.trouble is not None:
            now = self._clock.now()
            self._cluster.silent(endpoint.name, endpoint.since or now, endpoint.trouble.reply, now)

    def reached(self, way: Way) -> None:
        """Somebody answered."""
        if _is_known_to_others(way.endpoint):
            self._cluster.answered(way.endpoint.name)

    def reborn(self) -> None:
        """The others forgot what this relay had said."""
        self._rows = {}

    def news(self, rows: Sequence[Silent]) -> None:
        """All relays' silent hosts, those that were asked the longest ago first."""
        before, self._rows = self._rows, {}
        for row in rows:
            self._rows.setdefault(row.place, []).append(row)
        self._looked_at &= {(row.place, row.node) for row in rows}
        seen: set[Endpoint] = set()
        for way in tuple(self._ways()):
            if _is_known_to_others(way.endpoint) and way.endpoint not in seen:
                seen.add(way.endpoint)
                self._compare(way, before.get(way.endpoint.name, []), self._rows.get(way.endpoint.name, []))

    def _compare(self, way: Way, before: Sequence[Silent], rows: Sequence[Silent]) -> None:
        endpoint = way.endpoint
        mine = any(row.mine for row in rows)
        if not self._holds.watches(endpoint):
            if mine:
                self._cluster.answered(endpoint.name)
            else:
                self._look_too(endpoint, rows)
        elif not mine:
            self.asked(way)  # the database was away, or took this relay for dead
        else:
            self._take_turns(endpoint, rows)
            if {row.node for row in before if not row.mine} - {row.node for row in rows}:
                self._holds.probe_at(endpoint, self._clock.now())  # another got an answer, or is gone: look at once

    def _take_turns(self, endpoint: Endpoint, rows: Sequence[Silent]) -> None:
        """The relay that was not asked for the longest time asks next, for all."""
        now, asked_at = self._clock.now(), max(row.asked_at for row in rows)
        endpoint.still_unanswered(min(now, asked_at))
        wait = self._holds.reach_wait(now - min(row.since for row in rows))
        turn = next(number for number, row in enumerate(rows) if row.mine)
        self._holds.probe_at(endpoint, asked_at + wait + turn * _PATIENCE)

    def _look_too(self, endpoint: Endpoint, rows: Sequence[Silent]) -> None:
        """Others get no answer where this relay has not tried lately, or not often enough to be sure: one probe, rather
        than mail, of which it may have no more.
        """
        news = {(row.place, row.node) for row in rows} - self._looked_at
        way = self._harmless(endpoint) if news and not endpoint.asking else None
        if way is not None:
            self._looked_at |= news
            endpoint.asking = True
            task = asyncio.create_task(self._probe(way))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _harmless(self, endpoint: Endpoint) -> Way | None:
        """A way there whose login is not in doubt: a probe may log in."""
        ways = [way for way in self._ways() if way.endpoint is endpoint]
        doubtful = {way.gate for way in ways if way.held is not None}
        return next((way for way in ways if way.gate not in doubtful), None)

    async def _probe(self, way: Way) -> None:
        endpoint, outcome = way.endpoint, None
        try:
            outcome = await self._holds.ask(way)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise  # else new rules took away the upstream that was asked
        finally:
            endpoint.asking = False
        if outcome is None or way.gone:
            self._looked_at = {seen for seen in self._looked_at if seen[0] != endpoint.name}
        elif not self._holds.watches(endpoint):  # else mail that was under way was faster
            self._saw(way, outcome)
        for one in tuple(self._ways()):
            if one.endpoint is endpoint:
                self._look(one)

    def _saw(self, way: Way, outcome: Outcome) -> None:
        if unreached(outcome):
            way.endpoint.broke(outcome, self._clock.now())
            self._holds.go_round(way)
        else:
            way.endpoint.answered()


def _is_known_to_others(endpoint: Endpoint) -> bool:
    return bool(endpoint.name) and endpoint.breaks
