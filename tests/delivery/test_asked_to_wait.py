"""An upstream that says when to come back: until then no route asks it, and no mail is lost."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from delivery.ways import LONGEST_REST
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from tests.delivery.room import SENT, Scripted, events, room, route

THROTTLED = Outcome(Word.WAIT, "HTTP 429 ApplicationThrottled", Stage.REQUEST, 429, wait=120.0)


def test_until_the_stated_time_no_route_asks_the_upstream_and_then_all_mail_leaves(tmp_path: Path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one, other = Scripted("one", THROTTLED, SENT), Scripted("other")
        routes = (route("acme.nl", via="one"), route("globex.nl", via="one"), route("hooli.nl", via="other"))
        async with room(tmp_path, routes, one, other) as r:
            await r.put()
            await r.clock.advance(0)
            for name in ("acme.nl", "globex.nl", "hooli.nl"):
                await r.put(f"info@{name}", route=name)
            await r.clock.advance(119)
            assert one.sent_at == [0.0]
            assert len(other.mails) == 1, "another upstream is not asked to wait"
            assert {(way.route, way.reply) for way in r.scheduler.paced()} == {
                ("acme.nl", "one asked us to wait"), ("globex.nl", "one asked us to wait"),
            }  # fmt: skip
            await r.clock.advance(20)
            assert await r.waiting() == {}
            assert len(one.mails) == 4
            (told,) = events(caplog, "asked_to_wait")
            assert (told["upstream"], told["seconds"]) == ("one", 120.0)

    asyncio.run(scenario())


def test_a_mail_that_is_being_split_stops_at_the_refusal_and_goes_on_later(tmp_path: Path):
    async def scenario():
        one = Scripted("one", SENT, THROTTLED, SENT, recipients_limit=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl", "c@x.nl")
            await r.clock.advance(119)
            assert [mail.recipients for mail in one.mails] == [("a@x.nl",), ("b@x.nl",)]
            await r.clock.advance(20)
            assert [mail.recipients for mail in one.mails[2:]] == [("b@x.nl",), ("c@x.nl",)]

    asyncio.run(scenario())


def test_with_spill_after_the_next_way_takes_the_mail_meanwhile(tmp_path: Path):
    async def scenario():
        one, other = Scripted("one", THROTTLED, SENT), Scripted("other")
        async with room(tmp_path, (route("acme.nl", via=("one", "other"), spill_after=60.0),), one, other) as r:
            await r.put()
            await r.clock.advance(0)
            await r.put()
            await r.clock.advance(0)
            assert (len(one.mails), len(other.mails)) == (1, 1)

    asyncio.run(scenario())


def test_an_absurd_time_keeps_its_own_mail_alone_back_for_longer_than_an_hour(tmp_path: Path):
    forever = Outcome(Word.WAIT, "HTTP 429", Stage.REQUEST, 429, wait=1e9)

    async def scenario():
        one = Scripted("one", forever, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(0)
            await r.put()
            await r.clock.advance(LONGEST_REST + 1)
            assert one.sent_at == [0.0, LONGEST_REST]

    asyncio.run(scenario())


def test_a_recipient_who_got_too_much_keeps_nobody_else_waiting(tmp_path: Path):
    crowded = Outcome(Word.RETRY, "550 5.2.121 too many messages", Stage.RECIPIENT, 550, "5.2.121", wait=3600.0)

    def answer(mail: Outgoing) -> Results:
        return {to: crowded if to == "full@x.nl" else SENT for to in mail.recipients}

    async def scenario():
        one = Scripted("one", answer)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "full@x.nl")
            await r.clock.advance(0)
            await r.put()
            await r.clock.advance(0)
            assert len(one.mails) == 2

    asyncio.run(scenario())
