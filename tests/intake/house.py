"""A running intake on a port of its own, and a client that writes octets as they are."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from config.fields import Size
from config.rules import Limits, Listen, Place, Relay, Route, RouteSettings
from intake.server import Intake
from tests.intake.recording_spool import RecordingSpool

NOW = 1_790_000_000.0


def route(domain: str) -> Route:
    return Route(domain, RouteSettings(from_=(domain,), via=("there",)), Place("routes.yaml", 1))


def match(sender: str) -> Route | None:
    """acme.nl, globex.nl and the null sender have a route; boom.nl hits a bug of ours."""
    domain = sender.rpartition("@")[2].lower()
    if domain == "boom.nl":
        raise KeyError("a secret of the mail")
    if sender == "":
        return route("<>")
    return route(domain) if domain in ("acme.nl", "globex.nl") else None


class Client:
    """One connection. `say` writes octets and reads one reply; replies are text with every line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, lines joined by LF; "" when the server has closed."""
        lines = []
        while line := await asyncio.wait_for(self.reader.readline(), 10):
            assert line.endswith(b"\r\n"), line
            lines.append(line.decode("ascii").rstrip("\r\n"))
            if re.match(r"[0-9]{3}(?: |$)", lines[-1]):
                break
        return "\n".join(lines)

    async def say(self, octets: bytes | str, end: bytes = b"\r\n") -> str:
        self.send((octets.encode() if isinstance(octets, str) else octets) + end)
        return await self.reply()

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def begin(self, sender: str = "info@acme.nl", recipient: str = "klant@example.org") -> None:
        """Up to the 354."""
        assert (await self.say(f"MAIL FROM:<{sender}>")).startswith("250 ")
        assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250 ")
        assert (await self.say("DATA")).startswith("354 ")

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


class House:
    """An intake with what stands around it."""

    def __init__(self, intake: Intake, spool: RecordingSpool) -> None:
        self.intake = intake
        self.spool = spool

    @property
    def port(self) -> int:
        return self.intake.addresses[0][1]

    @asynccontextmanager
    async def client(self, *, greeted: bool = True) -> AsyncIterator[Client]:
        """A client that has read the 220 and, unless told otherwise, said EHLO."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        try:
            if greeted:
                assert (await client.reply()).startswith("220 relay.test ")
                assert "250" in await client.say("EHLO callpro.test")
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def running(
    *, allow: tuple[str, ...] = ("127.0.0.0/8", "::1"), address: str = "127.0.0.1:0", **limits: Any
) -> AsyncIterator[House]:
    sizes = {key: Size(value) if key.endswith("size") else value for key, value in limits.items()}
    relay = Relay(listen=(Listen(address=address, allow=allow),), limits=Limits(**sizes))
    spool = RecordingSpool()
    intake = Intake(relay, spool, match, "relay.test", clock=lambda: NOW)
    await intake.start()
    try:
        yield House(intake, spool)
    finally:
        await intake.stop(1.0)


def with_house(test: Callable[[House], Awaitable[None]], **settings: Any) -> None:
    """Run one test against a fresh intake."""

    async def run() -> None:
        async with running(**settings) as house:
            await test(house)

    asyncio.run(run())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something the server does by itself; fails after ten seconds."""
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


MAIL = (
    b"From: Acme <info@acme.nl>\r\nTo: klant@example.org\r\nSubject: Afspraak\r\n"
    b"Date: Sun, 22 Nov 2026 07:30:00 +0000\r\nMessage-ID: <1@acme.nl>\r\n\r\nTot morgen\r\n"
)


def text_of(content: bytes) -> bytes:
    """Content as kept, without our trace header."""
    assert content.startswith(b"Received: from "), content[:80]
    return re.sub(rb"\AReceived:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", b"", content)
