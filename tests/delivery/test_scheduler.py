"""Mail from the spool to the upstreams: order, fairness, concurrency, waking, draining."""

from __future__ import annotations

import asyncio
import logging

from config.rules import Pace
from spool.contract import Leased, SpoolUnavailable
from spool.sqlite import SqliteSpool
from tests.delivery.room import BAD_LOGIN, BUSY, SENT, START, Scripted, events, numbers_of, room, route
from tests.waiting import until


def test_a_mail_leaves_by_its_route_and_its_line_tells_where(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one, two = Scripted("one"), Scripted("two")
        routes = (route("acme.nl", via="one"), route("globex.nl", via="two"))
        async with room(tmp_path, routes, one, two) as r:
            await r.put("info@acme.nl", "a@example.org", "b@example.org")
            await r.put("info@globex.nl", route="globex.nl")
            await until(lambda: one.mails and two.mails, "both mails")
            await until(lambda: len(events(caplog, "delivered")) == 2, "two lines")
            assert one.mails[0].sender == "info@acme.nl"
            assert one.mails[0].recipients == ("a@example.org", "b@example.org")
            assert (one.mails[0].route, two.mails[0].route) == ("acme.nl", "globex.nl")
            line = next(line for line in events(caplog, "delivered") if line["route"] == "acme.nl")
            assert (line["upstream"], line["reply"], line["code"], line["attempts"]) == ("one", SENT.reply, 250, 1)
            assert line["recipients"] == ["a@example.org", "b@example.org"]
            assert await r.waiting() == {}
            assert r.scheduler.routes()["acme.nl"].delivered == 2

    asyncio.run(scenario())


def test_mail_that_waited_before_the_start_is_delivered(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one"),), one, start=False) as r:
            numbers = [await r.put() for _ in range(40)]
            await r.scheduler.start()
            await r.clock.advance(0)
            await until(lambda: len(one.mails) == 40, "all mail")
            assert sorted(numbers_of(one.mails)) == sorted(numbers)

    asyncio.run(scenario())


def test_a_refusal_for_now_comes_back_when_it_is_due_and_not_before(tmp_path):
    async def scenario():
        one = Scripted("one", BUSY, BUSY, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: len(one.mails) == 1, "the first try")
            await r.clock.advance(59)
            assert len(one.mails) == 1
            await r.clock.advance(8)
            assert len(one.mails) == 2
            await r.clock.advance(299)
            assert len(one.mails) == 2
            await r.clock.advance(40)
            assert len(one.mails) == 3
            assert await r.waiting() == {}
            assert r.scheduler.routes()["acme.nl"].deferred == 2

    asyncio.run(scenario())


def test_one_customers_heap_does_not_delay_anothers_mail_at_the_same_upstream(tmp_path):
    async def scenario():
        shared = Scripted("shared", concurrency=2)
        routes = (route("acme.nl", via="shared"), route("globex.nl", via="shared"))
        async with room(tmp_path, routes, shared) as r:
            shared.opened.clear()
            for _ in range(60):
                await r.put()
            await until(lambda: shared.mails, "the heap has begun")
            single = await r.put("info@globex.nl", route="globex.nl")
            await r.quiet()
            ahead = len(shared.mails)
            shared.opened.set()
            await until(lambda: len(shared.mails) == 61, "everything")
            assert numbers_of(shared.mails).index(single) <= ahead + 1
            assert shared.most == 2

    asyncio.run(scenario())


def test_lanes_on_one_upstream_take_turns(tmp_path):
    async def scenario():
        shared = Scripted("shared", concurrency=1)
        names = ("acme.nl", "globex.nl", "hooli.nl")
        async with room(tmp_path, tuple(route(name, via="shared") for name in names), shared, start=False) as r:
            for name in names:
                for _ in range(20):
                    await r.put(f"info@{name}", route=name)
            await r.scheduler.start()
            await r.clock.advance(0)
            await until(lambda: len(shared.mails) == 60, "everything")
            middle = [mail.route for mail in shared.mails[6:54]]
            for start in range(0, 48, 12):
                counts = [middle[start : start + 12].count(name) for name in names]
                assert max(counts) - min(counts) <= 2, middle

    asyncio.run(scenario())


def test_concurrency_of_the_pace_holds_for_the_route_alone(tmp_path):
    async def scenario():
        shared = Scripted("shared", concurrency=8)
        routes = (route("acme.nl", via="shared", pace=Pace(concurrency=2)), route("globex.nl", via="shared"))
        async with room(tmp_path, routes, shared) as r:
            await r.put()
            await r.put("x@globex.nl", route="globex.nl")
            await until(lambda: len(shared.mails) == 2, "both ways proven")
            await r.quiet()
            shared.opened.clear()
            for _ in range(20):
                await r.put()
                await r.put("x@globex.nl", route="globex.nl")
            await until(lambda: shared.under_way == 8, "the upstream is full")
            busy = [mail.route for mail in shared.mails[2:]]
            assert busy.count("acme.nl") == 2
            assert r.scheduler.routes()["acme.nl"].in_flight == 2
            shared.opened.set()
            await until(lambda: len(shared.mails) == 42, "everything")
            assert shared.most == 8

    asyncio.run(scenario())


def test_big_mail_is_taken_one_by_one(tmp_path):
    async def scenario():
        one = Scripted("one", concurrency=20)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            big = b"Subject: big\r\n\r\n" + b"x" * (5 << 20) + b"\r\n"
            one.opened.clear()
            for _ in range(6):
                await r.put(content=big)
            await until(lambda: one.under_way, "a send")
            await r.quiet()
            assert r.scheduler.octets <= 3 * len(big)
            one.opened.set()
            await until(lambda: len(one.mails) == 6, "everything")
            await r.quiet()
            assert r.scheduler.octets == 0

    asyncio.run(scenario())


def test_thousands_of_idle_routes_have_no_task_and_no_timer(tmp_path):
    async def scenario():
        one = Scripted("one")
        routes = tuple(route(f"c{number}.nl", via="one") for number in range(3000))
        async with room(tmp_path, routes, one) as r:
            await r.put("info@c7.nl", route="c7.nl")
            await until(lambda: one.mails, "the mail")
            await r.quiet()
            assert r.clock.timers == []
            assert len(r.scheduler.routes()) == 1
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_a_drain_lets_sends_end_and_starts_no_more(tmp_path):
    async def scenario():
        one = Scripted("one", concurrency=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            one.opened.clear()
            for _ in range(5):
                await r.put()
            await until(lambda: one.under_way == 1, "a send")
            stopping = asyncio.create_task(r.scheduler.stop(10.0))
            await r.quiet()
            assert not stopping.done()
            one.opened.set()
            await stopping
            assert len(one.mails) == 1
            assert one.closed == 1
            assert await r.waiting() == {"acme.nl": 4}

    asyncio.run(scenario())


def test_a_send_that_outlives_the_grace_comes_back_uncounted(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            one.opened.clear()
            number = await r.put()
            await until(lambda: one.under_way == 1, "a send")
            await r.scheduler.stop(0.01)
            assert (one.under_way, one.closed) == (0, 1)
            assert await r.waiting() == {"acme.nl": 1}
        spool = await SqliteSpool.open(str(tmp_path / "spool.db"), size_limit=1 << 30)
        (leased,) = await spool.lease("acme.nl", 1, START)
        assert (leased.id, leased.attempts) == (number, 0)
        await spool.close()

    asyncio.run(scenario())


def test_a_spool_that_fails_for_a_moment_is_asked_again(tmp_path, caplog):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one"),), one, start=False) as r:
            await r.put()
            ask = r.spool.lease

            async def unable(name: str, limit: int, now: float) -> list[Leased]:
                raise SpoolUnavailable("disk I/O error")

            r.spool.lease = unable
            await r.scheduler.start()
            await r.clock.advance(1)
            said = [record for record in caplog.records if record.getMessage() == "lease_waits"]
            assert said
            assert not any(record.exc_info for record in caplog.records), "it is nobody's bug"
            r.spool.lease = ask
            await r.clock.advance(6)
            assert len(one.mails) == 1

    asyncio.run(scenario())


def test_a_wrong_login_at_the_very_end_does_not_make_the_mail_wait_after_the_restart(tmp_path):
    async def scenario():
        one = Scripted("one", BAD_LOGIN)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            one.opened.clear()
            await r.put()
            await until(lambda: one.under_way == 1, "a send")
            stopping = asyncio.create_task(r.scheduler.stop(10.0))
            await r.quiet()
            one.opened.set()
            await stopping
            await r.quiet()
            assert len(await r.spool.lease("acme.nl", 1, r.clock.now())) == 1

    asyncio.run(scenario())
