"""What the dialogues of one intake share: limits, counts, who is connected, and who may be.

Must never let more clients in than `limits.connections`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from config.relay_settings import Limits
from intake.counters import Numbers
from intake.door import Door
from intake.handler import Handler
from intake.memory import Memory

IDLE_SECONDS: Final = 300.0
"""RFC 5321 4.5.3.2.7 asks a server to wait at least five minutes for the next command."""


class Speaker(Protocol):
    """A dialogue as the one who ends it sees it."""

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends when the dialogue has ended."""

    def leave(self) -> None:
        """Say 421 and close, now or as soon as the transaction under way has ended."""

    def abort(self) -> None:
        """End it at once, whatever is under way."""


@dataclass(slots=True)
class Common:
    """What all dialogues of one intake share."""

    hostname: str
    limits: Limits
    numbers: Numbers
    handler: Handler
    idle: float = IDLE_SECONDS
    open: set[Speaker] = field(default_factory=set)
    stopping: bool = False
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(self.limits.content_memory, self.idle / 30)

    def refusal(self, peer: Any, door: Door) -> str | None:
        """Why a client may not speak, as a reply; None when it may. `peer` is the socket's peer name."""
        if not door.allows(peer):
            return "554 5.7.1 Your address is not in this listener's allow list"
        if self.stopping:
            return f"421 4.3.2 {self.hostname} is shutting down"
        if len(self.open) >= self.limits.connections:
            return f"421 4.3.2 {self.hostname} has too many connections; try again later"
        return None

    @property
    def crowd(self) -> bool:
        """So many clients are here that it matters whose mail has begun (`Memory.crowded`)."""
        return self.memory.crowded_by(len(self.open))

    def enter(self, dialogue: Speaker) -> None:
        """It is open for as long as its task runs, which may be longer than its connection: until `exit`."""
        self.open.add(dialogue)
        self.numbers.connections += 1
        self.numbers.open += 1

    def exit(self, dialogue: Speaker) -> None:
        """Its task ends."""
        self.open.remove(dialogue)
        self.numbers.open -= 1
