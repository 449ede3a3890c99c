"""Where mail comes in: the listeners, what all their connections share, and how they end.

Must never be reachable by a client outside `listen[].allow`, and never drop a mail whose 250 was said.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

from config.network import host_port, listens_on_loopback, network
from config.relay_settings import Listen, Relay
from config.rules import Route
from intake.common import IDLE_SECONDS, Common
from intake.counters import Numbers
from intake.dialogue import Dialogue
from intake.door import Door, door_of
from intake.guarded import GuardedDialogue
from intake.handler import Handler
from spool.contract import Spool

_BACKLOG = 1024
"""Connections the kernel holds for us: a burst must not see its SYN dropped and wait a second."""
_MENDS: Final = {
    errno.EADDRINUSE: "another program listens there (`ss -ltnp` shows which): stop it, or change `listen`",
    errno.EACCES: "a port below 1024 needs our .socket unit, or CAP_NET_BIND_SERVICE in the .service unit",
    errno.EADDRNOTAVAIL: "this machine has no such address (`ip address` shows those it has)",
}


def _written(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(error: OSError) -> str:
    """What the system said, and what to do. asyncio puts words of its own around it, so the number counts."""
    said = os.strerror(error.errno) if error.errno else str(error)
    return f"{said}; {_MENDS[error.errno]}" if error.errno in _MENDS else said


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
        inherited: Sequence[socket.socket] = (),
    ) -> None:
        self.numbers = Numbers()
        handler = Handler(relay.limits, spool, match, hostname, clock, self.numbers)
        self._common = Common(hostname, relay.limits, self.numbers, handler, idle)
        self._relay = relay
        self._inherited = list(inherited)
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Listen on every address. Raises OSError naming the address when one cannot be had; then none is."""
        try:
            for listen in self._relay.listen:
                self._servers.append(await self._listen(listen))
            self._require_all_taken()
        except OSError:
            self._close_listeners()
            raise

    def _require_all_taken(self) -> None:
        """A port that systemd holds and we do not serve would leave its clients waiting for ever."""
        if self._inherited:
            raise OSError(
                f"systemd hands over {_written(self._inherited[0])}, which no `listen` in relay.yaml names;"
                " add it there with its `allow`, or take it out of the .socket unit"
            )

    async def _listen(self, listen: Listen) -> asyncio.Server:
        host, port = host_port(listen.address)
        loop = asyncio.get_running_loop()
        try:
            door = door_of(listen, loopback=listens_on_loopback(listen.address) and not listen.proxy_protocol)
            make = self._maker(listen, door, loop)
            ready = self._take_inherited(host, port)
            if ready is not None:
                return await loop.create_server(make, sock=ready, backlog=_BACKLOG)
            return await loop.create_server(
                make,
                host,
                port,
                backlog=_BACKLOG,
                reuse_port=self._relay.workers > 1 or None,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {listen.address}: {_why(error)}") from error

    def _maker(self, listen: Listen, door: Door, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a connection."""
        kind = GuardedDialogue if door.guarded else Dialogue
        if not listen.proxy_protocol:
            return lambda: kind(self._common, door, loop)
        from intake.proxy import Entrance

        balancers = tuple(network(text) for text in listen.proxy_protocol)
        return lambda: Entrance(balancers, lambda: kind(self._common, door, loop), loop)

    def _take_inherited(self, host: str, port: int) -> socket.socket | None:
        name = "127.0.0.1" if host == "localhost" else host
        found = next((one for one in self._inherited if one.getsockname()[:2] == (name, port)), None)
        if found is not None:
            self._inherited.remove(found)
        return found

    @property
    def listening(self) -> bool:
        """True while every address is listened on."""
        serving = [server for server in self._servers if server.is_serving()]
        return len(serving) == len(self._relay.listen)

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

    async def _ended(self, seconds: float | None) -> None:
        tasks = {dialogue.task for dialogue in self._common.open}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
