"""The connections below HTTP: asyncio's own transports, as the streams that httpcore reads and writes.

httpcore's own go through anyio, whose locks, time-outs and TLS in Python were a third of what a request costs. A name
with several addresses is tried on all of them, 0.25 s apart (RFC 8305). Must never go on without TLS where it was asked
for, nor take for HTTP what was said before TLS was up. It imports httpcore: import it at the first use.
"""

# ruff: noqa: ASYNC109, ARG002 - the signatures are httpcore's

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, cast

import aiohappyeyeballs
import httpcore
from aiohappyeyeballs import AddrInfoType

from upstreams.resolving import addresses

_NEXT_ADDRESS_SECONDS: Final = 0.25
_READ_AHEAD: Final = 128 * 1024
"""Octets that may lie unread; the other side waits with more."""
_STATUS_AT: Final = len(b"HTTP/1.1 ")

HUNG_UP: Final = "the other side hung up, or spoke before it was asked"


class Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection, for one reader and one writer at a time. Whoever uses it bounds how long that may take."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._below: asyncio.Transport | None = None
        """Below TLS, which does not say what waits there."""
        self._unread = bytearray()
        self._over = False
        self._error: Exception | None = None
        self._waits_to_read: asyncio.Future[None] | None = None
        self._waits_to_write: asyncio.Future[bool] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What came, waiting for some of it; b"" at the end."""
        if not self._unread and not self._over:
            self._waits_to_read = asyncio.get_running_loop().create_future()
            await self._waits_to_read
        if not self._unread and self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        if self._transport is not None and len(self._unread) < _READ_AHEAD:
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hand it to the transport; wait while that has too much. Raises WriteError, also when the other side
        refuses it meanwhile: it may read no more (RFC 9112 9.5).
        """
        if not buffer:
            return
        if self._transport is None or self.broken:
            raise httpcore.WriteError(str(self._error or "the connection is over"))
        self._transport.write(buffer)
        if self._waits_to_write is not None and (self._refused or not await self._waits_to_write):
            raise httpcore.WriteError("the other side refused it before it had all")

    async def aclose(self) -> None:
        """Close at once: what is not written yet is given up."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """The same connection with TLS, as a new stream; this one is used up. Raises ConnectError."""
        if self._transport is None or self._unread or self.broken:
            raise httpcore.ConnectError(str(self._error or HUNG_UP))
        inner, inside = self._transport, Stream()
        try:
            made = await asyncio.get_running_loop().start_tls(
                inner, inside, ssl_context, server_hostname=server_hostname
            )
        except OSError as error:  # ssl.SSLError is one
            raise httpcore.ConnectError(str(error)) from error
        if made is None:
            raise httpcore.ConnectError("connection lost")
        inside.connection_made(made)
        inside._below = inner
        return inside

    @property
    def broken(self) -> bool:
        """True once nothing can be written any more, as far as is known here."""
        return self._over or self._transport is None or self._transport.is_closing()

    @property
    def drained(self) -> bool:
        """True when all that was written has gone to the other side."""
        below = self._below or self._transport
        return below is None or below.get_write_buffer_size() == 0

    @property
    def readable(self) -> bool:
        """True when there is something to read, the end or an error included: what an idle connection must not have.

        The kernel is asked too: what has come since the event loop looked last counts.
        """
        if self._unread or self._transport is None or self.broken:
            return True
        behind = self._transport.get_extra_info("socket")
        if behind is None or behind.fileno() < 0:
            return True
        look = select.poll()
        look.register(behind.fileno(), select.POLLIN)
        return bool(look.poll(0))

    def get_extra_info(self, info: str) -> Any:
        """See `httpcore.AsyncNetworkStream`."""
        if info == "is_readable":
            return self.readable
        return None if self._transport is None else self._transport.get_extra_info(info)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by what it does, not by name

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) >= _READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._wake_reader()
        if self._refused:
            self._wake_writer(False)

    def eof_received(self) -> None:
        """The transport closes itself then."""
        self._over = True
        self._wake_reader()
        self._wake_writer(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._error = self._error or exc
        self._wake_reader()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._waits_to_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        self._wake_writer(True)

    @property
    def _refused(self) -> bool:
        """Whether what is unread begins a reply that is no success, and none of those that come before it (1xx)."""
        return len(self._unread) > _STATUS_AT and self._unread[_STATUS_AT] not in b"12"

    def _wake_writer(self, room: bool) -> None:
        waits, self._waits_to_write = self._waits_to_write, None
        if waits is not None and not waits.done():
            waits.set_result(room)

    def _wake_reader(self) -> None:
        waits, self._waits_to_read = self._waits_to_read, None
        if waits is not None and not waits.done():
            waits.set_result(None)


async def connect(host: str, port: int) -> Stream:
    """A connection to a host by name or address. Raises ConnectError."""
    try:
        places = await addresses(host, port)
    except (OSError, UnicodeError) as error:  # the latter from a name that no DNS can hold
        raise httpcore.ConnectError(_said(error)) from error
    return await connect_to_one(places)


async def connect_to_one(places: Sequence[AddrInfoType]) -> Stream:
    """A connection to the first of these addresses (as `getaddrinfo` tells them) that answers. Raises ConnectError."""
    try:
        connected = await aiohappyeyeballs.start_connection(places, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
        _, stream = await asyncio.get_running_loop().create_connection(Stream, sock=connected)
    except OSError as error:
        raise httpcore.ConnectError(_said(error)) from error
    if stream.readable:
        await stream.aclose()
        raise httpcore.ConnectError(HUNG_UP)
    return stream


def _said(error: OSError | UnicodeError) -> str:
    """What went wrong, without the address: the event loops word it each in its own way."""
    if isinstance(error, UnicodeError | socket.gaierror) or not error.errno:
        return str(getattr(error, "strerror", None) or error)
    return os.strerror(error.errno)
