"""A strict little HTTP/1.1 server for look-alikes: a handler gets a `Request` and gives a `Response` or a `Fault`.

It speaks only what our clients must speak: Content-Length framing, a Host header, kept connections. Anything else is
answered 400 and written to `problems`, which a test can assert to be empty.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

BODY_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request as read. `target` is the raw request target; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    """Which connection it came on, counted from 1: equal numbers mean the connection was kept."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Fault(Enum):
    """What a server does instead of answering."""

    STALL = "read everything, never answer, until the client goes"
    CUT = "read everything, close without an answer"
    CUT_IN_REPLY = "send the status line and headers of a success, promise a body, close"


class BeforeBody(Enum):
    """What a server does once it has the headers and before it reads the body, or before it answers to TLS."""

    READ = "go on"
    STALL = "never answer, until the client goes"
    CUT = "close"


Handler = Callable[[Request], Awaitable[Response | Fault]]


class HttpServer:
    """`async with HttpServer(handler) as server:` listens on 127.0.0.1, any free port, until the block ends.

    `before_body` and `before_tls` may be set at any time; they hold for the requests and connections that follow.
    `stalled` counts the times the server fell silent; `success` is the status of a reply that is cut.
    """

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.before_body = BeforeBody.READ
        self.before_tls = BeforeBody.READ
        self.stalled = 0
        self.success = 202
        self.connections = 0
        self.open_connections = 0
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """The address without a trailing slash; `localhost` with TLS, so that the name is checked too."""
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> HttpServer:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._secured(reader, writer) and await self._one(reader, writer, number):
                    pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _secured(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """TLS where it is wanted and not there yet; True when requests may come. Nothing may be awaited before it:
        the client speaks first.
        """
        if self._tls is None or writer.get_extra_info("ssl_object") is not None:
            return True
        if self.before_tls is BeforeBody.READ:
            await writer.start_tls(self._tls)
            return True
        if self.before_tls is BeforeBody.STALL:
            await self._fall_silent(reader)
        return False

    async def _fall_silent(self, reader: asyncio.StreamReader) -> None:
        self.stalled += 1
        while await reader.read(1 << 16):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Serve one request; True when the connection goes on."""
        head = await _head(reader)
        if head is None:
            return False
        if self.before_body is BeforeBody.CUT:
            return False
        if self.before_body is BeforeBody.STALL:
            await self._fall_silent(reader)
            return False
        try:
            request = await _request(head, reader, number)
        except ValueError as error:
            self.problems.append(str(error))
            _write(writer, Response(400, body=str(error).encode()))
            return False
        self.requests.append(request)
        answer = await self._handled(request)
        if isinstance(answer, Fault):
            if answer is Fault.STALL:
                await self._fall_silent(reader)
            elif answer is Fault.CUT_IN_REPLY:
                await _write_half(writer, self.success)
            return False
        _write(writer, answer)
        await writer.drain()
        return "close" not in request.headers.get("connection", "").lower()

    async def _handled(self, request: Request) -> Response | Fault:
        try:
            return await self._handler(request)
        except Exception as error:
            self.problems.append(f"the look-alike failed: {error!r}")
            return Response(500)


async def _head(reader: asyncio.StreamReader) -> list[str] | None:
    """Request line and header lines; None when the client closed between requests."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    return raw[:-4].decode("latin-1").split("\r\n")


async def _request(head: list[str], reader: asyncio.StreamReader, number: int) -> Request:
    method, _, rest = head[0].partition(" ")
    target, _, version = rest.partition(" ")
    if version != "HTTP/1.1" or not target.startswith("/") or " " in target or not target.isascii():
        raise ValueError(f"bad request line: {head[0]!r}")
    headers: dict[str, str] = {}
    for line in head[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            raise ValueError(f"bad header line: {name!r}")
        headers[name.lower()] = value.strip()
    if "host" not in headers:
        raise ValueError("no Host header (RFC 9112 3.2)")
    return Request(method, target, headers, await _content(method, headers, reader), number)


async def _content(method: str, headers: Mapping[str, str], reader: asyncio.StreamReader) -> bytes:
    if "transfer-encoding" in headers:
        raise ValueError("Transfer-Encoding: this server wants Content-Length")
    length = headers.get("content-length")
    if length is None:
        if method not in ("GET", "HEAD", "DELETE"):
            raise ValueError(f"{method} without Content-Length")
        return b""
    if not length.isdigit() or int(length) > BODY_LIMIT:
        raise ValueError(f"bad Content-Length: {length!r}")
    return await reader.readexactly(int(length))


def _write(writer: asyncio.StreamWriter, response: Response) -> None:
    lines = [f"HTTP/1.1 {response.status} Look-alike", f"Content-Length: {len(response.body)}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + response.body)


async def _write_half(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(b"HTTP/1.1 %d Look-alike\r\nContent-Length: 100\r\n\r\nonly this" % status)
    await writer.drain()
