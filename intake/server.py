"""Where mail comes in: the listeners, what all their connections share, and how they end.

Must never be reachable by a client outside `listen[].allow`, and never drop a mail whose 250 was said.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

from config import names
from config.network import listens_on_loopback, network
from config.relay_settings import Listen, Relay
from config.rules import Route
from intake.common import IDLE_SECONDS, Common
from intake.counters import Numbers
from intake.dialogue import Dialogue
from intake.door import Door, door_of
from intake.guarded import GuardedDialogue
from intake.handler import Handler
from intake.listeners import BACKLOG, Listeners, cannot_listen, close_listeners, open_listeners
from spool.contract import Spool


class Intake:
    """Accepts mail on every `listen` address into the spool. `numbers` is what it counted.

    `match` gives the route of an envelope sender ("" is the null sender), None when no rule names it; it is asked at
    each MAIL FROM, so a reload needs nothing here. `hostname` is said in greetings and trace headers. A client
    that is silent for `idle` seconds is told 421.
    """

    def __init__(
        self,
        relay: Relay,
        spool: Spool,
        match: Callable[[str], Route | None],
        hostname: str,
        clock: Callable[[], float] = time.time,
        *,
        idle: float = IDLE_SECONDS,
        listeners: Listeners | None = None,
    ) -> None:
        self.numbers = Numbers()
        postmaster = names.address(relay.call_centre.contact) if relay.call_centre else None
        handler = Handler(relay.limits, spool, match, hostname, clock, self.numbers, postmaster)
        self._common = Common(hostname, relay.limits, self.numbers, handler, idle)
        self._relay = relay
        self._listeners = listeners
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen on every address. Raises OSError naming the address when one cannot be had; then none is."""
        if self._listeners is None:
            self._listeners = open_listeners(self._relay.listen)
        try:
            for listen, sockets in zip(self._relay.listen, self._listeners, strict=True):
                await self._serve(listen, sockets)
        except OSError:
            self._close_listeners()
            raise

    async def _serve(self, listen: Listen, sockets: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        try:
            door = door_of(listen, loopback=listens_on_loopback(listen.address) and not listen.proxy_protocol)
            make = self._maker(listen, door, loop)
            for each in sockets:
                self._servers.append(await loop.create_server(make, sock=each, backlog=BACKLOG))
        except OSError as error:
            raise cannot_listen(listen.address, error) from error

    def _maker(self, listen: Listen, door: Door, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a connection."""
        kind = GuardedDialogue if door.guarded else Dialogue
        if not listen.proxy_protocol:
            return lambda: kind(self._common, door, loop)
        from intake.proxy import Entrance

        balancers = tuple(network(text) for text in listen.proxy_protocol)
        return lambda: Entrance(balancers, lambda: kind(self._common, door, loop), loop)

    @property
    def listening(self) -> bool:
        """True while every address is listened on."""
        return bool(self._servers) and all(server.is_serving() for server in self._servers)

    @property
    def full(self) -> bool:
        """True while a new client is told 421, for there are too many."""
        return len(self._common.open) >= self._relay.limits.connections

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and real port of every socket that is listened on."""
        return [one.getsockname()[:2] for server in self._servers for one in server.sockets]

    @property
    def receiving(self) -> int:
        """Octets in memory of mails that are not whole yet, or not kept yet; small ones do not count."""
        return self._common.memory.used

    async def stop(self, grace: float) -> None:
        """Stop accepting, say 421 to idle clients, and let transactions under way end within `grace` seconds.

        When it returns, no `spool.put` is under way.
        """
        self._common.stopping = True
        self._close_listeners()
        for dialogue in list(self._common.open):
            dialogue.leave()
        await self._ended(grace)
        for dialogue in list(self._common.open):
            dialogue.abort()
        await self._ended(None)

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        close_listeners(self._listeners or ())

    async def _ended(self, seconds: float | None) -> None:
        tasks = {dialogue.task for dialogue in self._common.open}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
