"""httpcore's own streams, with one question answered faster: whether an idle connection has something to read.

The pool asks it of each idle connection, twice a request, and finding the socket behind TLS cost more than asking it.
Must never read, write or close in another way than httpcore does. It imports httpcore: import it at the first use.
"""

# ruff: noqa: ASYNC109 - the signatures are httpcore's

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore


class Stream(httpcore.AsyncNetworkStream):
    """A stream of httpcore's, `inner`; the socket is looked up once. Without `poll` (Windows) httpcore answers.

    Not before it is asked for: of a connection that is broken as soon as it is made there is no socket to be had.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._poll: select.poll | None = None
        self._socket: socket.socket | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        self._socket = None  # its number may soon be another's
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and hasattr(select, "poll"):
            self._socket = self._socket or self._inner.get_extra_info("socket")
            return self._socket is None or self._readable(self._socket)
        return self._inner.get_extra_info(info)

    def _readable(self, behind: socket.socket) -> bool:
        """True when there is something to read, the end or an error included: what an idle connection must not have."""
        number = behind.fileno()
        if number < 0:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(number, select.POLLIN)
        return bool(self._poll.poll(0))


class Backend(httpcore.AnyIOBackend):
    """httpcore's connections, as `Stream`s."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await super().connect_tcp(host, port, timeout, local_address, socket_options))
