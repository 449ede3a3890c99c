"""The look-alikes over HTTP as places of the suite, and the steps that every way by HTTP has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from routing.outcome import Word
from tests.conformance.case import Place, Step, Trouble
from tests.fakes.http_look_alike import HttpLookAlike
from tests.fakes.http_server import BeforeBody, Fault, HttpServer
from upstreams.base import Upstream

_REPLY = "once the status is known, silence ends after ten seconds; test_http_client.py bounds the reply's length"


class HttpPlace(Place):
    """`server` is the HTTP server of a look-alike; `answers` adds to what it answers next."""

    def __init__(self, server: HttpServer, upstream: Upstream, answers: Callable[[Any], None]) -> None:
        self.server, self.upstream, self._answers = server, upstream, answers

    def script(self, step: str, said: Any) -> None:
        match step, said:
            case "TLS", Trouble():
                self.server.before_tls = BeforeBody[said.name]
            case "header", Trouble():
                self.server.before_body = BeforeBody[said.name]
            case "reply", Trouble.CUT:
                self._answers(Fault.CUT_IN_REPLY)
            case "request", Trouble():
                self._answers(Fault[said.name])
            case _:
                self._answers(said)
                self._answers(said)

    def stalled(self) -> bool:
        return self.server.stalled > 0

    def release(self) -> None:
        self.server.before_tls = self.server.before_body = BeforeBody.READ

    def open_connections(self) -> int:
        return self.server.open_connections

    async def leave(self) -> None:
        await self.server.__aexit__()


class KeyPlace(HttpPlace):
    """An API with a key: the look-alike knows its recipients, and the addresses that are bad."""

    def __init__(self, fake: Any, upstream: Upstream) -> None:
        super().__init__(fake.http, upstream, fake.script)
        self.fake = fake

    def delivered(self) -> list[str]:
        return list(self.fake.recipients)

    def refuse(self, recipients: tuple[str, ...]) -> None:
        self.fake.bad = recipients

    def secrets(self, step: str) -> tuple[str, ...]:
        sent = [request.headers["authorization"].partition(" ")[2] for request in self.fake.requests[:1]]
        return (self.fake.key, *sent) if sent else ()


@asynccontextmanager
async def key_place(fake: HttpLookAlike, build: Callable[[Any], Upstream]) -> AsyncIterator[Place]:
    """`fake` listening, and the upstream that `build` makes for it."""
    async with fake:
        upstream = build(fake)
        try:
            yield KeyPlace(fake, upstream)
        finally:
            await upstream.close()


def http_steps(reply: Word) -> tuple[Step, ...]:
    """In order. Once the header is out, the body may have been read. `reply`: the success is cut behind its header."""
    return (
        Step("TLS", Word.RETRY, Word.RETRY),
        Step("header", Word.UNKNOWN, Word.UNKNOWN),
        Step("request", Word.UNKNOWN, Word.UNKNOWN),
        Step("reply", None, reply, cancelled=False, why=_REPLY),
    )
