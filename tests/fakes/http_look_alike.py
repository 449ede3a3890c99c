"""The base of a provider's look-alike over HTTP: it listens, keeps what it was sent, and answers by script when told.

async with FakeProvider() as provider:
    provider.script(Response(429))         # the next answer, instead of the usual
    provider.requests                      # everything that was asked
"""

from __future__ import annotations

import ssl
from typing import Self

from tests.fakes.http_server import Fault, HttpServer, Request, Response


class HttpLookAlike:
    """Subclasses answer in `usual`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._script: list[Response | Fault] = []
        self._http = HttpServer(self._answer, tls)

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def port(self) -> int:
        return self._http.port

    @property
    def http(self) -> HttpServer:
        """The server below, for what happens before a request is read."""
        return self._http

    @property
    def requests(self) -> list[Request]:
        return self._http.requests

    def script(self, *answers: Response | Fault) -> None:
        """What to answer to the next requests, in order; then as usual."""
        self._script.extend(answers)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.__aexit__(*exc)
        assert not self._http.problems, self._http.problems

    async def _answer(self, request: Request) -> Response | Fault:
        return self._script.pop(0) if self._script else self.usual(request)

    def usual(self, request: Request) -> Response:
        """The answer by the provider's rules."""
        raise NotImplementedError
