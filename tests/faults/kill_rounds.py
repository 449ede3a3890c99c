"""The relay under load from many clients while it is struck at random moments, and what became of every mail.

Counts; the caller judges. Whatever got its 250 must arrive; twice only what was under way at a SIGKILL: an upstream had
it, and the spool on disk did not know. After every kill a copy of the files, as it left them, is opened and checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.faults.spool_copy import copy_of, left_in

CLIENTS = 12
NAME = re.compile(rb"Subject: (\S+)")
Recipient = tuple[str, str]
"""A mail's name and one of its recipients."""


@dataclass(slots=True)
class Tally:
    """`promised` got a 250, `sent` were at least begun, `arrived` counts what the upstreams took. `doubted` counts the
    kills at which an upstream had taken it and the spool still said that it waits; `damage` is what a spool that was
    opened after a kill had wrong, and what the relay said that it must not say.
    """

    rounds: Counter[str] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    promised: set[Recipient] = field(default_factory=set)
    arrived: Counter[Recipient] = field(default_factory=Counter)
    doubted: Counter[Recipient] = field(default_factory=Counter)
    exit_codes: set[int] = field(default_factory=set)
    damage: list[str] = field(default_factory=list)
    opened: int = 0

    @property
    def lost(self) -> set[Recipient]:
        return self.promised - self.arrived.keys()

    @property
    def invented(self) -> set[str]:
        return {name for name, _ in self.arrived} - self.sent

    @property
    def duplicates(self) -> int:
        return sum(self.arrived.values()) - len(self.arrived)

    @property
    def unexplained(self) -> Counter[Recipient]:
        """What arrived more often than kills explain."""
        return Counter({one: count - 1 for one, count in self.arrived.items()}) - self.doubted

    def faults(self) -> list[str]:
        """Every broken promise, in words; none is good."""
        found = [f"lost: {sorted(self.lost)[:5]}"] if self.lost else []
        found += [f"made up: {sorted(self.invented)[:5]}"] if self.invented else []
        found += [f"twice without a kill: {self.unexplained.most_common(5)}"] if self.unexplained else []
        found += [f"ended with {sorted(self.exit_codes)}"] if self.exit_codes - {0} else []
        return [*found, *self.damage[:10]]

    def __iadd__(self, other: Tally) -> Tally:
        """Another relay's tally; its mails are other mails, whatever they are called."""
        run = f"{self.rounds.total()}/"
        self.rounds += other.rounds
        self.sent |= {run + name for name in other.sent}
        self.promised |= {(run + name, address) for name, address in other.promised}
        for mine, theirs in ((self.arrived, other.arrived), (self.doubted, other.doubted)):
            mine.update({(run + name, address): count for (name, address), count in theirs.items()})
        self.exit_codes |= other.exit_codes
        self.damage += other.damage
        self.opened += other.opened
        return self

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.rounds.items()))
        return (
            f"{self.rounds.total()} rounds ({kinds}): {len(self.promised)} promised, {len(self.lost)} lost, "
            f"{len(self.invented)} made up; under way at a kill {self.doubted.total()}, arrived twice "
            f"{self.duplicates}, twice without a kill {self.unexplained.total()}; "
            f"the spool opened clean {self.opened} times, damage {len(self.damage)}"
        )


@dataclass(slots=True)
class Scene:
    """What a strike can reach. `good` and `other` are two sets of rules that both take all mail."""

    relay: RelayProcess
    servers: tuple[FakeSmtp, ...]
    good: str
    other: str
    tally: Tally

    def count(self) -> None:
        """Count what the upstreams took since the last time."""
        for server in self.servers:
            taken, server.received[:] = list(server.received), []
            for mail in taken:
                found = NAME.search(mail.content)
                assert found
                self.tally.arrived.update((found[1].decode(), address) for address in mail.recipients)


# ---- strikes


async def _kill(scene: Scene, orders: Iterable[Awaitable[None]] = ()) -> None:
    """SIGKILL, and a look at what is on disk, once `orders` that may have the file open themselves are over."""
    if scene.relay.running:
        await scene.relay.stop(signal.SIGKILL)
    await asyncio.gather(*orders)
    while any(server.open_connections for server in scene.servers):  # what was sent before the kill is read to its end
        await asyncio.sleep(0.005)
    scene.count()
    with copy_of(scene.relay.folder / "spool.db") as copy:
        left = await asyncio.to_thread(left_in, copy)
    scene.tally.damage += left.damage
    scene.tally.opened += not left.damage
    waiting = {(_name(content), address) for content, address in left.waiting}
    scene.tally.doubted.update(waiting & scene.tally.arrived.keys())


def _name(content: bytes) -> str:
    found = NAME.search(content)
    return found[1].decode() if found else ""


async def kill(scene: Scene) -> None:
    """SIGKILL."""
    await _kill(scene)
    await scene.relay.start()


async def kill_at_start(scene: Scene) -> None:
    """SIGKILL, and once more while it starts: what is half recovered is recovered again."""
    await _kill(scene)
    starting = asyncio.create_task(scene.relay.start())
    await asyncio.sleep(random.uniform(0.05, 0.8))
    scene.relay.signal(signal.SIGKILL)
    with contextlib.suppress(AssertionError):  # it had not started yet
        await starting
    await _kill(scene)
    await scene.relay.start()


async def kill_in_a_storm(scene: Scene) -> None:
    """New rules, orders to hold and to release, and SIGKILL in the middle of it."""
    orders = [asyncio.create_task(_order(scene.relay, number)) for number in range(2)]
    await hangups(scene)
    await asyncio.sleep(random.uniform(0.0, 0.5))
    scene.relay.write_routes(scene.good)
    await _kill(scene, orders)
    await scene.relay.start()
    await scene.relay.command("queue", "release", "--route", "acme.nl")


async def _order(relay: RelayProcess, number: int) -> None:
    await relay.command("queue", ("hold", "release")[number % 2], "--route", "acme.nl")


async def terminate(scene: Scene) -> None:
    """SIGTERM."""
    scene.tally.exit_codes.add(await scene.relay.stop(signal.SIGTERM))
    await scene.relay.start()


async def hangups(scene: Scene) -> None:
    """Twenty SIGHUPs, with other rules each time."""
    for _ in range(20):
        scene.relay.write_routes(random.choice((scene.good, scene.other)))
        scene.relay.signal(signal.SIGHUP)
        await asyncio.sleep(0.002)


async def pause(scene: Scene) -> None:
    """SIGSTOP, and SIGCONT a moment later."""
    scene.relay.signal(signal.SIGSTOP)
    await asyncio.sleep(0.3)
    scene.relay.signal(signal.SIGCONT)


Strike = Callable[[Scene], Awaitable[None]]
KILLS: dict[str, Strike] = {
    "SIGKILL": kill,
    "SIGKILL at the start": kill_at_start,
    "SIGKILL in a storm": kill_in_a_storm,
}
OTHERS: dict[str, Strike] = {"SIGTERM": terminate, "SIGHUP x 20": hangups, "SIGSTOP and SIGCONT": pause}


# ---- the rounds


def _rules(first: FakeSmtp, second: FakeSmtp, fallback: str) -> str:
    return (
        f"upstreams:\n  first: {{type: smtp, host: 127.0.0.1, port: {first.port}, tls: none}}\n"
        f"  second: {{type: smtp, host: 127.0.0.1, port: {second.port}, tls: none}}\n"
        f"routes:\n  - {{from: acme.nl, via: first}}\n  - {{from: globex.nl, via: [second{fallback}]}}\n"
    )


async def kill_rounds(folder: Path, rounds: int, seconds: float, strikes: dict[str, Strike]) -> Tally:
    """At most so many rounds, none begun after `seconds`; then the queue empties and is counted."""
    tally, over, until = Tally(), asyncio.Event(), time.monotonic() + seconds
    async with FakeSmtp() as first, FakeSmtp() as second:
        good, other = _rules(first, second, ", first"), _rules(first, second, "")
        relay = RelayProcess(folder, good, extra="delivery: {retry: [1s]}\n")
        scene = Scene(relay, (first, second), good, other, tally)
        await relay.start()
        clients = [asyncio.create_task(client(relay.port, f"c{number}", over, tally)) for number in range(CLIENTS)]
        try:
            for _ in range(rounds):
                if time.monotonic() > until:
                    break
                first.script({"RCPT r1@example.nl": ["451 4.2.0 later"] * 3})
                await asyncio.sleep(random.uniform(0.05, 1.0))
                kind = random.choice(tuple(strikes))
                tally.rounds[kind] += 1
                await strikes[kind](scene)
                relay.write_routes(good)
                scene.count()
            await _empty(scene, over, clients)
        finally:
            over.set()
            if relay.running:
                await relay.stop(signal.SIGKILL)
    return tally


async def _empty(scene: Scene, over: asyncio.Event, clients: list[asyncio.Task[None]]) -> None:
    """Clients stop, everything is let go, and what was promised has time to arrive."""
    await scene.relay.reload()
    over.set()
    await asyncio.gather(*clients)
    await scene.relay.command("queue", "release", "--route", "acme.nl")
    for _ in range(600):
        scene.count()
        if not scene.tally.lost:
            break
        await asyncio.sleep(0.1)
    scene.tally.exit_codes.add(await scene.relay.stop())
    scene.count()
    scene.tally.damage += sorted({str(event) for event in scene.relay.events if _must_not_be(event)})


def _must_not_be(event: dict[str, object]) -> bool:
    bad = event.get("level") == "critical" or event["event"] in ("stray output", "spool.trouble")
    return bad or "bug" in str(event["event"])


async def client(port: int, name: str, over: asyncio.Event, tally: Tally, host: str = "127.0.0.1") -> None:
    """Sends mail after mail, a few on each connection; a connection that breaks is nothing to it."""
    number = 0
    while not over.is_set():
        try:
            reader, writer = await asyncio.open_connection(host, port)
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
