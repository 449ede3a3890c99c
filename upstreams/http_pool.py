"""The kept connections of one HTTP client: one request at a time on each, and no more of them than the limit.

httpcore's pool asks each idle connection four times a request how it is; this one asks the one it hands out. Must never
hand out a connection that the other side has ended, nor one on which a request did not come to its end (a reply may be
earlier) or more than its reply came.
It imports httpcore: import it at the first use.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpcore

from routing.outcome import Stage
from upstreams.http_streams import Stream, connect
from upstreams.tls import Trust

IDLE_SECONDS: Final = 15.0
"""Well under what the providers keep idle connections, so that a request is seldom written to one just given up."""


@dataclass(slots=True, eq=False)
class Connection:
    """An open connection to `origin`. `idle_since` is in seconds of the pool's clock."""

    origin: httpcore.Origin
    stream: Stream
    http: httpcore.AsyncHTTP11Connection
    idle_since: float = 0.0


class Pool:
    """At most `limit` connections over all origins. `seconds` is how long connecting may take, TLS included; `clock`
    counts seconds and never goes back.
    """

    def __init__(self, limit: int, seconds: float, trust: Trust, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._seconds = seconds
        self._trust = trust
        self._clock = clock
        self._room = asyncio.Semaphore(limit)
        self._busy = 0
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def take(self, origin: httpcore.Origin, reached: Callable[[Stage], None]) -> Connection:
        """A connection to `origin` for one request, to be given back; waits for room. `reached` is told TLS.

        The one used last comes first, so that those too many grow old. Raises TimeoutError and httpcore's errors.
        """
        await self._room.acquire()
        self._busy += 1
        try:
            await self._close_old()
            return await self._kept(origin) or await self._connected(origin, reached)
        except BaseException:
            self._leave()
            raise

    async def give_back(self, connection: Connection) -> None:
        """After the request, however it ended: kept when it ended well."""
        self._leave()
        if connection.http.is_idle() and connection in self._open and not _said_more(connection.http):
            connection.idle_since = self._clock()
            self._idle.append(connection)
        else:
            await self._close(connection)

    async def close(self) -> None:
        """Close every connection, those with a request under way too."""
        for connection in list(self._open):
            await self._close(connection)

    async def _close_old(self) -> None:
        oldest = self._clock() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since < oldest:
            await self._close(self._idle.pop(0))

    async def _kept(self, origin: httpcore.Origin) -> Connection | None:
        for place in range(len(self._idle) - 1, -1, -1):
            if self._idle[place].origin == origin and self._idle[place].stream.drained:
                connection = self._idle.pop(place)
                if not connection.stream.readable:
                    return connection
                await self._close(connection)
        return None

    async def _connected(self, origin: httpcore.Origin, reached: Callable[[Stage], None]) -> Connection:
        if len(self._idle) + self._busy > self._limit:
            await self._close(self._idle.pop(0))
        context = await self._trusting() if origin.scheme == b"https" else None
        stream = await self._stream(origin, context, reached)
        connection = Connection(origin, stream, httpcore.AsyncHTTP11Connection(origin, stream))
        self._open.add(connection)
        return connection

    async def _stream(
        self, origin: httpcore.Origin, context: ssl.SSLContext | None, reached: Callable[[Stage], None]
    ) -> Stream:
        host, stream = origin.host.decode("ascii"), None
        try:
            async with asyncio.timeout(self._seconds):
                stream = await connect(host, origin.port)
                if context is None:
                    return stream
                reached(Stage.TLS)
                secured = await stream.start_tls(context, host)
        except BaseException:
            if stream is not None:
                await stream.aclose()
            raise
        self._trust.saw(f"{host}:{origin.port}", secured.get_extra_info("ssl_object"))
        return secured

    async def _trusting(self) -> ssl.SSLContext:
        if self._context is None:
            context = await asyncio.to_thread(self._trust.for_http)
            context.set_alpn_protocols(["http/1.1"])
            self._context = context
        return self._context

    async def _close(self, connection: Connection) -> None:
        self._open.discard(connection)
        await connection.http.aclose()

    def _leave(self) -> None:
        self._busy -= 1
        self._room.release()


def _said_more(http: httpcore.AsyncHTTP11Connection) -> bool:
    """Whether more came than the one reply: h11 keeps it, and the next request would have it for its answer.
    httpcore has no other way to ask.
    """
    return bool(http._h11_state.trailing_data[0])
