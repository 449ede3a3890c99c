"""The port on which providers post: HTTP/1.1 for a proxy in front, one request a connection.

Everything is bounded before anything is believed: connections, time, header and body. Must never answer with more than
a status.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import h11

from config.network import host_port
from ops.webhooks import PATH, WebhookDesk
from routing.events import emit

_log = logging.getLogger("webhooks")

CONNECTIONS: Final = 200
"""Most at one time; a provider that is refused comes back minutes later."""
BODIES: Final = 4
"""Most that are read at one time: they are in memory, and memory is short. The others wait their turn."""
BODY_LIMIT: Final = 1 << 20
"""Octets; a batch of SendGrid's is smaller."""
SECONDS: Final = 10.0
"""How long a request may take, from its first octet to our answer."""
_HEAD_LIMIT: Final = 16 << 10
_LINGER: Final = 1.0
"""Seconds that we read on after a refusal, so that the client sees it and no reset."""


class _Silent(Exception):
    """The client went without a request."""


class WebhookListener:
    """Listens on `address` from `start` to `stop`. `desk` judges what is posted."""

    def __init__(self, desk: WebhookDesk, address: str, *, seconds: float = SECONDS) -> None:
        self.desk = desk
        self._address = address
        self._seconds = seconds
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._bodies = asyncio.Semaphore(BODIES)

    async def start(self) -> None:
        """Raises OSError naming the address when it cannot be had."""
        host, port = host_port(self._address)
        try:
            self._server = await asyncio.start_server(self._accepted, host, port, limit=_HEAD_LIMIT)
        except OSError as error:
            wrong = f"cannot listen on {self._address} for webhooks: {error.strerror or error}"
            raise OSError(error.errno, wrong) from error
        level = logging.INFO if self.desk.upstreams else logging.WARNING
        paths = [f"{PATH}{name}" for name in self.desk.upstreams]
        missing = None if paths else "no upstream has a webhook key, so everything is refused"
        where = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        emit(_log, "webhooks_listening", level, address=where, paths=paths, why=missing)

    @property
    def port(self) -> int:
        """The real port, when the address says 0."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def stop(self) -> None:
        """Take no more, and end what is under way: whoever is not answered posts again."""
        if self._server:
            self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    def _accepted(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer, len(self._open) < CONNECTIONS))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter, room: bool) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(reader, writer, room)
        except TimeoutError:
            self.desk.refuse("", 408, "too slow")
        except OSError:
            _log.debug("a client of the webhooks went away")
        finally:
            writer.close()

    async def _exchange(self, reader: StreamReader, writer: StreamWriter, room: bool) -> None:
        talk = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        try:
            status = await self._judged(talk, reader, writer) if room else self.desk.refuse("", 503, "too many at once")
        except h11.RemoteProtocolError as error:
            status = self.desk.refuse("", error.error_status_hint, "not HTTP")
        except _Silent:
            return
        except Exception:
            _log.exception("a webhook failed by a bug of ours; its provider posts it again")
            status = 500
        await _answer(talk, reader, writer, status)

    async def _judged(self, talk: h11.Connection, reader: StreamReader, writer: StreamWriter) -> int:
        """The status for the request that comes."""
        request = await _next(talk, reader, writer)
        if not isinstance(request, h11.Request):
            raise _Silent
        upstream = self.desk.upstream_at(request.target.decode("latin-1"))
        if upstream is None:
            return self.desk.refuse("", 404, "no such path")
        if request.method != b"POST":
            return self.desk.refuse(upstream, 405, "not a POST")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        if int(headers.get("content-length", 0)) > BODY_LIMIT:
            return self.desk.refuse(upstream, 413, "too large")
        async with self._bodies:
            body = bytearray()
            while isinstance(part := await _next(talk, reader, writer), h11.Data):
                body += part.data
                if len(body) > BODY_LIMIT:
                    return self.desk.refuse(upstream, 413, "too large")
            return await self.desk.take(upstream, headers, bytes(body))


async def _next(talk: h11.Connection, reader: StreamReader, writer: StreamWriter) -> object:
    """The next event of the connection. Raises h11.RemoteProtocolError when it is cut off in the middle."""
    while (event := talk.next_event()) is h11.NEED_DATA:
        if talk.they_are_waiting_for_100_continue:
            writer.write(talk.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        talk.receive_data(await reader.read(1 << 16))
    return event


async def _answer(talk: h11.Connection, reader: StreamReader, writer: StreamWriter, status: int) -> None:
    """Only a status, and the end. Nothing is said of why: a stranger learns nothing, and the log has it."""
    headers = [("Content-Length", "0"), ("Connection", "close")]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "POST"))
    response = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
    writer.write((talk.send(response) or b"") + (talk.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    if talk.their_state is not h11.DONE and writer.can_write_eof():
        writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await reader.read(1 << 16):
                    pass
