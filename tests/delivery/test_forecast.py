"""What is foreseen from a backlog and a pace, against what then happens."""

from __future__ import annotations

import asyncio
import gc
import logging

from config.rules import Pace, Rate
from delivery.accounts import Meters
from delivery.forecast import forecast
from spool.contract import SpoolUnavailable
from spool.view import Load, Spent
from tests.delivery.room import START, Scripted, events, room, route, rules

HOUR, DAY = 3600.0, 86400.0


def foresee(routes, loads, paces, spent=(), now=START):
    wanted = rules(routes, paces=paces)
    meters = Meters(wanted.upstreams, wanted.routes)
    meters.restore(spent, now)
    return forecast(meters, {one.name: one for one in routes}, loads, now)


def test_a_backlog_at_so_many_a_minute_takes_so_many_minutes():
    found = foresee((route("acme.nl", via="one"),), {"acme.nl": Load(3000, 3000)}, {"one": Rate(per_minute=30)})
    (queue,) = found.queues
    assert queue.empty_at == START + 99 * 60
    assert found.quotas == ()


def test_a_backlog_over_the_days_limit_says_when_it_is_reached_and_when_it_is_all_out():
    paces = {"one": Rate(per_minute=30, per_day=10_000)}
    found = foresee((route("acme.nl", via="one"),), {"acme.nl": Load(25_000, 25_000)}, paces)
    (queue,), (quota,) = found.queues, found.quotas
    assert abs(quota.full_at - (START + 333 * 60)) <= 120
    assert 2 * DAY < queue.empty_at - START < 2 * DAY + 4 * HOUR


def test_recipients_count_and_what_was_sent_before_too():
    paces = {"one": Rate(per_day=1000)}
    spent = (Spent("upstream one", START - 10 * HOUR, 100, 900),)
    found = foresee((route("acme.nl", via="one"),), {"acme.nl": Load(50, 500)}, paces, spent)
    (queue,), (quota,) = found.queues, found.quotas
    assert (quota.used, quota.limit, quota.full_at) == (900, 1000, START)
    assert 13 * HOUR < queue.empty_at - START < 15 * HOUR


def test_the_last_hour_going_on_is_foreseen_without_a_backlog():
    spent = (Spent("upstream one", START - 1200, 200, 200),)
    (quota,) = foresee((route("acme.nl", via="one"),), {}, {"one": Rate(per_day=1000)}, spent).quotas
    assert 3 * HOUR < quota.full_at - START < 5 * HOUR
    (calm,) = foresee((route("acme.nl", via="one"),), {}, {"one": Rate(per_day=100_000)}, spent).quotas
    assert calm.full_at is None


def test_queues_on_one_account_are_foreseen_together_and_others_alone():
    routes = (
        route("acme.nl", via="one"),
        route("globex.nl", via="one"),
        route("hooli.nl", via="two"),
        route("stark.nl", via="two", pace=Pace(per_minute=1)),
    )
    loads = {name: Load(60, 60) for name in ("acme.nl", "globex.nl", "hooli.nl", "stark.nl", "gone.nl")}
    found = {queue.route: queue for queue in foresee(routes, loads, {"one": Rate(per_minute=10)}).queues}
    assert set(found) == {"acme.nl", "globex.nl", "hooli.nl", "stark.nl"}
    assert 10 * 60 <= found["globex.nl"].empty_at - START <= 13 * 60
    assert (found["hooli.nl"].paced, found["hooli.nl"].empty_at) == (False, START)
    assert found["stark.nl"].empty_at == START + 59 * 60


def test_what_was_foreseen_is_what_happens_and_people_hear_of_it_before(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one")
        paces = {"one": Rate(per_minute=10, per_day=60)}
        async with room(tmp_path, (route("acme.nl", via="one"),), one, paces=paces, start=False) as r:
            for _ in range(100):
                await r.put()
            await r.scheduler.start()
            await r.clock.advance(0)
            found = await r.scheduler.forecast()
            (told,) = events(caplog, "quota_near")
            assert told["recipients"] < 60
            assert 60 < told["full_in"] < 600
            await r.clock.advance(found.queues[0].empty_at - START + 1200)
            assert await r.waiting() == {}
            assert abs(one.sent_at[-1] - (found.queues[0].empty_at - START)) < 1200
            assert abs(one.sent_at[59] - told["full_in"]) <= 120
            assert len(events(caplog, "quota_near")) <= 2

    asyncio.run(scenario())


def test_a_spool_that_is_away_is_asked_again_later(tmp_path, caplog):
    async def scenario():
        broken = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: broken.append(context))
        paces = {"one": Rate(per_minute=1, per_day=60)}
        async with room(tmp_path, (route("acme.nl", via="one"),), Scripted("one"), paces=paces, start=False) as r:

            async def away() -> None:
                raise SpoolUnavailable("disk I/O error")

            for _ in range(100):
                await r.put()
            await r.scheduler.start()
            backlog, r.spool.backlog = r.spool.backlog, away
            await r.clock.advance(60)
            gc.collect()
            assert broken == []
            assert events(caplog, "quota_near") == []
            r.spool.backlog = backlog
            await r.clock.advance(1000)
            assert len(events(caplog, "quota_near")) == 1

    asyncio.run(scenario())
