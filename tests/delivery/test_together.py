"""What one relay finds out of a way or a host, the others on the same database know: and what they must not believe."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

from config.credentials import Secret
from config.relay_settings import Delivery
from delivery.plan import build_plan
from delivery.scheduler import Scheduler
from spool.contract import Arrival, SpoolUnavailable
from spool.postgres import PostgresSpool
from spool.postgres_node import tell
from tests.delivery.room import BAD_LOGIN, CONTENT, DOWN, SENT, HeldClock, Scripted, events, kinds, route, rules
from tests.fakes import postgres
from tests.spool.test_postgres_nodes import fall_silent, sql
from tests.waiting import until
from upstreams.base import Host

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")
HOST = Host("relay.test")
ROUTES = (route("acme.nl", via="one"),)


@dataclass
class Relay:
    spool: PostgresSpool
    scheduler: Scheduler
    upstream: Scripted
    clock: HeldClock
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        hear = self.spool.heard

        def heard(words: list[str]) -> None:
            hear(words)
            self.heard += words

        self.spool.heard = heard  # type: ignore[method-assign]

    async def put(self, route: str = "acme.nl") -> None:
        arrival = Arrival(
            self.spool.next_id(), f"info@{route}", ("x@example.org",), CONTENT, route, self.clock.at, "::1", "callpro"
        )
        await self.spool.put(arrival)

    @property
    def held(self) -> bool:
        return bool(self.scheduler.held())

    @property
    def busy(self) -> bool:
        """Whether it sends or asks something just now."""
        together, dispatch = self.scheduler._together, self.scheduler._dispatch
        return bool(together._tasks or together._silence.tasks or dispatch.asking or dispatch.sending)


def with_password(password, routes=ROUTES):
    return rules(routes, {name: password for one in routes for name in one.settings.upstreams})


class Relays:
    """Time goes by only while none of them has anything to do, however long the database takes."""

    def __init__(self, url):
        self.url = url
        self.clock = HeldClock(time.time())
        self.clock.quiet = self.settle
        self.all: list[Relay] = []
        self._marks = itertools.count()

    @property
    def mails(self) -> int:
        return sum(len(relay.upstream.mails) for relay in self.all)

    @property
    def probes(self) -> list[int]:
        return [len(relay.upstream.probes) for relay in self.all]

    async def advance(self, seconds: float) -> None:
        """Let the time of delivery go by."""
        await self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        """Until each has heard what the others said, and did what follows from it, and they heard of that."""
        for _ in range(3):
            await self._hear()
            await until(lambda: not any(relay.busy for relay in self.all), "all have done what there was to do")

    async def _hear(self) -> None:
        """All that was said until now, and the news."""
        alive = [relay for relay in self.all if not relay.spool._pulse._stopping]
        for relay in alive:
            await relay.spool.cluster.look()  # behind all that it had to say
        mark = f"mark {next(self._marks)}"
        await alive[0].spool.cluster._ask(lambda connection, _: tell(connection, 0, [mark]))
        await until(lambda: all(mark in relay.heard for relay in alive), "what was said")
        for relay in alive:
            relay.spool.cluster._look()
        for relay in alive:
            await relay.spool.cluster.look()

    async def silent(self, count: int, meanwhile=None) -> None:
        """Until so many say that nobody answers at the host, while time goes by."""

        async def said() -> bool:
            if meanwhile is not None:
                await meanwhile()
            await self.clock.advance(1.0)
            return len(sql(self.url, "SELECT node FROM silent_host")) == count

        await until(said, f"{count} relays that get no answer")


@asynccontextmanager
async def relays(url, *upstreams, passwords=None, routes=ROUTES):
    made = Relays(url)
    async with AsyncExitStack() as stack:
        for number, upstream in enumerate(upstreams):
            upstream.now = made.clock.now
            spool = await PostgresSpool.open(url, size_limit=1 << 30)
            stack.push_async_callback(spool.close)
            password = passwords[number] if passwords else Secret("env:PASSWORD", "geheim")
            plan = build_plan(with_password(password, routes), kinds(upstream), HOST, None)
            scheduler = Scheduler(spool, plan, Delivery(), made.clock, Random(7))
            stack.push_async_callback(scheduler.stop, 0.0)
            await scheduler.start()
            made.all.append(Relay(spool, scheduler, upstream, made.clock))
        yield made


def wrong(count=3):
    found = [Scripted("one", BAD_LOGIN) for _ in range(count)]
    for one in found:
        one.probe_answer = BAD_LOGIN
    return found


async def all_held(r):
    await until(lambda: all(relay.held for relay in r.all), "all have it on hold")


async def as_time_goes_by(r, condition, what):
    """Wait for what comes by the clock of delivery, however many of its seconds a busy machine needs for that."""

    async def a_second_later():
        await r.advance(1)
        return condition()

    await until(a_second_later, what)


def test_a_wrong_password_is_one_failed_login_and_one_story_for_all_relays(database, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        async with relays(database, *wrong()) as r:
            await asyncio.gather(*(relay.put() for relay in r.all for _ in range(4)))
            await all_held(r)
            await r.advance(50)
            assert r.mails == 1
            assert [event["level"] for event in events(caplog, "held")] == ["ERROR"]
            assert [event["level"] for event in events(caplog, "held_by_another")] == ["INFO", "INFO"]
            await r.advance(15)
            assert sum(r.probes) == 1
            await r.advance(300)
            assert sum(r.probes) == 2, "by one of them, at the timetable of one"
            assert sorted(r.probes) == [0, 1, 1], "in turns: what is wrong may be one relay's address"
            seen = {(way.reply, way.next_probe) for relay in r.all for way in relay.scheduler.held()}
            assert len(seen) == 1, "all show the same reply, and the same next probe"
            assert r.mails == 1
            assert "geheim" not in str(sql(database, "SELECT closed_way::text FROM closed_way"))

    asyncio.run(scenario())


def test_a_probe_that_succeeds_opens_it_for_all(database, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        async with relays(database, *wrong()) as r:
            await asyncio.gather(*(relay.put() for relay in r.all for _ in range(4)))
            await all_held(r)
            for relay in r.all:
                relay.upstream.answers, relay.upstream.probe_answer = [SENT], SENT
            await r.advance(65)
            await until(lambda: not any(relay.held for relay in r.all), "all are open")
            await as_time_goes_by(r, lambda: r.mails >= 13, "all mail goes")
            assert r.mails == 13
            assert sum(r.probes) == 1
            assert len(events(caplog, "released")) == 3

    asyncio.run(scenario())


def test_another_relay_probes_when_the_one_that_did_is_gone(database):
    async def scenario():
        async with relays(database, *wrong(2)) as r:
            await asyncio.gather(*(relay.put() for relay in r.all))
            await all_held(r)
            await r.advance(62)
            prober = next(relay for relay in r.all if relay.upstream.probes)
            other = next(relay for relay in r.all if relay is not prober)
            await r.settle()
            await r.advance(302)
            assert r.probes == [1, 1], "the other one has the turn"
            await r.settle()
            await fall_silent(prober.spool)
            await until(lambda: sql(database, "SELECT count(*) FROM node") == [(1,)], "its death is noticed")
            await prober.scheduler.stop(0.0)
            await r.settle()
            await r.clock.advance(910)
            await until(lambda: len(other.upstream.probes) == 2, "the probe that was the dead one's turn")
            assert r.mails == 1

    asyncio.run(scenario())


def test_a_relay_with_the_corrected_password_is_not_kept_shut(database):
    async def scenario():
        old, new = Secret("file:/run/a", "old"), Secret("env:OTHER", "new")
        first, second = wrong(2)
        second.answers = [SENT]
        async with relays(database, first, second, passwords=(old, new)) as r:
            await r.all[0].put()
            await until(lambda: len(second.mails) + len(first.mails) > 0, "a mail")
            await r.advance(5)
            for _ in range(3):
                await r.all[1].put()
            for _ in range(10):
                await r.advance(1)
            assert len(first.mails) <= 1
            assert len(second.mails) >= 3
            assert not [way for way in r.all[1].scheduler.held() if way.route not in ("acme.nl",)]
            seen = sql(database, "SELECT count(*) FROM closed_way")
            assert seen in ([(0,)], [(1,)])

    asyncio.run(scenario())


def test_a_login_that_one_relay_alone_cannot_make_keeps_the_others_for_one_probe(database):
    """As where a customer lets only some of our addresses log in."""

    async def scenario():
        barred, welcome = wrong(2)
        async with relays(database, barred, welcome) as r:
            await r.all[1].scheduler.stop(0.0)  # so that it is the barred one that tries first
            welcome.closed = 0
            await r.all[0].put()
            await until(lambda: len(barred.mails) == 1, "its failure")
            plan = build_plan(with_password(Secret("env:PASSWORD", "geheim")), kinds(welcome), HOST, None)
            r.all[1].scheduler = Scheduler(r.all[1].spool, plan, Delivery(), r.clock, Random(7))
            welcome.answers, welcome.probe_answer = [SENT], SENT
            await r.all[1].scheduler.start()
            await r.settle()
            for _ in range(4):
                await r.all[1].put()
            await r.advance(10)
            assert (len(barred.mails), len(welcome.mails)) == (1, 0)
            await r.advance(400)
            await r.all[0].put()
            for _ in range(10):
                await r.all[1].put()
                await r.advance(2)
            assert len(welcome.mails) >= 10
            assert len(barred.mails) <= 2
            rows = sql(database, "SELECT alone IS NOT NULL FROM closed_way")
            assert rows in ([], [(True,)]), "what is so for one is no hold for all any more"
            await r.all[1].scheduler.stop(0.0)

    asyncio.run(scenario())


def test_the_same_password_from_another_place_is_the_same(database):
    async def scenario():
        same = Secret("file:/run/a", "geheim"), Secret("env:OTHER", "geheim")
        async with relays(database, *wrong(2), passwords=same) as r:
            await asyncio.gather(*(relay.put() for relay in r.all))
            await all_held(r)
            await r.advance(5)
            assert r.mails == 1

    asyncio.run(scenario())


def test_an_order_from_outside_opens_it_for_all_and_one_mail_shows_whether_it_works(database):
    async def scenario():
        async with relays(database, *wrong()) as r:
            await asyncio.gather(*(relay.put() for relay in r.all for _ in range(2)))
            await all_held(r)
            visitor = await PostgresSpool.open(database, size_limit=1, visit=True)
            (ended,) = await visitor.cluster.open_route("acme.nl")
            assert ended.outcome.reply == BAD_LOGIN.reply
            await visitor.close()
            for _ in range(10):
                await r.advance(1)
            await as_time_goes_by(r, lambda: all(relay.held for relay in r.all), "all have it on hold again")
            await r.advance(10)
            assert r.mails == 2

    asyncio.run(scenario())


def test_without_a_login_each_relay_finds_out_for_itself(database):
    """The other side knows us by our address then, and each relay has its own."""

    async def scenario():
        first, second = wrong(2)
        second.answers = [SENT]
        async with relays(database, first, second, passwords=("none", "none")) as r:
            await r.all[0].put()
            await r.all[1].put()
            await r.advance(5)
            for _ in range(4):
                await r.all[0].put()
            await r.advance(5)
            assert second.mails
            rows = sql(database, "SELECT count(*), count(alone) FROM closed_way")
            assert rows in ([(0, 0)], [(1, 1)])
            if first.mails:
                assert {way.only != "" for way in r.all[1].scheduler.held()} == {True}, "all show it"

    asyncio.run(scenario())


def test_without_the_database_a_relay_goes_by_what_it_knows_itself_and_tells_it_later(database, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        (one,) = wrong(1)
        async with relays(database, one) as r:
            (relay,) = r.all
            close = relay.spool.cluster.close

            async def away(_closed):
                raise SpoolUnavailable("the database is away")

            relay.spool.cluster.close = away
            await relay.put()
            await until(lambda: events(caplog, "held") != [], "the hold")
            assert relay.held
            await r.advance(62)
            assert len(one.probes) == 1
            assert sql(database, "SELECT count(*) FROM closed_way") == [(0,)]
            relay.spool.cluster.close = close
            await until(lambda: sql(database, "SELECT count(*) FROM closed_way") == [(1,)], "said now")
            assert len(events(caplog, "held")) == 1

    asyncio.run(scenario())


def hosts(count, *answers):
    """Upstreams that all lead to one host."""
    found = [Scripted("one", *answers) for _ in range(count)]
    for one in found:
        one.connects_to, one.probe_answer = "smtp.acme.nl:587", answers[0]
    return found


def test_a_host_that_is_down_for_all_is_asked_by_one_at_a_time_and_found_by_whoever_reaches_it(database, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        async with relays(database, *hosts(3, DOWN)) as r:
            await asyncio.gather(*(relay.put() for relay in r.all for _ in range(3)))
            await r.silent(3)
            told = [len(events(caplog, name)) for name in ("unreachable", "unreachable_too")]
            assert sum(told) == 3
            assert told[0] >= 1
            await r.settle()
            mails, before = r.mails, sum(r.probes)
            await r.advance(3000)
            assert r.mails - mails <= 3
            assert sum(r.probes) - before <= 3000 / 300 + 3, "as many probes as one relay makes"
            assert min(r.probes) > 0, "they take turns: one whose network is cut must not ask for all"
            reachable = r.all[1].upstream
            reachable.probe_answer, reachable.answers = SENT, [SENT]
            for other in (r.all[0], r.all[2]):
                other.upstream.probe_answer, other.upstream.answers = DOWN, [DOWN]
            await r.advance(1000)
            assert len(sql(database, "SELECT node FROM silent_host")) == 2
            assert len(reachable.mails) > 0, "its mail goes, though the two others reach nobody"

    asyncio.run(scenario())


def test_a_relay_that_failed_once_looks_when_another_hears_nobody_and_needs_no_more_mail_for_it(database):
    async def scenario():
        (one,) = hosts(1, DOWN)
        async with relays(database, one) as r:
            await r.all[0].put()
            await until(lambda: r.all[0].scheduler.unreachable(), "its one failure")
            other = await PostgresSpool.open(database, size_limit=1 << 30)
            other.cluster.silent(one.connects_to, r.clock.at, DOWN.reply, r.clock.at)
            await until(lambda: len(sql(database, "SELECT node FROM silent_host")) == 2, "what it found itself")
            assert (len(one.mails), len(one.probes)) == (1, 1)
            await other.close()

    asyncio.run(scenario())


def test_a_relay_that_failed_once_and_gets_an_answer_says_so(database):
    async def scenario():
        (one,) = hosts(1, DOWN)
        one.probe_answer = SENT
        async with relays(database, one) as r:
            await r.all[0].put()
            await until(lambda: r.all[0].scheduler.unreachable(), "its one failure")
            other = await PostgresSpool.open(database, size_limit=1 << 30)
            other.cluster.silent(one.connects_to, r.clock.at, DOWN.reply, r.clock.at)
            await until(lambda: not r.all[0].scheduler.unreachable(), "its answer")
            assert sql(database, "SELECT count(*) FROM silent_host") == [(1,)]
            await other.close()

    asyncio.run(scenario())


def test_new_rules_in_the_middle_of_that_look_leave_no_mail_waiting_for_it(database):
    """The upstream that was asked is closed behind its last mail: nobody hears its answer."""

    async def scenario():
        (one,), (corrected,) = hosts(1, DOWN), hosts(1, SENT)
        async with relays(database, one, passwords=["one"]) as r:
            relay, scheduler = r.all[0], r.all[0].scheduler
            await relay.put()
            await until(lambda: scheduler.unreachable(), "its one failure")
            one.opened.clear()
            await relay.put()
            await until(lambda: one.under_way, "a mail under way")
            asked = asyncio.Event()

            async def no_answer():
                asked.set()
                await asyncio.Event().wait()

            one.probe = no_answer
            other = await PostgresSpool.open(database, size_limit=1 << 30)
            other.cluster.silent(one.connects_to, r.clock.at, DOWN.reply, r.clock.at)
            await asyncio.wait_for(asked.wait(), 30)
            pulse = relay.spool._pulse  # the next sign of life would bring the mail too, seconds later
            pulse._stopping = True
            os.eventfd_write(pulse._bell, 1)
            await asyncio.to_thread(pulse._thread.join)
            rules_now = with_password("another")
            await scheduler.replace(build_plan(rules_now, kinds(corrected), HOST, scheduler.plan))
            await relay.put()
            one.opened.set()
            await until(lambda: corrected.mails, "the mail that waited for the answer")
            await other.close()

    asyncio.run(scenario())


def test_one_relay_with_a_cut_network_stops_nobody_and_each_other_looks_once(database, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        cut, whole, idle = hosts(3, DOWN)
        for one in (whole, idle):
            one.answers, one.probe_answer = [SENT], SENT
        async with relays(database, cut, whole, idle) as r:
            for relay in r.all:
                await relay.put()
            await r.silent(1, meanwhile=r.all[0].put)
            await r.advance(120)
            assert len(whole.probes) <= 1
            assert len(idle.probes) <= 1
            mails = len(whole.mails) + len(idle.mails)
            for _ in range(10):
                await r.all[1].put()
            await r.advance(20)
            assert len(whole.mails) + len(idle.mails) >= mails + 10 - 3

    asyncio.run(scenario())
