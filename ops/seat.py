"""What a worker is handed by its parent (ops/workers.py), and its end of the line between the two.

A line that ends means that the parent is gone: then the worker must stop too, for nobody would start it again.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from config.rules import Rules
from intake.listeners import Listeners
from ops.check import Checked
from ops.nodes import rules_hash
from ops.reload import Reloader

_LONGEST: Final = 1 << 16
_LONGEST_REASON: Final = 2000


class Seat:
    """The place of worker `number` (from 1 on). `checked` is what it goes by, `listeners` are opened. `page` is where
    it shows its numbers to the first worker, which has the address that ops gave and finds the others at `pages`.
    """

    def __init__(
        self,
        number: int,
        checked: Checked,
        listeners: Listeners,
        page: socket.socket | None,
        pages: Mapping[int, bytes],
        line: socket.socket,
    ) -> None:
        self.number = number
        self.checked = checked
        self.listeners = listeners
        self.page = page
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
        """It does what is done once: page, webhooks, orders, the doctor."""
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
