"""What counts as mail that delivery has lost sight of, and what does not."""

from __future__ import annotations

import asyncio

from delivery.dispatch import Dispatch
from spool.holding import Hold, Scope
from tests.delivery.room import BAD_LOGIN, BUSY, START, Scripted, room, route

ACME = (route("acme.nl", via="up"),)


def test_due_mail_that_nobody_looks_at_is_stuck(tmp_path):
    async def test() -> None:
        async with room(tmp_path, ACME, Scripted("up"), start=False) as here:
            await here.put()
            await here.clock.advance(120)
            assert await here.scheduler.stuck() == ()
            await here.clock.advance(120)
            assert await here.scheduler.stuck() == ("acme.nl",)

    asyncio.run(test())


def test_a_lane_that_fell_asleep_is_stuck(tmp_path, monkeypatch):
    async def test() -> None:
        async with room(tmp_path, ACME, Scripted("up", BUSY), retry=(60.0,)) as here:
            await here.put()
            await here.quiet()
            monkeypatch.setattr(Dispatch, "_rang", lambda *_: None)  # the bug: a timer that wakes nobody
            await here.clock.advance(1000)
            assert await here.scheduler.stuck() == ("acme.nl",)

    asyncio.run(test())


def test_mail_that_something_keeps_is_not_stuck(tmp_path):
    async def test() -> None:
        slow, bad = Scripted("slow"), Scripted("bad", BAD_LOGIN)
        bad.probe_answer = BAD_LOGIN
        slow.opened.clear()
        routes = (
            route("slow.nl", via="slow"),
            route("bad.nl", via="bad"),
            route("held.nl", via="slow"),
        )
        async with room(tmp_path, routes, slow, bad) as here:
            await here.spool.hold(Hold(Scope.ROUTE, "held.nl", START, "jan", "x"))
            for name in ("slow.nl", "slow.nl", "bad.nl", "bad.nl", "held.nl"):
                await here.put(f"info@{name}", route=name)
            await here.quiet()
            await here.clock.advance(1000)
            assert await here.scheduler.stuck() == ()
            slow.opened.set()
            await here.quiet()

    asyncio.run(test())
