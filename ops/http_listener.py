"""A small HTTP/1.1 server on h11: one request a connection, for a proxy in front or a browser on this machine.

Everything is bounded before anything is believed: connections, time, header and body. What an answer says is the
caller's; must never let a slow or broken client hold up another.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import h11

from config.network import host_port

_log = logging.getLogger("http")

_HEAD_LIMIT: Final = 16 << 10
_LINGER: Final = 1.0
"""Seconds that we read on after a refusal, so that the client sees it and no reset."""


class BodyTooLarge(Exception):
    """The body of a request is over the listener's limit."""


class _Silent(Exception):
    """The client went without a request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body is not read yet. `headers` are by lower-case name; `body` reads it and raises BodyTooLarge
    (h11.RemoteProtocolError when it is cut off, which is the listener's to answer). `peer` is the client's address.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: Callable[[], Awaitable[bytes]]
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered; `Content-Length` and `Connection` are added. A `bodiless` one only tells how long it is."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    bodiless: bool = False


Answer = Callable[[Request], Awaitable[Response]]


class HttpListener:
    """Listens on `address` (or at sockets that listen already) from `start` to `stop`. `answer` says what to
    answer; `refused(status, why)` is told of requests that never came so far. `connections` may be open at a time, a
    body may have `body_limit` octets, and a request may take `seconds` from its first octet to our answer. `purpose` is
    for messages: "for webhooks".
    """

    def __init__(
        self,
        address: str | Sequence[socket.socket],
        purpose: str,
        answer: Answer,
        refused: Callable[[int, str], object],
        *,
        connections: int,
        body_limit: int,
        seconds: float,
    ) -> None:
        self._address = address
        self._purpose = purpose
        self._answer = answer
        self._refused = refused
        self._connections = connections
        self._body_limit = body_limit
        self._seconds = seconds
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises OSError naming the address when it cannot be had."""
        if not isinstance(self._address, str):
            for each in self._address:
                start = asyncio.start_unix_server if each.family == socket.AF_UNIX else asyncio.start_server
                self._servers.append(await start(self._accepted, sock=each, limit=_HEAD_LIMIT))
            return
        host, port = host_port(self._address)
        try:
            self._servers.append(await asyncio.start_server(self._accepted, host, port, limit=_HEAD_LIMIT))
        except OSError as error:
            wrong = f"cannot listen on {self._address} {self._purpose}: {error.strerror or error}"
            raise OSError(error.errno, wrong) from error

    @property
    def port(self) -> int:
        """The real port, when the address says 0."""
        return int(self._servers[0].sockets[0].getsockname()[1]) if self._servers else 0

    @property
    def where(self) -> str:
        """Host and real port, of an address."""
        host, _ = host_port(self._address) if isinstance(self._address, str) else self._address[0].getsockname()[:2]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def stop(self) -> None:
        """Take no more, and end what is under way."""
        for server in self._servers:
            server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def _accepted(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer, len(self._open) < self._connections))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter, room: bool) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(reader, writer, room)
        except TimeoutError:
            self._refused(408, "too slow")
        except OSError:
            _log.debug("a client went away")
        finally:
            writer.close()

    async def _exchange(self, reader: StreamReader, writer: StreamWriter, room: bool) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        try:
            response = await self._judged(talk, reader, writer) if room else self._refusal(503, "too many at once")
        except h11.RemoteProtocolError as error:
            response = self._refusal(error.error_status_hint, "not HTTP")
        except _Silent:
            return
        except Exception:
            _log.exception("a request %s failed by a bug of ours", self._purpose)
            response = Response(500)
        await _send(talk, reader, writer, response)

    def _refusal(self, status: int, why: str) -> Response:
        self._refused(status, why)
        return Response(status)

    async def _judged(self, talk: h11.Connection, reader: StreamReader, writer: StreamWriter) -> Response:
        head = await _next(talk, reader, writer)
        if not isinstance(head, h11.Request):
            raise _Silent
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}

        async def body() -> bytes:
            if int(headers.get("content-length", 0)) > self._body_limit:
                raise BodyTooLarge
            octets = bytearray()
            while isinstance(part := await _next(talk, reader, writer), h11.Data):
                octets += part.data
                if len(octets) > self._body_limit:
                    raise BodyTooLarge
            return bytes(octets)

        peer = writer.get_extra_info("peername") or ("",)
        method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
        try:
            urlsplit(target)
        except ValueError:
            return self._refusal(400, "not a URL")
        response = await self._answer(Request(method, target, headers, body, str(peer[0])))
        return replace(response, bodiless=method == "HEAD")


async def _next(talk: h11.Connection, reader: StreamReader, writer: StreamWriter) -> object:
    """The next event of the connection. Raises h11.RemoteProtocolError when it is cut off in the middle."""
    while (event := talk.next_event()) is h11.NEED_DATA:
        if talk.they_are_waiting_for_100_continue:
            writer.write(talk.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        try:
            octets = await reader.read(1 << 16)
        except ConnectionError:  # its end, if not a polite one
            octets = b""
        talk.receive_data(octets)
    return event


async def _send(talk: h11.Connection, reader: StreamReader, writer: StreamWriter, response: Response) -> None:
    """The answer, and the end. A client that still speaks is read for a moment, so that it sees the answer."""
    if writer.is_closing():
        return  # it is gone, and hears nothing
    headers = [("Content-Length", str(len(response.body))), ("Connection", "close"), *response.headers]
    start = h11.Response(status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase)
    body = b"" if response.bodiless else response.body
    octets = [talk.send(start), talk.send(h11.Data(body)) if body else None]
    writer.write(b"".join(part for part in (*octets, talk.send(h11.EndOfMessage())) if part))
    await writer.drain()
    if talk.their_state is not h11.DONE and writer.can_write_eof():
        writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await reader.read(1 << 16):
                    pass
