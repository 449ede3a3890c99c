"""A running intake on a port of its own, and a client that writes octets as they are."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from config.fields import Size
from config.relay_settings import CallCentre, Limits, Listen, Relay
from config.rules import Place, Route, RouteSettings
from intake.server import Intake
from tests.intake.watched_spool import WatchedSpool
from tests.waiting import LONG

NOW = 1_790_000_000.0


def route(domain: str) -> Route:
    return Route(domain, RouteSettings(from_=(domain,), via=("there",)), Place("routes.yaml", 1))


def match(sender: str) -> Route | None:
    """acme.nl, globex.nl and the null sender have a route; boom.nl hits a bug of ours."""
    domain = sender.rpartition("@")[2].lower()
    if domain == "boom.nl":
        raise KeyError(f"no {domain} in a secret of the mail")
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
        while line := await asyncio.wait_for(self.reader.readline(), LONG):
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

    def reset(self) -> None:
        """Go at once, with a RST."""
        socket_ = self.writer.get_extra_info("socket")
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class House:
    """An intake with what stands around it."""

    def __init__(self, intake: Intake, spool: WatchedSpool) -> None:
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


@contextmanager
def events(name: str) -> Iterator[list[dict[str, Any]]]:
    """The fields of every event of that name in intake's log while it is open."""
    found: list[dict[str, Any]] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == name:
                found.append(record.__dict__["fields"])

    log, catch = logging.getLogger("intake"), Catch()
    before = log.level
    log.addHandler(catch)
    log.setLevel(logging.INFO)
    try:
        yield found
    finally:
        log.removeHandler(catch)
        log.setLevel(before)


@asynccontextmanager
async def running(
    *,
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1"),
    address: str = "127.0.0.1:0",
    idle: float = 300.0,
    guard: Mapping[str, Any] | None = None,
    call_centre: CallCentre | None = None,
    **limits: Any,
) -> AsyncIterator[House]:
    """`guard` is what else the listener asks (`tls`, `users`, `per_peer`)."""
    sizes = {key: Size(value) if key in ("message_size", "content_memory") else value for key, value in limits.items()}
    listen = Listen(address=address, allow=allow, **(guard or {}))
    relay = Relay(listen=(listen,), limits=Limits(**sizes), call_centre=call_centre)
    with TemporaryDirectory() as folder:
        spool = await WatchedSpool.open(f"{folder}/spool.db", size_limit=1 << 30)
        assert isinstance(spool, WatchedSpool)
        intake = Intake(relay, spool, match, "relay.test", clock=lambda: NOW, idle=idle)
        await intake.start()
        try:
            yield House(intake, spool)
        finally:
            await intake.stop(1.0)
            await spool.close()


def with_house(test: Callable[[House], Awaitable[None]], **settings: Any) -> None:
    """Run one test against a fresh intake."""

    async def run() -> None:
        async with running(**settings) as house:
            await test(house)

    asyncio.run(run())


MAIL = (
    b"From: Acme <info@acme.nl>\r\nTo: klant@example.org\r\nSubject: Afspraak\r\n"
    b"Date: Sun, 22 Nov 2026 07:30:00 +0000\r\nMessage-ID: <1@acme.nl>\r\n\r\nTot morgen\r\n"
)


def text_of(content: bytes) -> bytes:
    """Content as kept, without our trace header."""
    assert content.startswith(b"Received: from "), content[:80]
    return re.sub(rb"\AReceived:[^\r]*\r\n(?:[ \t][^\r]*\r\n)*", b"", content)
