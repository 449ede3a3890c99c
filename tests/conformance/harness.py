"""Runs a story at a case's place, and sees that no task is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from routing.mail import Outgoing
from routing.outcome import Outcome
from tests.conformance.case import Case, Place, Setting

SENDER = "info@acme.nl"
PEOPLE = tuple(f"a{number}@x.nl" for number in range(9))
TWO = PEOPLE[:2]
LARGE = (b"x" * 70 + b"\r\n") * 200_000
T = TypeVar("T")


def mail(*recipients: str, header: str = "", body: bytes = b"hi\r\n", id: str = "0123456789ABC") -> Outgoing:
    """A mail from SENDER; `header` is more of its header, each line with its CRLF."""
    text = f"From: Info <{SENDER}>\r\n{header or 'To: a0@x.nl, elsewhere@y.nl'}\r\nSubject: a secret subject\r\n\r\n"
    return Outgoing(id, "acme.nl", SENDER, recipients or TWO, text.encode() + body)


@asynccontextmanager
async def alive(case: Case, setting: Setting) -> AsyncIterator[Place]:
    """The place, and afterwards a look at what is left."""
    before = asyncio.all_tasks()
    async with case.open(setting) as place:
        yield place
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=1.0)
    assert not left, left


def at(case: Case, setting: Setting, story: Callable[[Place], Awaitable[T]]) -> T:
    """What `story` returns."""

    async def run() -> T:
        async with alive(case, setting) as place:
            return await story(place)

    return asyncio.run(run())


async def sent(place: Place, outgoing: Outgoing | None = None) -> Outcome:
    """The one outcome that all recipients share."""
    outgoing = outgoing or mail()
    results = await place.upstream.send(outgoing)
    assert tuple(sorted(results)) == tuple(sorted(outgoing.recipients))
    assert len({outcome.word for outcome in results.values()}) == 1, results
    return results[outgoing.recipients[0]]
