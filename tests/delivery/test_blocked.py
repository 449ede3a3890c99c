"""A server that refuses mail after mail by its policy holds the route; single refusals bounce as ever."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from delivery.blocked import BLOCKED_AFTER
from routing.outcome import Outcome, Stage, Word
from tests.delivery.room import NO_USER, SENT, Scripted, events, room, route

REPORTS = route("<>", via="reports")
BLOCKED = Outcome(Word.REJECT, "554 5.7.1 blocked using bl.example", Stage.RECIPIENT, 554, "5.7.1")


def test_a_block_bounces_nineteen_and_keeps_the_rest_until_a_mail_gets_through(tmp_path: Path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", BLOCKED, concurrency=1)
        async with room(tmp_path, (route("acme.nl", via="one"), REPORTS), one, Scripted("reports")) as r:
            for _ in range(40):
                await r.put()
            await r.clock.advance(0)
            assert len(one.mails) == BLOCKED_AFTER
            (held,) = events(caplog, "held")
            assert (held["reply"], held["who"]) == (BLOCKED.reply, "us")
            assert len(events(caplog, "failed")) == BLOCKED_AFTER - 1
            await r.clock.advance(3 * 3600)
            assert len(events(caplog, "failed")) == BLOCKED_AFTER - 1, "one is tried now and then, and kept"
            one.answers = [SENT]
            await r.clock.advance(2 * 3600)
            delivered = [event for event in events(caplog, "delivered") if event["route"] == "acme.nl"]
            assert len(delivered) == 40 - (BLOCKED_AFTER - 1)
            assert len(events(caplog, "failed")) == BLOCKED_AFTER - 1

    asyncio.run(scenario())


def test_a_delivery_between_them_or_another_refusal_is_no_block(tmp_path: Path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        few = [BLOCKED] * (BLOCKED_AFTER - 1)
        one = Scripted("one", *few, SENT, *few, *[NO_USER] * 30, SENT, concurrency=1)
        async with room(tmp_path, (route("acme.nl", via="one"), REPORTS), one, Scripted("reports")) as r:
            for _ in range(2 * len(few) + 32):
                await r.put()
            await r.clock.advance(0)
            assert events(caplog, "held") == []
            assert await r.waiting() == {}

    asyncio.run(scenario())
