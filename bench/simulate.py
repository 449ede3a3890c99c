"""A day of fifty customers on virtual time, through the real scheduler and the real spool, against strict providers.

`python -m bench.simulate` prints what mail waited and what every provider saw. Exit 1 when a provider saw more than
its limit in any window, or when mail was lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.virtual_time import START, VirtualClock, VirtualLoop
from config.fields import Duration, Settings
from config.relay_settings import Delivery
from config.rules import Place, Rate, Route, RouteSettings, Rules, UpstreamRule
from delivery.plan import build_plan
from delivery.scheduler import Scheduler
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from spool.contract import Arrival, id_text
from spool.inbox import Call
from spool.sqlite import SqliteSpool
from upstreams.base import Host, Kind, Upstream

HOUR, DAY = 3600.0, 86400.0
EXCHANGE = Rate(per_minute=30, per_day=10_000)
CONTENT = b"Subject: x\r\n\r\nx\r\n"


@dataclass(frozen=True)
class Account:
    """A provider's account: its `rate`, how long it takes for a mail, and when it is away (hours of the day). One that
    `enforces` something else than the rules say shows that the simulation would notice.
    """

    name: str
    rate: Rate = Rate()
    seconds: float = 0.5
    concurrency: int = 4
    away: tuple[tuple[float, float], ...] = ()
    enforces: Rate | None = None


@dataclass(frozen=True)
class Customer:
    """`daily` mails over the working day, and a campaign of so many at an hour."""

    name: str
    via: tuple[str, ...]
    group: str
    daily: int
    campaign: int = 0
    campaign_at: float = 0.0
    spill_after: Duration | None = None


class Strict(Upstream):
    """Counts by itself what comes in, at its own moment between start and end, and refuses what is too much."""

    recipients_limit = 500

    def __init__(self, account: Account, now: Callable[[], float], chance: random.Random) -> None:
        self.name, self.concurrency = account.name, account.concurrency
        self._account, self._now, self._chance = account, now, chance
        self._windows = tuple(
            (length, limit, deque[tuple[float, int]]()) for length, limit in _limits(account.enforces or account.rate)
        )
        self.most = [0 for _ in self._windows]
        self.refused = self.unreached = self.probes = 0
        self.taken: Counter[str] = Counter()
        self.taken_at: dict[str, float] = {}

    def away(self) -> bool:
        hour = (self._now() - START) / HOUR
        return any(begin <= hour < end for begin, end in self._account.away)

    async def send(self, mail: Outgoing) -> Results:
        if self.away():
            self.unreached += 1
            await asyncio.sleep(1.0)
            return dict.fromkeys(mail.recipients, Outcome(Word.RETRY, "Connection refused", Stage.CONNECT))
        seconds = self._chance.uniform(0.2, 2.0) * self._account.seconds
        moment = self._chance.uniform(0.0, seconds)
        await asyncio.sleep(moment)
        fits = self._count(len(mail.recipients))
        await asyncio.sleep(seconds - moment)
        if not fits:
            return dict.fromkeys(mail.recipients, Outcome(Word.RETRY, "451 4.7.1 too fast", Stage.CONTENT, 451))
        self.taken[mail.id] += 1
        self.taken_at[mail.id] = self._now()
        return dict.fromkeys(mail.recipients, Outcome(Word.SENT, "250 ok", Stage.CONTENT, 250))

    def _count(self, recipients: int) -> bool:
        now, fits = self._now(), True
        for number, (length, limit, seen) in enumerate(self._windows):
            while seen and seen[0][0] <= now - length:
                seen.popleft()
            seen.append((now, recipients if length >= HOUR else 1))
            used = sum(units for _, units in seen)
            self.most[number] = max(self.most[number], used)
            fits = fits and used <= limit
        self.refused += not fits
        return fits

    async def probe(self) -> Outcome:
        self.probes += 1
        if self.away():
            return Outcome(Word.RETRY, "Connection refused", Stage.CONNECT)
        return Outcome(Word.SENT, "ready", Stage.LOGIN)

    async def close(self) -> None:
        pass


@dataclass
class Result:
    """By group of customers the delays in seconds; by account what its provider saw."""

    delays: dict[str, list[float]] = field(default_factory=dict)
    accounts: dict[str, Strict] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    put: int = 0
    waiting: int = 0

    @property
    def breaches(self) -> int:
        return sum(account.refused for account in self.accounts.values())

    @property
    def doubled(self) -> int:
        seen: Counter[str] = Counter()
        for account in self.accounts.values():
            seen.update(account.taken)
        return sum(times - 1 for times in seen.values())

    @property
    def lost(self) -> int:
        return self.put - self.waiting - len({mail for account in self.accounts.values() for mail in account.taken})

    @property
    def good(self) -> bool:
        return not (self.breaches or self.doubled or self.lost)


def fifty_customers(scale: float) -> tuple[list[Account], list[Customer]]:
    """A mixed house; `scale` 1 is about 30,000 mails."""
    accounts = [Account(f"mailbox-{number}", EXCHANGE) for number in range(20)]
    accounts += [
        Account("shared-mailbox", EXCHANGE),
        Account("shared-api", Rate(per_second=10), concurrency=20),
        Account("own-server", concurrency=20, away=((9.0, 11.0), (14.0, 14.2), (15.0, 15.2))),
        Account("strict-host", Rate(per_hour=500), seconds=3.0),
    ]
    daily = max(3, int(150 * scale))
    campaign = {0: (6000, 9.5), 1: (14_000, 8.0)}
    customers = []
    for number in range(20):
        mails, at = campaign.get(number, (0, 0.0))
        spilling = number == 1
        via = (f"mailbox-{number}", "own-server") if spilling else (f"mailbox-{number}",)
        group = "own mailbox, campaign" if mails else "own mailbox"
        spill = Duration(600) if spilling else None
        customers.append(Customer(f"m{number}.nl", via, group, daily, int(mails * scale), at, spill))
    for number in range(5):
        heap = int(2000 * scale) if number == 0 else 0
        group = "shared mailbox, campaign" if heap else "shared mailbox"
        customers.append(Customer(f"s{number}.nl", ("shared-mailbox",), group, daily // 3, heap, 10.0))
    customers += [Customer(f"a{number}.nl", ("shared-api",), "shared API", daily) for number in range(15)]
    customers += [Customer(f"o{number}.nl", ("own-server",), "server with outages", daily) for number in range(8)]
    customers += [Customer(f"h{number}.nl", ("strict-host",), "500 an hour", daily) for number in range(2)]
    return accounts, customers


async def run(folder: Path, accounts: list[Account], customers: list[Customer], hours: float, seed: int) -> Result:
    """The day, and what came of it. The running loop is a VirtualLoop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    clock, chance = VirtualClock(loop), random.Random(seed)
    spool = await SqliteSpool.open(str(folder / "spool.db"), size_limit=1 << 30, clock=clock.now)
    _fence(loop, spool)
    strict = {account.name: Strict(account, clock.now, chance) for account in accounts}
    result = Result(accounts=strict, rates={account.name: account.rate for account in accounts})
    plan = build_plan(_rules(accounts, customers), _kinds(strict), Host("relay.example"), None)
    scheduler = Scheduler(spool, plan, Delivery(), clock, chance)
    await scheduler.start()
    received: dict[str, tuple[str, float]] = {}
    for at, customer in _arrivals(customers, chance):
        if START + at > clock.now():
            await asyncio.sleep(START + at - clock.now())
        mail = Arrival(
            spool.next_id(),
            f"info@{customer.name}",
            ("x@example.org",),
            CONTENT,
            customer.name,
            clock.now(),
            "sim",
            "sim",
        )
        await spool.put(mail)
        received[id_text(mail.id)] = (customer.group, mail.received_at)
    await asyncio.sleep(max(0.0, START + hours * HOUR - clock.now()))
    await scheduler.stop(60.0)
    await asyncio.sleep(1.0)
    result.put, result.waiting = len(received), sum(one.waiting for one in (await spool.backlog()).values())
    for account in strict.values():
        for number, at in account.taken_at.items():
            group, came = received[number]
            result.delays.setdefault(group, []).append(at - came)
    loop.fence = None
    await spool.close()
    return result


def _arrivals(customers: list[Customer], chance: random.Random) -> list[tuple[float, Customer]]:
    """When mail comes, in seconds of the day: between eight and six, and campaigns as fast as CallPro sends."""
    single = [(chance.uniform(8, 18) * HOUR, customer) for customer in customers for _ in range(customer.daily)]
    heaps = [
        (customer.campaign_at * HOUR + number * 0.02, customer)
        for customer in customers
        for number in range(customer.campaign)
    ]
    return sorted(single + heaps, key=lambda arrival: arrival[0])


def _rules(accounts: list[Account], customers: list[Customer]) -> Rules:
    place = Place("simulation", 1)
    upstreams = {one.name: UpstreamRule(one.name, "strict", Settings(), place, one.rate) for one in accounts}
    routes = tuple(
        Route(one.name, RouteSettings(from_=(one.name,), via=one.via, spill_after=one.spill_after), place)
        for one in customers
    )
    return Rules(upstreams, routes, ())


def _kinds(strict: dict[str, Strict]) -> dict[str, Kind]:
    return {"strict": Kind("strict", Settings, lambda name, _settings, _host: strict[name])}


def _limits(rate: Rate) -> list[tuple[float, int]]:
    pairs = ((1.0, rate.per_second), (60.0, rate.per_minute), (HOUR, rate.per_hour), (DAY, rate.per_day))
    return [(length, limit) for length, limit in pairs if limit is not None]


def _fence(loop: VirtualLoop, spool: SqliteSpool) -> None:
    """Let time jump only when the spool's thread has done all that it was asked."""
    writer = spool._writer
    ask = writer.call

    def watched(original: Callable[..., None]) -> Callable[..., None]:
        def noting(*arguments: Any) -> None:
            loop.asked = True
            original(*arguments)

        return noting

    for name in ("put", "call", "flush"):
        setattr(writer, name, watched(getattr(writer, name)))
    loop.fence = lambda done: ask(Call(lambda _: None, lambda _: done(), loop.create_future()))


def table(result: Result) -> str:
    """What people read."""
    lines = [f"{'customers':<26}{'mails':>8}{'median':>10}{'95 %':>10}{'longest':>10}"]
    for group, delays in sorted(result.delays.items()):
        ordered = sorted(delays)
        at = [ordered[int((len(ordered) - 1) * part)] for part in (0.5, 0.95, 1.0)]
        lines.append(f"{group:<26}{len(ordered):>8}" + "".join(f"{_length(one):>10}" for one in at))
    lines += ["", f"{'account':<18}{'most / limit in any window':<44}{'not reached':>12}{'probes':>8}"]
    for name, strict in result.accounts.items():
        names = ("second", "minute", "hour", "day")
        lengths = {1.0: names[0], 60.0: names[1], HOUR: names[2], DAY: names[3]}
        limits = zip(strict.most, _limits(result.rates[name]), strict=True)
        seen = ", ".join(f"{most} / {limit} a {lengths[length]}" for most, (length, limit) in limits)
        lines.append(f"{name:<18}{seen or 'no limit':<44}{strict.unreached:>12}{strict.probes:>8}")
    lines += ["", f"{result.put} mails, {result.waiting} still wait, {result.lost} lost, {result.doubled} twice, "]
    lines[-1] += f"{result.breaches} over a limit"
    return "\n".join(lines)


def _length(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} m"
        if seconds < 6000
        else f"{seconds / HOUR:.1f} h"
    )


def simulate(scale: float, hours: float, seed: int) -> Result:
    """Run it on a spool in memory, where there is such a folder."""
    memory = Path("/dev/shm")
    place = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    with place as folder, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run(Path(folder), *fifty_customers(scale), hours, seed))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the mail; 1 is about 30,000 mails")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    result = simulate(asked.scale, asked.hours, asked.seed)
    print(table(result))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
