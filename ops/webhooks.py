"""What providers tell later about mails they took: checked, put on the timeline, counted by customer.

Believes nothing that is not signed, takes nothing twice, and must never log a body or what is in it but the envelope's
recipient and the far server's words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from config.rules import Rules, users_of
from routing.events import emit
from routing.provider_events import EventReader, Post, ProviderEvent, Refusal, Told
from spool.contract import Noted, Notice, Spool, SpoolFull, SpoolUnavailable
from upstreams.base import Kinds

_log = logging.getLogger("webhooks")

PATH: Final = "/webhooks/"
"""What stands before an upstream's name."""

_AT_A_TIME: Final = 50
"""Events of one batch that are logged before mail gets its turn again."""

_TELL_EVERY: Final = 60.0
"""Seconds between two log lines about the same sort of refusal: whoever gets at the port must not fill the log."""


@dataclass(slots=True)
class WebhookNumbers:
    """What was told since the start; ops reads it, nobody else writes it.

    `told` counts events by (route, word), each once. By upstream: `known` are events that came again, `unknown` those
    of mails that are not its own or not known any more, `ignored` news that is not of delivery (opens, clicks).
    `refused` counts requests by (upstream, why); the upstream is "" where none was meant.
    """

    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Door:
    """An upstream whose provider may tell us something: how its posts are read, and the routes that leave by it."""

    read: EventReader
    routes: frozenset[str]


class WebhookDesk:
    """Takes what was posted, for every upstream of `rules` that has a key. `clock` gives unix seconds."""

    def __init__(self, spool: Spool, kinds: Kinds, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self.numbers = WebhookNumbers()
        self._spool = spool
        self._kinds = kinds
        self._clock = clock
        self._doors: dict[str, _Door] = {}
        self._said_at: dict[tuple[str, str], float] = {}
        self.replace(rules)

    @property
    def upstreams(self) -> list[str]:
        """Those that have a key."""
        return list(self._doors)

    def replace(self, rules: Rules) -> None:
        """Go by new rules from the next request on."""
        doors: dict[str, _Door] = {}
        users = users_of(rules.routes)
        for name, upstream in rules.upstreams.items():
            events = self._kinds[upstream.kind].events
            read = events(upstream.settings) if events else None
            if read is not None:
                doors[name] = _Door(read, frozenset(users.get(name, ())))
        self._doors = doors

    def upstream_at(self, target: str) -> str | None:
        """The upstream that a request target means; None when there is nothing."""
        name = target.removeprefix(PATH)
        return name if name != target and name in self._doors else None

    async def take(self, upstream: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take one request; the status to answer with. `headers` are by lower-case name, `body` is as it came."""
        door = self._doors.get(upstream)
        if door is None:
            return self.refuse("", 404, "no such path")  # the rules changed while it was read
        said = door.read(headers, body, self._clock())
        if isinstance(said, Refusal):
            return self.refuse(upstream, said.status, said.why)
        try:
            noted = await self._spool.note(Notice(upstream, door.routes, said.events, said.seal, said.until))
        except (SpoolFull, SpoolUnavailable) as error:
            return self.refuse(upstream, 503, f"the spool cannot take it: {error}", "the spool cannot take it")
        if noted is None:
            return self.refuse(upstream, said.again, "taken before")
        await self._count(upstream, said, noted)
        return 200

    def refuse(self, upstream: str, status: int, why: str, sort: str | None = None) -> int:
        """Count a request that is not taken, and say so now and then. `sort` is what it counts as when `why` varies."""
        key = upstream, sort or why
        self.numbers.refused[key] += 1
        now = self._clock()
        if not 0 <= now - self._said_at.get(key, -_TELL_EVERY) < _TELL_EVERY:
            self._said_at[key] = now
            seen = self.numbers.refused[key]
            emit(
                _log, "webhook_refused", logging.WARNING, upstream=upstream or None, status=status, why=why, times=seen
            )
        return status

    async def _count(self, upstream: str, post: Post, noted: tuple[Noted, ...]) -> None:
        self.numbers.ignored[upstream] += post.ignored
        for number, (event, result) in enumerate(zip(post.events, noted, strict=True), 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if result.route is None:
                self.numbers.unknown[upstream] += 1
            elif not result.new:
                self.numbers.known[upstream] += 1
            else:
                self.numbers.told[result.route, event.told] += 1
                _tell(event, upstream, result.route)


def _tell(event: ProviderEvent, upstream: str, route: str) -> None:
    good = event.told in (Told.DELIVERED, Told.DEFERRED)
    emit(
        _log,
        f"provider_{event.told}",
        logging.INFO if good else logging.WARNING,
        mail=event.mail,
        route=route,
        upstream=upstream,
        recipient=event.recipient,
        reply=event.reply or None,
        at=event.at,
    )
