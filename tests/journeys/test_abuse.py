"""Abuse of the real process by crowds of clients: its memory stays bounded, others are served, replies are clear."""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

MB = 1 << 20
CROWD = 2000
BEGIN = b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\n"
HEAD = b"From: info@acme.nl\r\nSubject: half\r\n\r\n"


class Crowd:
    """Many connections. `say` writes to all of them and waits for nothing; `heard` is what each was answered."""

    def __init__(self, pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self.pairs = pairs

    def say(self, octets: bytes) -> None:
        for _, writer in self.pairs:
            writer.write(octets)

    async def heard(self, until: bytes) -> list[bytes]:
        """All that each heard up to the first line that begins so."""
        found = re.compile(rb"^" + re.escape(until), re.MULTILINE)

        async def one(reader: asyncio.StreamReader) -> bytes:
            octets = b""
            while not found.search(octets) and (more := await asyncio.wait_for(reader.read(65536), 60)):
                octets += more
            return octets

        return list(await asyncio.gather(*(one(reader) for reader, _ in self.pairs)))


@asynccontextmanager
async def crowd(port: int, size: int = CROWD) -> AsyncIterator[Crowd]:
    pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(0, size, 100):
            pairs += await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(100)))
        yield Crowd(pairs)
    finally:
        for _, writer in pairs:
            writer.transport.abort()


def against(relay_is: Callable[[RelayProcess], Awaitable[None]], folder: Path) -> None:
    """Run an attack on a relay that delivers into a folder, and see that it is as well as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CROWD + 500:
        pytest.skip(f"{hard} file descriptors are too few for the crowd")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))

    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {folder}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        extra = f"limits: {{connections: {CROWD + 100}}}\n"
        async with RelayProcess(folder / "relay", routes, extra=extra) as relay:
            await served(relay)
            await relay_is(relay)
            await served(relay)
            assert not {"bug", "stray output"} & {str(event["event"]) for event in relay.events}

    asyncio.run(journey())


async def served(relay: RelayProcess) -> None:
    """A client that behaves gets its mail in and delivered."""
    before = len(relay.events)
    said = await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], mails.plain("info@acme.nl", "j@x.nl"))
    assert said.code == 0, said.text
    await relay.event("delivered", after=before)


def test_a_crowd_that_says_nothing(tmp_path: Path) -> None:
    async def idle(relay: RelayProcess) -> None:
        before = relay.memory()
        async with crowd(relay.port) as many:
            await many.heard(b"220 ")
            assert relay.memory() - before < 40 * MB
            await served(relay)

    against(idle, tmp_path)


def test_a_crowd_that_stops_in_the_middle_of_a_mail(tmp_path: Path) -> None:
    """600 MB of half mails are sent: 32 MB of it may be in memory, beside what each connection read a little at a time
    before it had to wait. Without the budget it was 650 MB, without the small reads 560.
    """

    async def half(relay: RelayProcess) -> None:
        before = relay.memory()
        async with crowd(relay.port) as many:
            many.say(BEGIN)
            await many.heard(b"354 ")
            many.say(HEAD + b"%070d\r\n" % 1 * (300_000 // 72))
            highest = 0
            for _ in range(20):
                await asyncio.sleep(0.1)
                highest = max(highest, relay.memory())
            await served(relay)
            assert highest - before < 250 * MB

    against(half, tmp_path)


def test_a_crowd_that_sends_far_ahead_and_reads_nothing(tmp_path: Path) -> None:
    async def ahead(relay: RelayProcess) -> None:
        before = relay.memory()
        async with crowd(relay.port, 500) as many:
            many.say(b"NOOP\r\n" * 50_000)
            highest = 0
            for _ in range(15):
                await asyncio.sleep(0.1)
                highest = max(highest, relay.memory())
            await served(relay)
            assert highest - before < 200 * MB

    against(ahead, tmp_path)


def test_clients_that_lie_flood_and_vanish(tmp_path: Path) -> None:
    """Each manner a hundred times at once: none is taken for a mail, and each is told what is wrong."""
    manners = {
        b"\0\xff\x01" * 5000 + b"\r\n": b"500 5.5.2",
        b"x" * (2 * MB) + b"\r\n": b"500 5.5.2 Command line too long",
        b"MAIL FROM:<info@acme.nl> SIZE=99999999999\r\n": b"552 5.3.4",
        b"MAIL FROM:<info@acme.nl> SIZE=-1\r\n": b"501 5.5.4",
        b"MAIL FROM:<a\0b@acme.nl>\r\n": b"553 5.1.3",
        b"GET / HTTP/1.1\r\nHost: x\r\n" * 10: b"502 5.5.1 This is no web server",
        b"Host: x\r\n" * 10: b"502 5.5.1 Too many unrecognized commands",
        BEGIN[:-6] + b"RCPT TO:<jan@example.nl>\r\n" * 200 + b"RCPT TO:<jan>\r\n": b"553 5.1.3",
        b"MAIL FROM:<info@acme.nl> SIZE=10\r\n" + BEGIN[25:] + HEAD: b"354 ",
    }

    async def abuse(relay: RelayProcess) -> None:
        for octets, reply in manners.items():
            async with crowd(relay.port, 100) as many:
                many.say(octets)
                assert all(reply in heard for heard in await many.heard(reply)), reply
                await served(relay)
        _, listed = await relay.command("queue", "list", "--settled", "--json")
        assert listed.count('"sender"') == len(manners) + 1

    against(abuse, tmp_path)


async def flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(50):
        writer.write(b"x" * MB)
        await writer.drain()
    writer.write(b"\r\n.\r\n")


def test_a_line_of_50_mb_is_a_mail_and_no_burden(tmp_path: Path) -> None:
    """Over the size limit it is refused and not held; the client is answered, and goes on."""

    async def long_line(relay: RelayProcess) -> None:
        before = relay.memory()
        async with crowd(relay.port, 100) as many:
            many.pairs = many.pairs[:3]
            many.say(BEGIN)
            await many.heard(b"354 ")
            await asyncio.gather(*(flood(writer) for _, writer in many.pairs))
            assert all(b"552 5.3.4" in heard for heard in await many.heard(b"552 "))
            assert relay.memory() - before < 250 * MB
            many.say(BEGIN)
            await many.heard(b"354 ")

    against(long_line, tmp_path)


def test_too_few_descriptors_for_the_crowd_are_told_and_some_are_left_for_mail(tmp_path: Path) -> None:
    """Without descriptors the event loop hangs up on a client without a word, and no mail can leave."""

    async def journey() -> None:
        async with FakeSmtp() as server:
            upstream = f"{{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}"
            routes = f"upstreams:\n  out: {upstream}\nroutes:\n  - {{from: acme.nl, via: out}}\n"
            async with RelayProcess(tmp_path, routes, within=("prlimit", "--nofile=300:300")) as relay:
                warning = await relay.event("few_descriptors")
                assert str(warning["why"]).startswith("limits.connections is 1000, and 150 are let in;")
                async with crowd(relay.port, 400) as many:
                    heard = [await asyncio.wait_for(reader.readline(), 60) for reader, _ in many.pairs]
                    assert [line[:4] for line in heard] == [b"220 "] * 150 + [b"421 "] * 250
                    many.pairs = many.pairs[:1]
                    many.say(BEGIN + HEAD + b".\r\n")
                    await relay.event("delivered")

    asyncio.run(journey())
