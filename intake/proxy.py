"""PROXY protocol v2 before SMTP: a load balancer says which client it speaks for (haproxy.org, proxy-protocol.txt 2.2).

Only for listeners that name their balancers. Whoever is not one of them, or begins with anything else, is not served:
the address that `allow` judges must never be one that a client made up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Final, cast

from config.network import Network, client
from intake.dialogue import Dialogue
from routing.events import emit

_log = logging.getLogger("intake")

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST: Final = 4096
"""Octets of addresses and extensions; HAProxy sends some dozens."""
_PATIENCE: Final = 5.0
"""Seconds until the header must be there."""
_LENGTHS: Final = {0x11: 4, 0x21: 16}
"""Octets of an address, for TCP over IPv4 and over IPv6."""

Peer = tuple[str, int]


class HeaderWrong(ValueError):
    """What came is no header that says who the client is. The text says why."""


def read_header(data: bytes) -> tuple[Peer | None, int] | None:
    """The client and the header's length; None while it is not all there. The client is None where the balancer speaks
    for itself (a check of its own). Raises HeaderWrong.
    """
    if not _SIGNATURE.startswith(data[:12]):
        raise HeaderWrong("no PROXY protocol v2 header: let the balancer send one (HAProxy: send-proxy-v2)")
    if len(data) < 16:
        return None
    version, family, length = data[12] >> 4, data[13], int.from_bytes(data[14:16], "big")
    if version != 2 or data[12] & 15 > 1 or length > _LONGEST:
        raise HeaderWrong("a PROXY protocol header of another kind than v2")
    if len(data) < 16 + length:
        return None
    if data[12] & 15 == 0:
        return None, 16 + length
    size = _LENGTHS.get(family)
    if size is None or length < 2 * size + 4:
        raise HeaderWrong("a PROXY protocol header without the client's IP address")
    address = str(ipaddress.ip_address(data[16 : 16 + size]))
    return (address, int.from_bytes(data[16 + 2 * size : 18 + 2 * size], "big")), 16 + length


class Entrance(asyncio.Protocol):
    """A connection until its header is read; then it is handed to the dialogue that `make` makes."""

    def __init__(
        self, balancers: Sequence[Network], make: Callable[[], Dialogue], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._balancers = balancers
        self._make = make
        self._loop = loop
        self._data = b""
        self._peer = ""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if not peer:  # gone already, as a balancer that only looks whether the port is open
            self._transport = None
            transport.close()
            return
        self._peer, address = str(peer[0]), client(str(peer[0]))
        if not any(address in network for network in self._balancers):
            self._refuse("not one of the load balancers in `proxy_protocol`")
            return
        self._timer = self._loop.call_later(_PATIENCE, self._refuse, "no PROXY protocol header came")

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._transport is None:
            return
        self._data += data
        try:
            found = read_header(self._data)
        except HeaderWrong as error:
            self._refuse(str(error))
            return
        if found is not None:
            self._hand_over(*found)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the loop's word)
        """Called by the loop."""
        self._end()

    def _hand_over(self, client: Peer | None, length: int) -> None:
        transport, rest = self._end(), self._data[length:]
        if transport is None:
            return
        dialogue = self._make()
        dialogue.client = client
        transport.set_protocol(dialogue)
        dialogue.connection_made(transport)
        if rest:
            dialogue.data_received(rest)

    def _refuse(self, why: str) -> None:
        transport = self._end()
        if transport is not None:
            emit(_log, "proxy_refused", logging.WARNING, peer=self._peer, why=why)
            transport.abort()

    def _end(self) -> asyncio.Transport | None:
        """This is over here; what is left to be done with the connection is the caller's."""
        transport, self._transport = self._transport, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return transport
