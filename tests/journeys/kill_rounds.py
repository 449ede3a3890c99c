"""The relay under load from many clients while signals hit it at random moments, and what became of every mail.

Counts; the caller judges. Whatever got its 250 must arrive, and twice only when it was under way at a SIGKILL.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp

CLIENTS = 12
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP)
_NAME = re.compile(rb"Subject: (\S+)")


@dataclass(slots=True)
class Tally:
    """`promised` got a 250, `sent` were at least begun, `arrived` counts each (mail, recipient) at the upstreams."""

    signals: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    promised: set[tuple[str, str]] = field(default_factory=set)
    arrived: Counter[tuple[str, str]] = field(default_factory=Counter)
    exit_codes: set[int] = field(default_factory=set)

    @property
    def lost(self) -> set[tuple[str, str]]:
        return self.promised - self.arrived.keys()

    @property
    def invented(self) -> set[str]:
        return {name for name, _ in self.arrived} - self.sent

    @property
    def duplicates(self) -> int:
        return sum(self.arrived.values()) - len(self.arrived)

    def __str__(self) -> str:
        return (
            f"{self.signals.total()} rounds {dict(self.signals)}: {len(self.promised)} promised, "
            f"{len(self.lost)} lost, {self.duplicates} duplicates, {len(self.invented)} invented"
        )


def _rules(first: FakeSmtp, second: FakeSmtp, fallback: str = "first") -> str:
    return (
        f"upstreams:\n  first: {{type: smtp, host: 127.0.0.1, port: {first.port}, tls: none}}\n"
        f"  second: {{type: smtp, host: 127.0.0.1, port: {second.port}, tls: none}}\n"
        f"routes:\n  - {{from: acme.nl, via: first}}\n  - {{from: globex.nl, via: [second, {fallback}]}}\n"
    )


async def kill_rounds(
    folder: Path, rounds: int, seconds: float, signals: tuple[signal.Signals, ...] = SIGNALS
) -> Tally:
    """At most so many rounds, none begun after `seconds`; then the queue empties and is counted."""
    tally, over, until = Tally(), asyncio.Event(), time.monotonic() + seconds
    async with FakeSmtp() as first, FakeSmtp() as second:
        good, bad = _rules(first, second), _rules(first, second, fallback="nobody")
        relay = RelayProcess(folder, good, extra="delivery: {retry: [1s]}\n")
        await relay.start()
        clients = [asyncio.create_task(_client(relay.port, f"c{number}", over, tally)) for number in range(CLIENTS)]
        try:
            for _ in range(rounds):
                if time.monotonic() > until:
                    break
                await asyncio.sleep(random.uniform(0.05, 1.0))
                await _strike(relay, random.choice(signals), (good, bad), tally)
                _count((first, second), tally)
            relay.write_routes(good)
            await relay.reload()
            over.set()
            await asyncio.gather(*clients)
            await _settled((first, second), tally)
            tally.exit_codes.add(await relay.stop())
        finally:
            over.set()
            if relay.running:
                await relay.stop(signal.SIGKILL)
    return tally


async def _strike(relay: RelayProcess, number: signal.Signals, rules: tuple[str, str], tally: Tally) -> None:
    tally.signals[number.name] += 1
    relay.write_routes(rules[0])
    if number in (signal.SIGKILL, signal.SIGTERM):
        code = await relay.stop(number)
        if number is signal.SIGTERM:
            tally.exit_codes.add(code)
        await relay.start()
        return
    if number is signal.SIGSTOP:
        relay.signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)
        relay.signal(signal.SIGCONT)
        return
    for _ in range(20):
        relay.write_routes(random.choice(rules))
        relay.signal(signal.SIGHUP)
        await asyncio.sleep(0.002)


async def _client(port: int, name: str, over: asyncio.Event, tally: Tally) -> None:
    """Sends mail after mail, a few on each connection; a connection that breaks is nothing to it."""
    number = 0
    while not over.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await _reply(reader)
                for _ in range(random.choice((1, 1, 3))):
                    number += 1
                    await _mail(reader, writer, f"{name}-{number}", tally)
            finally:
                writer.close()
        except OSError:
            await asyncio.sleep(0.01)


async def _mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, tally: Tally) -> None:
    recipients = [f"r{place}@example.nl" for place in range(random.choice((1, 1, 2)))]
    sender = random.choice(("acme.nl", "globex.nl"))
    lines = [f"MAIL FROM:<info@{sender}>", *(f"RCPT TO:<{address}>" for address in recipients), "DATA"]
    for line in lines:
        writer.write(line.encode() + b"\r\n")
        if (await _reply(reader))[0] not in "23":
            raise OSError("not now")
    tally.sent.add(name)
    text = "Uw afspraak staat.\r\n" * random.choice((1, 50, 2000))
    writer.write(f"From: info@{sender}\r\nTo: jan@example.nl\r\nSubject: {name}\r\n\r\n{text}.\r\n".encode())
    if (await _reply(reader)).startswith("250 "):
        tally.promised.update((name, address) for address in recipients)


async def _reply(reader: asyncio.StreamReader) -> str:
    while True:
        line = await reader.readline()
        if not line:
            raise OSError("the relay is gone")
        if line[3:4] != b"-":
            return line.decode()


def _count(servers: tuple[FakeSmtp, ...], tally: Tally) -> None:
    for server in servers:
        taken, server.received[:] = list(server.received), []
        for mail in taken:
            found = _NAME.search(mail.content)
            assert found
            tally.arrived.update((found[1].decode(), address) for address in mail.recipients)


async def _settled(servers: tuple[FakeSmtp, ...], tally: Tally) -> None:
    for _ in range(300):
        _count(servers, tally)
        if not tally.lost:
            return
        await asyncio.sleep(0.1)
