"""Limits on sends at one time, kept by schedulers that share a database: together, and none of them waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest

from config.relay_settings import Delivery
from config.rules import Pace
from delivery import scheduler as scheduling
from delivery.plan import build_plan
from delivery.scheduler import Scheduler
from spool.contract import Arrival
from spool.postgres import PostgresSpool
from tests.delivery.room import CONTENT, Scripted, kinds, route, rules
from tests.fakes import postgres
from tests.spool.test_postgres_nodes import sql
from tests.waiting import until
from upstreams.base import Host

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


class Provider:
    """Counts what is under way over all relays."""

    def __init__(self):
        self.now = self.most = self.mails = 0


class Slow(Scripted):
    """One relay's way to the provider, where a mail takes a moment; longer, until `crowd` were there at one time."""

    def __init__(self, provider, seconds, crowd=0, **options):
        super().__init__("one", **options)
        self.provider, self.seconds, self.crowd = provider, seconds, crowd

    async def send(self, mail):
        self.provider.now += 1
        self.provider.most = max(self.provider.most, self.provider.now)
        try:
            await asyncio.sleep(self.seconds)
            for _ in range(50):  # a first mail is alone, so not for ever
                if self.provider.most >= self.crowd:
                    break
                await asyncio.sleep(0.02)
            self.provider.mails += 1
            return await super().send(mail)
        finally:
            self.provider.now -= 1


@asynccontextmanager
async def relays(url, count, upstreams, *routes, lease=3.0):
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            spool = await PostgresSpool.open(url, size_limit=1 << 30, lease=lease)
            stack.push_async_callback(spool.close)
            plan = build_plan(rules(routes), kinds(upstreams[number]), Host("relay.test"), None)
            scheduler = Scheduler(spool, plan, Delivery(), random=Random(7))
            stack.push_async_callback(scheduler.stop, 0.0)
            await scheduler.start()
            made.append((spool, scheduler))
        yield made


async def put(spool, name="acme.nl", at=1_700_000_000.0):
    arrival = Arrival(spool.next_id(), f"info@{name}", ("x@example.org",), CONTENT, name, at, "127.0.0.1", "callpro")
    await spool.put(arrival)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_relays_keep_the_limit_of_an_upstream_together_and_each_gets_its_turn(database, limit):
    async def test():
        provider = Provider()
        upstreams = [Slow(provider, 0.02 * limit, crowd=limit, concurrency=limit) for _ in range(3)]
        async with relays(database, 3, upstreams, route("acme.nl", via="one")) as made:
            for _ in range(20):
                await asyncio.gather(*(put(spool) for spool, _ in made))
            await until(lambda: provider.mails == 60, "all mail")
            assert provider.most == limit, "the limit is used, and kept"
            assert all(len(upstream.mails) >= 3 for upstream in upstreams), "each has its turn"

    asyncio.run(test())


def test_relays_keep_the_concurrency_of_a_route_together(database):
    async def test():
        provider = Provider()
        upstreams = [Slow(provider, 0.02, concurrency=50) for _ in range(3)]
        paced = route("acme.nl", via="one", pace=Pace(concurrency=2))
        async with relays(database, 3, upstreams, paced) as made:
            for _ in range(10):
                await asyncio.gather(*(put(spool) for spool, _ in made))
            await until(lambda: provider.mails == 30, "all mail")
            assert provider.most == 2

    asyncio.run(test())


def test_each_relay_knows_how_much_of_a_day_all_have_used(database, monkeypatch, capture_events):
    """Neither has sent eight tenths itself, and people are told that the limit is near."""
    monkeypatch.setattr(scheduling, "_LEARN_EVERY", 0.1)

    async def test():
        provider = Provider()
        paced = route("acme.nl", via="one", pace=Pace(per_day=100))
        async with relays(database, 2, [Slow(provider, 0.01) for _ in range(2)], paced) as made:

            def used() -> list[int]:
                return [meter.used_today(one._clock.now()) for _, one in made for meter in one.meters()]

            for _ in range(42):
                await asyncio.gather(*(put(spool) for spool, _ in made))
            await until(lambda: provider.mails == 84, "all mail")
            await until(lambda: used() == [84, 84], "both know of all")
            assert all(one.meters()[0]._windows[-1].used(one._clock.now()) < 80 for _, one in made), "each sent some"
            await put(made[0][0])
            await until(lambda: any(event["event"] == "quota_near" for event in capture_events()))

    asyncio.run(test())


def test_mail_in_a_row_asks_nothing(database):
    async def test():
        provider = Provider()
        upstreams = [Slow(provider, 0.0, concurrency=3)]
        async with relays(database, 1, upstreams, route("acme.nl", via="one", pace=Pace(concurrency=2))) as ((one, _),):
            asked = []
            one.cluster.take = _noting(one.cluster.take, asked)
            for _ in range(20):
                await put(one)
            await until(lambda: provider.mails == 20, "all mail")
            assert sorted(asked) == [("route acme.nl", 2, 2), ("upstream one", 3, 3)]

    asyncio.run(test())


def test_what_a_relay_had_under_way_when_it_was_taken_for_dead_counts_when_it_is_back(database):
    async def test():
        provider = Provider()
        upstreams = [Slow(provider, 0.0, concurrency=2) for _ in range(2)]
        for upstream in upstreams:
            upstream.opened.clear()
        async with relays(database, 2, upstreams, route("acme.nl", via="one")) as ((one, first), (other, _)):
            for way in first.ways():
                way.proven = True
            await put(one)
            await until(lambda: any(upstream.under_way for upstream in upstreams), "a send that hangs")
            busy = one if upstreams[0].under_way else other
            before = busy._identity.node
            sql(database, "DELETE FROM node WHERE id = %s", before)  # as the others do it
            await until(lambda: busy._identity.node != before, "it is somebody new")
            held = "SELECT coalesce(sum(held), 0)::int FROM slots WHERE name = 'upstream one' AND node = %s"
            await until(lambda: sql(database, held, busy._identity.node)[0][0] >= 1, "its send counts again")
            for upstream in upstreams:
                upstream.opened.set()
            await until(lambda: provider.now == 0, "the end")

    asyncio.run(test())


def _noting(take, asked):
    async def noted(*arguments):
        asked.append(arguments)
        return await take(*arguments)

    return noted
