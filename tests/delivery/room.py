"""A delivery room on a real spool, with scripted upstreams and a clock that only moves when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from config.fields import Settings, setting
from config.relay_settings import Delivery
from config.rules import Place, Rate, Route, RouteSettings, Rules, UpstreamRule
from delivery.plan import Plan, build_plan
from delivery.scheduler import Scheduler
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from spool.contract import Arrival, Leased, Settlement, SpoolUnavailable, id_number
from spool.sqlite import SqliteSpool
from spool.view import Spent
from upstreams.base import Host, Kind, Upstream

START = 1_700_000_000.0
CONTENT = b"From: info@acme.nl\r\nTo: x@example.org\r\nSubject: Factuur\r\nMessage-ID: <1@acme.nl>\r\n\r\nDag.\r\n"

SENT = Outcome(Word.SENT, "250 2.0.0 queued as 7", Stage.CONTENT, 250, "2.0.0", upstream_id="7")
DOWN = Outcome(Word.RETRY, "Connection refused", Stage.CONNECT)
BUSY = Outcome(Word.RETRY, "451 4.3.2 try later", Stage.SENDER, 451, "4.3.2")
NO_USER = Outcome(Word.REJECT, "550 5.1.1 no such user", Stage.RECIPIENT, 550, "5.1.1")
ASK = Hint(Who.CUSTOMER, "Give us the new password.", "Geef ons het nieuwe wachtwoord.")
BAD_LOGIN = Outcome(Word.CONFIG, "535 5.7.8 bad password", Stage.LOGIN, 535, "5.7.8", hint=ASK)
NOT_YOURS = Outcome(Word.CONFIG, "550 5.7.60 this sender is not permitted", Stage.CONTENT, 550, "5.7.60")
DOUBT = Outcome(Word.UNKNOWN, "connection lost after the final dot", Stage.CONTENT)


class HeldClock:
    """Stands still until `advance`."""

    def __init__(self, at: float = START) -> None:
        self.at = at
        self.quiet: Callable[[], Awaitable[None]] = _nothing
        self._calls: list[tuple[float, int, _Call]] = []
        self._count = itertools.count()

    def now(self) -> float:
        return self.at

    def call_at(self, when: float, callback: Callable[[], None]) -> _Call:
        call = _Call(callback)
        heapq.heappush(self._calls, (when, next(self._count), call))
        return call

    def set_by(self, seconds: float) -> None:
        """The machine's clock is set; calls come after as long a time as before."""
        self.at += seconds
        self._calls = [(when + seconds, number, call) for when, number, call in self._calls]

    @property
    def timers(self) -> list[float]:
        return sorted(when for when, _, call in self._calls if not call.cancelled)

    async def advance(self, seconds: float) -> None:
        """Let time go by, timer by timer, and what follows from each of them happen."""
        end = self.at + seconds
        await self.quiet()
        while self._calls and self._calls[0][0] <= end:
            self.at = max(self.at, self._calls[0][0])
            rang = False
            while self._calls and self._calls[0][0] <= self.at:
                _, _, call = heapq.heappop(self._calls)
                if not call.cancelled:
                    rang = True
                    call.callback()
            if rang:
                await self.quiet()
        self.at = end


@dataclass(slots=True)
class _Call:
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedSettings(Settings):
    password: str = setting(default="one", doc="Anything: another one is another upstream.")


Answer = Outcome | Exception | Callable[[Outgoing], Results]


class Scripted(Upstream):
    """Answers what the test says, and holds its caller to the contract. The last answer repeats."""

    def __init__(self, name: str, *answers: Answer, concurrency: int = 10, recipients_limit: int = 100) -> None:
        self.name, self.concurrency, self.recipients_limit = name, concurrency, recipients_limit
        self.answers: list[Answer] = list(answers) or [SENT]
        self.probe_answer: Outcome | Exception = SENT
        self.mails: list[Outgoing] = []
        self.sent_at: list[float] = []
        self.probes: list[float] = []
        self.under_way = self.most = 0
        self.opened = asyncio.Event()
        self.opened.set()
        self.closed = 0
        self.now: Callable[[], float] = lambda: 0.0

    async def send(self, mail: Outgoing) -> Results:
        assert not self.closed, "send after close"
        assert 0 < len(mail.recipients) <= self.recipients_limit
        assert len(set(mail.recipients)) == len(mail.recipients)
        assert mail.content.endswith(b"\r\n")
        self.mails.append(mail)
        self.sent_at.append(self.now() - START)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        assert self.under_way <= self.concurrency
        try:
            await asyncio.sleep(0)
            await self.opened.wait()
        finally:
            self.under_way -= 1
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(mail.recipients, answer) if isinstance(answer, Outcome) else answer(mail)

    async def probe(self) -> Outcome:
        assert not self.closed, "probe after close"
        self.probes.append(self.now() - START)
        if isinstance(self.probe_answer, Exception):
            raise self.probe_answer
        return self.probe_answer

    async def close(self) -> None:
        assert not self.under_way, "closed under a send"
        self.closed += 1


def route(*senders: str, via: str | tuple[str, ...], **settings: object) -> Route:
    names = (via,) if isinstance(via, str) else via
    return Route(senders[0], RouteSettings(from_=senders, via=names, **settings), Place("routes.yaml", 1))  # type: ignore[arg-type]


def rules(
    routes: tuple[Route, ...], passwords: Mapping[str, str] | None = None, paces: Mapping[str, Rate] | None = None
) -> Rules:
    """Rules whose upstreams are all that the routes name."""
    names = dict.fromkeys(name for one in routes for name in one.settings.upstreams)
    entries = {
        name: UpstreamRule(
            name,
            "scripted",
            ScriptedSettings(password=(passwords or {}).get(name, "one")),
            Place("r", 1),
            (paces or {}).get(name, Rate()),
        )
        for name in names
    }
    return Rules(upstreams=entries, routes=routes, tests=())


def kinds(*upstreams: Scripted) -> dict[str, Kind]:
    """One kind; each name's upstreams are handed out in turn, one for each time it is built."""
    stock: dict[str, list[Scripted]] = {}
    for upstream in upstreams:
        stock.setdefault(upstream.name, []).append(upstream)

    def build(name: str, settings: Settings, host: Host) -> Upstream:
        return stock[name].pop(0)

    return {"scripted": Kind("scripted", ScriptedSettings, build)}


async def _nothing() -> None:
    return None


class WatchedSpool(SqliteSpool):
    """The real spool, which also knows whether it is being asked or has something to write."""

    asked = 0
    wakes_fail = 0
    """How many of the next are refused."""

    async def _watched(self, answer: Awaitable[Any]) -> Any:
        self.asked += 1
        try:
            return await answer
        finally:
            self.asked -= 1

    async def put(self, arrival: Arrival) -> None:
        await self._watched(super().put(arrival))

    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        return await self._watched(super().lease(route, limit, now))

    async def next_due(self, route: str) -> float | None:
        return await self._watched(super().next_due(route))

    async def spend(self, spent: Sequence[Spent]) -> None:
        await self._watched(super().spend(spent))

    async def wake(self, route: str, now: float) -> None:
        if self.wakes_fail:
            self.wakes_fail -= 1
            raise SpoolUnavailable("the disk is gone")
        await self._watched(super().wake(route, now))

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        written = super().settle(settlement)
        self.asked += 1
        written.add_done_callback(self._wrote)
        return written

    def _wrote(self, written: asyncio.Future[None]) -> None:
        self.asked -= 1

    async def quiet(self) -> None:
        """Until nothing has been asked for a while: all that follows from what happened has happened."""
        calm = 0
        while calm < 20:  # turns of the loop, which is all that goes on while nothing is asked
            if self.asked:
                await self._ask(lambda _: None, lambda _: None)  # behind it all that was settled is on disk
            else:
                await asyncio.sleep(0)
            calm = 0 if self.asked else calm + 1


class Room:
    """What a test works with."""

    def __init__(self, spool: WatchedSpool, clock: HeldClock, scheduler: Scheduler, plan: Plan) -> None:
        self.spool, self.clock, self.scheduler, self.plan = spool, clock, scheduler, plan
        self.quiet = clock.quiet = spool.quiet

    async def put(
        self, sender: str = "info@acme.nl", *recipients: str, route: str = "acme.nl", content: bytes = CONTENT
    ) -> int:
        number = self.spool.next_id()
        to = recipients or ("x@example.org",)
        await self.spool.put(Arrival(number, sender, to, content, route, self.clock.now(), "127.0.0.1", "callpro"))
        return number

    async def waiting(self) -> dict[str, int]:
        await self.quiet()
        return {name: backlog.waiting for name, backlog in (await self.spool.backlog()).items()}


@asynccontextmanager
async def room(
    folder: Path,
    routes: tuple[Route, ...],
    *upstreams: Scripted,
    start: bool = True,
    paces: Mapping[str, Rate] | None = None,
    at: float = START,
    **settings: object,
) -> AsyncIterator[Room]:
    """A scheduler on a spool in `folder`, stopped and closed at the end. `at` is when it begins."""
    clock = HeldClock(at)
    for upstream in upstreams:
        upstream.now = clock.now
    spool = await WatchedSpool.open(str(folder / "spool.db"), size_limit=1 << 30, clock=clock.now)
    try:
        plan = build_plan(rules(routes, paces=paces), kinds(*upstreams), Host("relay.callcenter.nl"), None)
        scheduler = Scheduler(spool, plan, Delivery(**settings), clock, Random(7))  # type: ignore[arg-type]
        if start:
            await scheduler.start()
        yield Room(spool, clock, scheduler, plan)
        await scheduler.stop(0.0)
    finally:
        await spool.close()


def events(caplog: object, name: str) -> list[dict[str, object]]:
    """The fields of every event of that name so far."""
    records: list[logging.LogRecord] = caplog.records  # type: ignore[attr-defined]
    return [{**record.fields, "level": record.levelname} for record in records if record.msg == name]  # type: ignore[attr-defined]


def numbers_of(mails: list[Outgoing]) -> list[int]:
    return [id_number(mail.id) for mail in mails]
