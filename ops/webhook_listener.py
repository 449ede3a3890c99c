"""The port on which providers post, each on the path of its upstream.

Everything is bounded before anything is believed. Must never answer with more than a status.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ops.http_listener import BodyTooLarge, HttpListener, Request, Response
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


class WebhookListener:
    """Listens on `address` from `start` to `stop`. `desk` judges what is posted."""

    def __init__(self, desk: WebhookDesk, address: str, *, seconds: float = SECONDS) -> None:
        self.desk = desk
        self._bodies = asyncio.Semaphore(BODIES)
        self._listener = HttpListener(
            address,
            "for webhooks",
            self._answer,
            lambda status, why: desk.refuse("", status, why),
            connections=CONNECTIONS,
            body_limit=BODY_LIMIT,
            seconds=seconds,
        )

    async def start(self) -> None:
        """Raises OSError naming the address when it cannot be had."""
        await self._listener.start()
        level = logging.INFO if self.desk.upstreams else logging.WARNING
        paths = [f"{PATH}{name}" for name in self.desk.upstreams]
        missing = None if paths else "no upstream has a webhook key, so everything is refused"
        emit(_log, "webhooks_listening", level, address=self._listener.where, paths=paths, why=missing)

    @property
    def port(self) -> int:
        """The real port, when the address says 0."""
        return self._listener.port

    async def stop(self) -> None:
        """Take no more, and end what is under way: whoever is not answered posts again."""
        await self._listener.stop()

    async def _answer(self, request: Request) -> Response:
        """Only a status. Nothing is said of why: a stranger learns nothing, and the log has it."""
        status = await self._judged(request)
        return Response(status, headers=(("Allow", "POST"),) if status == 405 else ())

    async def _judged(self, request: Request) -> int:
        upstream = self.desk.upstream_at(request.target)
        if upstream is None:
            return self.desk.refuse("", 404, "no such path")
        if request.method != "POST":
            return self.desk.refuse(upstream, 405, "not a POST")
        try:
            async with self._bodies:
                body = await request.body()
                return await self.desk.take(upstream, request.headers, body)
        except BodyTooLarge:
            return self.desk.refuse(upstream, 413, "too large")
