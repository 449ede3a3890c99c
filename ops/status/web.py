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
from contextlib import closing, suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ops.buffer_view import in_buffer
from ops.http_listener import Answer, BodyTooLarge, HttpListener, Request, Response
from ops.status.facts import Facts, Phase
from ops.status.guards import allowed_host
from ops.status.health import PATIENCE, Health, State
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
_WORKERS_PATIENCE: Final = 2.0
"""Seconds within which a commit must be on disk, where another worker waits for the answer."""
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
    """Answers at `address` from `start` to `stop`. Of several workers each answers there, for all; the pages for people
    are those of the first `seat`.
    """

    def __init__(self, facts: Facts, address: str, seat: Seat | None = None) -> None:
        self.facts = facts
        self._seat = seat
        self._names = facts.relay.status.hosts if facts.relay.status else ()
        self._health = Health(facts, PATIENCE if seat is None else _WORKERS_PATIENCE)
        self._lags = [0.0] * _KEPT
        self._volumes = Volumes(facts)
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0.0
        self._closing = threading.Event()
        self._looking = asyncio.Lock()
        self._seen: tuple[float, State, Mapping[str, Backlog] | None] | None = None
        self._scraped = (-inf, b"")
        self._thread = ThreadPoolExecutor(1, "status-page")
        self._desk: Desk | None = None
        self._listener = _listener(seat.pages.shared if seat else address, self._answer)
        self._inner = _listener([seat.pages.own[seat.number]], self._asked) if seat else None

    async def start(self) -> None:
        """Raises OSError naming the address when it cannot be had."""
        await self._listener.start()
        if self._inner:
            await self._inner.start()
        self._tasks = [asyncio.create_task(self._watch_the_loop()), asyncio.create_task(self._volumes.run())]
        if self._seat is None or self._seat.first:
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
        for listener in (self._listener, self._inner):
            if listener:
                await listener.stop()
        self._closing.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> tuple[State, Mapping[str, Backlog] | None]:
        """How the relay is, and what waits (None when the spool does not tell). Within a second the answer is the same:
        the spool must not be asked as often as pages are.
        """
        async with self._looking:
            if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
                self._seen = time.monotonic(), *await asyncio.gather(self._state(), self._backlog())
            return self._seen[1:]

    async def _state(self) -> State:
        """Of all workers, where there are several."""
        if self._seat is None:
            return await self._health.state()
        from ops.status import all_workers

        own, others = await asyncio.gather(
            self._health.state(), all_workers.states(self._seat.pages.others(self._seat.number))
        )
        return all_workers.together({self._seat.number: own, **others})

    async def count(self) -> None:
        """What was counted up to now is in the charts, if the spool takes it at once."""
        await self._volumes.refresh()

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
        with suppress(SpoolFull, SpoolUnavailable, TimeoutError):  # then the page shows what is there
            async with asyncio.timeout(_FRESH):
                await self.facts.spool.shown()

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
        if path not in ("/healthz", "/readyz", "/metrics"):
            return await self._page(request)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=(("Allow", "GET, HEAD"),))
        return await (self._metrics() if path == "/metrics" else self._probe(path))

    async def _probe(self, path: str) -> Response:
        report = (await self._state()).report
        good = report.ready if path == "/readyz" else report.alive
        return Response(200 if good else 503, report.text(good), (("Content-Type", "application/json"),))

    async def _metrics(self) -> Response:
        from ops.status import metrics

        if time.monotonic() - self._scraped[0] > _FRESH:
            own, backlog, nodes = await asyncio.gather(self._numbers(), self._backlog(), self._nodes())
            ends = await asyncio.to_thread(self.facts.hands.expiries) if self.facts.hands.expiries else ()
            families = [*own, *metrics.gather_shared(self.facts, metrics.Shared(backlog, ends, nodes))]
            self._scraped = time.monotonic(), await asyncio.to_thread(metrics.render, families)
        return Response(200, self._scraped[1], (("Content-Type", metrics.CONTENT_TYPE),))

    async def _numbers(self) -> list[Metric]:
        """What this process counts for itself, and what the other workers do."""
        if self._seat is None:
            return await self._own_numbers()
        from ops.status import all_numbers, all_workers

        others = all_workers.numbers(self._seat.pages.others(self._seat.number))
        own, theirs = await asyncio.gather(self._own_numbers(), others)
        return await asyncio.to_thread(all_numbers.merged, own, self._seat.number, theirs)

    async def _own_numbers(self) -> list[Metric]:
        from ops.status import metrics

        report = await self._health.look()
        return metrics.gather(self.facts, report.ready, max(self._lags))

    async def _asked(self, request: Request) -> Response:
        """What another worker asks of this one: how it is, its numbers, or a page in the name of its client."""
        from ops.status import all_workers

        path = urlsplit(request.target).path
        if path == all_workers.STATE:
            return Response(200, (await self._health.state()).text())
        if path == "/metrics" and self._seat is not None:
            from ops.status import all_numbers, metrics

            own = all_numbers.labelled(await self._own_numbers(), self._seat.number)
            return Response(200, await asyncio.to_thread(metrics.render, own))
        return await self._page(replace(request, peer=request.headers.get(all_workers.PEER, "")))

    async def _page(self, request: Request) -> Response:
        """Templates are loaded with the first page: a relay that is only scraped does not pay for them."""
        if self._seat is not None and not self._seat.first:
            return await _handed_on(self._seat.pages.names[1], request)
        if self._desk is None:
            from ops.status.desk import Desk

            self._desk = Desk(self)
        return await self._desk.answer(request)


def _listener(address: str | Sequence[socket.socket], answer: Answer) -> HttpListener:
    return HttpListener(
        address,
        "for the status page",
        answer,
        lambda status, why: emit(_log, "status_refused", logging.DEBUG, status=status, why=why),
        connections=CONNECTIONS,
        body_limit=BODY_LIMIT,
        seconds=SECONDS,
    )


async def _handed_on(first: bytes, request: Request) -> Response:
    """What the first worker answers: it knows who has logged in."""
    from ops.status import all_workers

    try:
        return await all_workers.hand_on(first, request)
    except BodyTooLarge:
        return Response(413)
    except OSError:
        return plain(503, "the worker that has the pages is started again; try again in a moment")


def plain(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), (("Content-Type", "text/plain; charset=utf-8"),))
