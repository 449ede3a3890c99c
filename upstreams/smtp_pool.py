"""Kept connections of one SMTP upstream, one shelf per route and credential, with caps on age, idleness and use.

It must never hand a connection to another route or login than the one that opened it: a customer's mail would leave
under another customer's name.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from routing.outcome import Outcome
from upstreams.smtp_session import Opener, Session, SmtpWay
from upstreams.smtp_wire import Wire

_LEAVE_SECONDS: Final = 2.0

DATA_SECONDS: Final = 600.0
"""How long a server may take to answer after the whole mail (RFC 5321 4.5.3.2.6)."""


@dataclass(frozen=True, slots=True)
class SmtpLimits:
    """What one upstream may use. Times in seconds; `timeout` per reply, `data_timeout` for the one to the final dot.

    `age` and `idle` bound a kept connection, `mails` the mails on it, `connections` all that are open at one time,
    `recipients` one mail.
    """

    timeout: float = 60.0
    data_timeout: float = DATA_SECONDS
    connections: int = 5
    age: float = 300.0
    idle: float = 30.0
    mails: int = 100
    recipients: int = 100


@dataclass(frozen=True, slots=True)
class Shelf:
    """Who may share a connection."""

    route: str
    way: SmtpWay


class SmtpPool:
    """Sessions kept and lent. `borrow` opens where nothing fitting is kept."""

    def __init__(self, limits: SmtpLimits, opener: Opener) -> None:
        self._limits = limits
        self._opener = opener
        self._idle: dict[Shelf, list[Session]] = {}
        self._busy = 0
        self._most = limits.connections
        self._leaving: set[Wire] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def borrow(self, shelf: Shelf, *, fresh: bool = False) -> Session | Outcome:
        """A session for one mail, kept or (always when `fresh`) new. Return it by `give_back` or `drop`."""
        self._busy += 1
        try:
            session = (None if fresh else self._kept(shelf)) or await self._open(shelf)
        except BaseException:
            self._busy -= 1
            raise
        if isinstance(session, Outcome):
            self._busy -= 1
        return session

    def give_back(self, shelf: Shelf, session: Session) -> None:
        """Keep a session after its mail, unless it has done its work."""
        self._busy -= 1
        session.idle_since = session.wire.time
        if session.mails == 1:
            self._opener.remember(session, shelf.way)
        if not self._good(session):
            self._leave(session)
            return
        self._idle.setdefault(shelf, []).append(session)
        if self._sweeper is None:
            self._sweep_at(session.idle_since + self._limits.idle)

    def drop(self, session: Session) -> None:
        """Close a session whose state is not known."""
        self._busy -= 1
        session.wire.abort()

    def keep(self, connections: int) -> None:
        """Have no more than so many open, but for those in use."""
        self._most = min(connections, self._limits.connections)
        self._make_room(self._most)

    async def close(self) -> None:
        """Take leave on every kept connection; those that do not go within two seconds are dropped."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for session in [session for kept in self._idle.values() for session in kept]:
            self._leave(session)
        self._idle.clear()
        if self._leaving:
            await asyncio.wait([wire.gone for wire in self._leaving], timeout=_LEAVE_SECONDS)
        for wire in self._leaving:
            wire.abort()

    # ---- inside

    def _kept(self, shelf: Shelf) -> Session | None:
        """The session of the shelf that was used last, if it is good for one more mail."""
        kept = self._idle.get(shelf, [])
        while kept:
            session = kept.pop()
            if self._good(session):
                return session
            self._leave(session)
        return None

    async def _open(self, shelf: Shelf) -> Session | Outcome:
        """A new session; it counts as busy already."""
        self._make_room(self._most)
        return await self._opener.open(shelf.way)

    def _make_room(self, most: int) -> None:
        """The longest idle ones leave first where the cap on connections asks for it."""
        idle = sorted(((s.idle_since, key, s) for key, kept in self._idle.items() for s in kept), key=itemgetter(0))
        for _, key, session in idle[: max(0, self._busy + len(idle) - most)]:
            self._idle[key].remove(session)
            self._leave(session)

    def _good(self, session: Session) -> bool:
        now = session.wire.time
        return (
            session.wire.alive
            and not session.spent
            and session.mails < self._limits.mails
            and now - session.opened < self._limits.age
            and now - session.idle_since < self._limits.idle
        )

    def _leave(self, session: Session) -> None:
        wire = session.wire
        self._leaving.add(wire)
        wire.gone.add_done_callback(lambda _: self._leaving.discard(wire))
        if session.spent:
            wire.abort()
        else:
            wire.quit()

    def _sweep_at(self, when: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Give up what has been idle too long, and come back when the next one may be."""
        self._sweeper = None
        for shelf, kept in list(self._idle.items()):
            for session in [session for session in kept if not self._good(session)]:
                kept.remove(session)
                self._leave(session)
            if not kept:
                del self._idle[shelf]
        if self._idle:
            self._sweep_at(min(kept[0].idle_since for kept in self._idle.values()) + self._limits.idle)
