"""What a worker is handed by its parent (ops/workers.py), and its end of the line between the two.

A line that ends means that the parent is gone: then the worker must stop too, for nobody would start it again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from config.relay_settings import Relay
from config.rules import Rules
from intake.listeners import Listeners, open_address
from ops.check import Checked
from ops.nodes import rules_hash
from ops.reload import Reloader
from routing.events import emit

_log = logging.getLogger("status")
_LONGEST: Final = 1 << 16
_LONGEST_REASON: Final = 2000


class Pages:
    """The sockets of the status page. At `shared`, the address that ops gave, all workers answer, so that somebody does
    whatever befalls one of them; each tells the others of itself at a Unix socket of its `own` (by its number). All are
    empty without `status:`, and when the address cannot be had, which is logged.
    """

    def __init__(self, relay: Relay) -> None:
        self.shared: tuple[socket.socket, ...] = ()
        self.own: dict[int, socket.socket] = {}
        if relay.status is None:
            return
        try:
            self.shared = open_address(relay.status.address)
        except OSError as error:
            emit(_log, "status_unavailable", logging.ERROR, error=str(error))
            return
        self.own = {number: _nameless() for number in range(1, relay.workers + 1)}
        self.names: Mapping[int, bytes] = {number: each.getsockname() for number, each in self.own.items()}

    def others(self, number: int) -> dict[int, bytes]:
        """Where a worker finds the others."""
        return {one: name for one, name in self.names.items() if one != number}

    def leave(self, number: int | None = None) -> None:
        """Close, in this process, what is not a worker's (None: all but the workers' own)."""
        for each in self.shared if number is None else [one for of, one in self.own.items() if of != number]:
            each.close()


class Seat:
    """The place of worker `number` (from 1 on). `checked` is what it goes by; `listeners` and `pages` are opened."""

    def __init__(
        self,
        number: int,
        checked: Checked,
        listeners: Listeners,
        pages: Pages,
        line: socket.socket,
    ) -> None:
        self.number = number
        self.checked = checked
        self.listeners = listeners
        self.pages = pages
        self.on_event: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told of what befell another worker, as the parent's log has it."""
        self._line = line
        self._aloud = True
        self._round = self._voted = 0
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._gone = False

    @property
    def first(self) -> bool:
        """It does what is done once: the pages for people, webhooks, orders, the doctor."""
        return self.number == 1

    def obey(self, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """From now on, on this loop."""
        loop = asyncio.get_running_loop()
        self._line.setblocking(False)

        def heard() -> None:
            with suppress(BlockingIOError):
                while told := hear(self._line):
                    self._heard(told, reload)
                loop.remove_reader(self._line)
                self._gone = True
                for answer in self._answers.values():
                    _give(answer, "the parent is gone")
                stop()

        loop.add_reader(self._line, heard)

    def _heard(self, told: Mapping[str, Any], reload: Callable[[], None]) -> None:
        if "event" in told:
            if self.on_event is not None:
                self.on_event(told["event"], told["fields"])
            return
        number = told["round"]
        if "answer" in told:
            _give(self._answer(number), told["answer"])
            return
        self._round, self._aloud = number, told["aloud"]
        for old in [one for one in self._answers if one < number and self._answers[one].done()]:
            del self._answers[old]
        reload()

    async def reload(self, reloader: Reloader) -> None:
        """As the parent asked. One that fails before it comes to the vote is a vote too."""
        number = self._round
        await reloader.reload(aloud=self._aloud)
        if self._voted < number:
            self._vote(f"worker {self.number} failed at them; its log says why", None)

    async def agree(self, refusal: str | None, rules: Rules | None) -> str | None:
        """See `ops.reload.Agree`: what all workers together say."""
        if self._gone or not self._vote(refusal, rules):
            return "the parent is gone"
        return await self._answer(self._voted)

    def _vote(self, refusal: str | None, rules: Rules | None) -> bool:
        self._voted = self._round
        words = {"round": self._round, "refusal": refusal, "rules": rules_hash(rules) if rules else None}
        return tell(self._line, words)

    def _answer(self, number: int) -> asyncio.Future[str | None]:
        return self._answers.setdefault(number, asyncio.get_running_loop().create_future())


def _nameless() -> socket.socket:
    """A Unix socket that listens, in no folder (unix(7), autobind)."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind("")
    made.listen()
    return made


def tell(line: socket.socket, words: Mapping[str, Any]) -> bool:
    """Send one message; False when nobody is there, or does not read."""
    short = {name: one[:_LONGEST_REASON] if isinstance(one, str) else one for name, one in words.items()}
    try:
        line.send(json.dumps(short).encode())
    except OSError:
        return False
    return True


def hear(line: socket.socket) -> dict[str, Any] | None:
    """The next message; None at the end. Raises BlockingIOError when there is none yet."""
    try:
        octets = line.recv(_LONGEST)
    except ConnectionError:
        return None
    found: dict[str, Any] | None = json.loads(octets) if octets else None
    return found


def _give(answer: asyncio.Future[str | None], refusal: str | None) -> None:
    if not answer.done():
        answer.set_result(refusal)
