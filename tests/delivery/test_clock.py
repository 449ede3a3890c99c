"""A clock that was set is noticed, and what delivery had timed goes on as if it had not been."""

from __future__ import annotations

import asyncio

from config.rules import Rate
from delivery.clock import StepWatch
from routing.outcome import Outcome, Stage, Word
from tests.delivery.room import BAD_LOGIN, SENT, Room, Scripted, room, route

A_DAY = 86400.0


def test_only_a_step_counts():
    wall, steady = [1000.0], [0.0]
    watch = StepWatch(lambda: wall[0], lambda: steady[0])

    def later(by_wall: float, by_steady: float) -> float:
        wall[0] += by_wall
        steady[0] += by_steady
        return watch.look()

    assert later(10, 10) == 0
    assert later(8, 10) == 0, "slewed"
    assert later(86410, 10) == 86400
    assert later(-3590, 10) == -3600
    assert later(10, 10) == 0, "told once"


async def set_by(r: Room, seconds: float) -> None:
    """As the service does when it notices; timers of the event loop do not go by this clock."""
    r.clock.set_by(seconds)
    r.scheduler.clock_set(seconds)
    if seconds < 0:
        await r.scheduler.try_all()


def test_a_limit_counts_on_whichever_way_the_clock_was_set(tmp_path):
    async def scenario(seconds: float) -> None:
        one = Scripted("one")
        pace = {"one": Rate(per_minute=2)}
        async with room(tmp_path / str(seconds), (route("acme.nl", via="one"),), one, paces=pace) as r:
            for _ in range(3):
                await r.put()
            await r.clock.advance(10)
            await set_by(r, seconds)
            await r.clock.advance(40)
            assert len(one.mails) == 2
            await r.clock.advance(20)
            assert len(one.mails) == 3

    for seconds in (-A_DAY, A_DAY):
        (tmp_path / str(seconds)).mkdir()
        asyncio.run(scenario(seconds))


def test_an_upstream_that_asked_to_wait_is_not_waited_for_longer(tmp_path):
    throttled = Outcome(Word.WAIT, "HTTP 429", Stage.REQUEST, 429, wait=120.0)

    async def scenario() -> None:
        one = Scripted("one", throttled, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(10)
            await set_by(r, -A_DAY)
            await r.clock.advance(100)
            assert len(one.mails) == 1
            await r.clock.advance(20)
            assert len(one.mails) == 2

    asyncio.run(scenario())


def test_a_way_on_hold_is_really_asked_though_the_last_no_seems_to_come_from_the_future(tmp_path):
    async def scenario() -> None:
        one = Scripted("one", BAD_LOGIN, SENT)
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(61)
            assert len(one.probes) == 1
            one.probe_answer = SENT
            await set_by(r, -A_DAY)
            await r.clock.advance(310)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_that_is_due_by_the_new_time_is_tried_at_once(tmp_path):
    later = Outcome(Word.RETRY, "451 4.3.2 try later", Stage.SENDER, 451)

    async def scenario() -> None:
        one = Scripted("one", later, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, retry=(7200.0,)) as r:
            await r.put()
            await r.clock.advance(1)
            await set_by(r, A_DAY)
            await r.clock.advance(1)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_is_woken_when_the_spool_answers_again(tmp_path):
    later = Outcome(Word.RETRY, "451 4.3.2 try later", Stage.SENDER, 451)

    async def scenario() -> None:
        one = Scripted("one", later, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, retry=(7200.0,)) as r:
            await r.put()
            await r.clock.advance(1)
            r.spool.wakes_fail = 1
            await r.scheduler.try_all()
            await r.clock.advance(10)
            assert await r.waiting() == {}

    asyncio.run(scenario())
