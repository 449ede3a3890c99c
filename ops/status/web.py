"""The HTTP side: which path is answered by what, and the rules that hold for every answer.

Must never answer a request whose Host is a name that ops did not give: a page on the web could point a name of its own
at this machine (DNS rebinding). The disk and the templates are for a thread of their own, so that no page delays mail.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ops.buffer_view import in_buffer
from ops.http_listener import HttpListener, Request, Response
from ops.status.facts import Facts, Phase
from ops.status.guards import allowed_host
from ops.status.health import Health, Report
from ops.status.volumes import Volumes
from routing.events import emit
from spool.contract import SpoolFull, SpoolUnavailable, SpoolUnusable
from spool.opening import is_shared
from spool.view import NodeLine, SpoolView

if TYPE_CHECKING:
    from prometheus_client import Metric

    from ops.seat import Seat
    from ops.status.desk import Desk
    from spool.contract import Backlog, Buffered

_log = logging.getLogger("status")

CONNECTIONS: Final = 50
BODY_LIMIT: Final = 64 << 10
SECONDS: Final = 30.0
_FRESH: Final = 1.0
"""Seconds for which an answer of the rooms stands."""
_TICK: Final = 1.0
_KEPT: Final = 60
_REST: Final = 3.0
"""How many times as long as a page took its thread rests after it: so much of the time is mail's, whoever asks."""
_LONGEST_REST: Final = 2.0
_SLICE: Final = 0.0005
"""Seconds that a page may keep the interpreter's lock while mail wants it; as a rule it is ten times as long."""

HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)


class Site:
    """Answers at `status.address` from `start` to `stop`, or at a socket that listens already. Of several workers the
    one in the first `seat` speaks for all.
    """

    def __init__(self, facts: Facts, address: str | socket.socket, seat: Seat | None = None) -> None:
        self.facts = facts
        self._seat = seat
        self._names = facts.relay.status.hosts if facts.relay.status else ()
        self._health = Health(facts)
        self._lags = [0.0] * _KEPT
        self._volumes = Volumes(facts)
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0.0
        self._closing = threading.Event()
        self._looking = asyncio.Lock()
        self._seen: tuple[float, Report, Mapping[str, Backlog] | None] | None = None
        self._scraped = (-inf, b"")
        self._thread = ThreadPoolExecutor(1, "status-page")
        self._desk: Desk | None = None
        self._listener = HttpListener(
            address,
            "for the status page",
            self._answer,
            lambda status, why: emit(_log, "status_refused", logging.DEBUG, status=status, why=why),
            connections=CONNECTIONS,
            body_limit=BODY_LIMIT,
            seconds=SECONDS,
        )

    async def start(self) -> None:
        """Raises OSError naming the address when it cannot be had."""
        await self._listener.start()
        self._tasks = [asyncio.create_task(self._watch_the_loop()), asyncio.create_task(self._volumes.run())]
        if self._listener.where:
            emit(_log, "status_listening", address=self._listener.where)

    def serving(self) -> None:
        """Mail is taken from now on."""
        self.facts.phase = Phase.SERVING

    def draining(self) -> None:
        """No new mail is taken; the page tells so until the end."""
        self.facts.phase = Phase.DRAINING

    async def stop(self) -> None:
        """Answer no more."""
        for task in self._tasks:
            task.cancel()
        await self._volumes.write()
        await self._listener.stop()
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> tuple[Report, Mapping[str, Backlog] | None]:
        """How the relay is, and what waits (None when the spool does not tell). Within a second the answer is the same:
        the spool must not be asked as often as pages are.
        """
        async with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
                report = await self._health.look()
                await self._volumes.refresh()
                self._seen = time.monotonic(), report, await self._backlog()
            return self._seen[1:]

    async def buffered(self) -> Buffered | None:
        """What the local buffer holds; of several workers, what all of theirs do."""
        own, spool = self.facts.spool.buffered, self.facts.relay.spool
        if own is None or self._seat is None:
            return own
        all_ = await asyncio.to_thread(in_buffer, spool)
        return replace(own, mails=all_.mails) if all_ else own

    def forget(self) -> None:
        """Somebody ordered something: the next look is a new one."""
        self._seen = None

    async def _backlog(self) -> Mapping[str, Backlog] | None:
        try:
            async with asyncio.timeout(5):
                return await self.facts.spool.backlog()
        except (SpoolFull, SpoolUnavailable, TimeoutError):
            return None

    async def _nodes(self) -> Sequence[NodeLine]:
        """The relays that share the spool; none where it is not shared, or does not tell."""
        if not is_shared(self.facts.relay.spool.url):
            return ()

        def ask() -> Sequence[NodeLine]:
            with closing(self.facts.view()) as view:
                return view.nodes()

        try:
            async with asyncio.timeout(5):
                return await asyncio.to_thread(ask)
        except (SpoolUnusable, TimeoutError):
            return ()

    async def off_the_loop(self, make: Callable[[SpoolView], bytes | None]) -> bytes | None:
        """What `make` makes of the spool, in the page's thread. Raises SpoolUnusable."""

        def work() -> bytes | None:
            began, slice_ = time.monotonic(), sys.getswitchinterval()
            sys.setswitchinterval(_SLICE)
            try:
                with closing(self.facts.view()) as view:
                    return make(view)
            finally:
                sys.setswitchinterval(slice_)
                self._busy = time.monotonic() - began

        made = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._thread.submit(self._closing.wait, min(_LONGEST_REST, _REST * self._busy))
        return made

    async def _watch_the_loop(self) -> None:
        """How late a timer of a second comes: what every client of ours feels."""
        loop, tick = asyncio.get_running_loop(), 0
        while True:
            wanted = loop.time() + _TICK
            await asyncio.sleep(_TICK)
            self._lags[tick % _KEPT] = max(0.0, loop.time() - wanted)
            tick += 1

    async def _answer(self, request: Request) -> Response:
        response = await self._routed(request)
        return Response(response.status, response.body, (*response.headers, *HEADERS))

    async def _routed(self, request: Request) -> Response:
        if not allowed_host(request.headers.get("host", ""), self._names):
            emit(_log, "status_refused", logging.WARNING, status=421, why="the Host header names another machine")
            return plain(421, "this name is not ours; add it to status.hosts, or ask by address")
        path = urlsplit(request.target).path
        if self._seat is not None and not self._seat.first and path != "/metrics":
            return plain(404, "the page is the first worker's")
        if path not in ("/healthz", "/readyz", "/metrics"):
            return await self._page(request)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=(("Allow", "GET, HEAD"),))
        return await (self._metrics() if path == "/metrics" else self._probe(path))

    async def _probe(self, path: str) -> Response:
        report = await self._health.look()
        good = report.ready if path == "/readyz" else report.alive
        return Response(200 if good else 503, report.text(good), (("Content-Type", "application/json"),))

    async def _metrics(self) -> Response:
        from ops.status import metrics

        if time.monotonic() - self._scraped[0] > _FRESH:
            (report, backlog), nodes = await asyncio.gather(self.look(), self._nodes())
            ends = await asyncio.to_thread(self.facts.hands.expiries) if self.facts.hands.expiries else ()
            asked = metrics.Asked(backlog, report.ready, max(self._lags), ends, nodes)
            families = metrics.gather(self.facts, asked)
            if self._seat is not None:
                families = await self._of_all(families, self._seat)
            if self._seat is None or self._seat.first:
                families += metrics.gather_shared(self.facts, asked)
            self._scraped = time.monotonic(), await asyncio.to_thread(metrics.render, families)
        return Response(200, self._scraped[1], (("Content-Type", metrics.CONTENT_TYPE),))

    async def _of_all(self, families: list[Metric], seat: Seat) -> list[Metric]:
        from ops.status import all_workers

        if not seat.first:
            return all_workers.labelled(families, seat.number)
        others = await all_workers.ask_all(seat.pages)
        return await asyncio.to_thread(all_workers.together, families, seat.number, others)

    async def _page(self, request: Request) -> Response:
        """Templates are loaded with the first page: a relay that is only scraped does not pay for them."""
        if self._desk is None:
            from ops.status.desk import Desk

            self._desk = Desk(self)
        return await self._desk.answer(request)


def plain(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), (("Content-Type", "text/plain; charset=utf-8"),))
