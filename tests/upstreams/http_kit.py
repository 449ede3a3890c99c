"""What the tests of the HTTP ways out share: a look-alike and a way to it, alive in one loop for the time of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from upstreams.base import Upstream


class LookAlike(Protocol):
    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exc: object) -> None: ...


Server = TypeVar("Server", bound=LookAlike)


def run(server: Server, build: Callable[[Server], Upstream], act: Callable[[Upstream, Server], Awaitable[Any]]) -> Any:
    """What `act` returns, with `server` listening and the upstream that `build` makes for it."""

    async def running() -> Any:
        async with server:
            upstream = build(server)
            try:
                return await act(upstream, server)
            finally:
                await upstream.close()

    return asyncio.run(running())
