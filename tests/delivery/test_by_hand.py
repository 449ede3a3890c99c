"""What people do reaches mail that delivery has at hand, and delivery's own holds can be ended by them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from config.fields import Duration
from spool.contract import id_text
from spool.holding import Hold, Scope
from spool.view import Filter
from tests.delivery.room import BAD_LOGIN, BUSY, SENT, Scripted, events, numbers_of, room, route
from tests.waiting import until

ROUTE = (Scope.ROUTE, "acme.nl")
CUSTOMER = (Scope.SENDER, "@acme.nl")


@pytest.mark.parametrize("key", [ROUTE, CUSTOMER], ids=str)
def test_no_send_begins_after_a_hold_and_those_under_way_end(tmp_path, key):
    async def scenario():
        one = Scripted("one", concurrency=2)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: len(one.mails) == 1, "a way that works")
            one.opened.clear()
            ids = [await r.put() for _ in range(8)]
            await until(lambda: one.under_way == 2, "two sends")
            hold = Hold(*key, r.clock.now(), "jan", "the customer asked")
            await r.spool.hold(hold)
            r.scheduler.recall(hold)
            one.opened.set()
            ids.append(await r.put())
            await r.quiet()
            assert len(one.mails) == 3
            assert await r.waiting() == {"acme.nl": 7}
            await r.spool.release(key, r.clock.now())
            await until(lambda: len(one.mails) == 10, "the rest")
            assert numbers_of(one.mails)[1:] == ids

    asyncio.run(scenario())


def test_one_mail_on_hold_lets_the_others_by(tmp_path):
    async def scenario():
        one = Scripted("one", BUSY, concurrency=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            first = await r.put()
            await until(lambda: len(one.mails) == 1, "a first try")
            await r.quiet()
            hold = Hold(Scope.MAIL, id_text(first), r.clock.now(), "jan", "")
            await r.spool.hold(hold)
            r.scheduler.recall(hold)
            one.answers = [SENT]
            second = await r.put()
            await r.clock.advance(3600)
            assert numbers_of(one.mails) == [first, second]
            await r.spool.release(hold.key, r.clock.now())
            await until(lambda: len(one.mails) == 3, "the held one")

    asyncio.run(scenario())


def test_the_expiry_does_not_run_while_people_hold_a_mail(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", BUSY)
        settings = {"expire": Duration(3600), "retry": (Duration(600),)}
        async with room(tmp_path, (route("acme.nl", via="one"),), one, **settings) as r:
            await r.put()
            await until(lambda: len(one.mails) == 1, "a first try")
            await r.quiet()
            await r.spool.hold(Hold(*CUSTOMER, r.clock.now(), "jan", ""))
            await r.clock.advance(10 * 3600)
            assert len(one.mails) == 1
            await r.spool.release(CUSTOMER, r.clock.now())
            await r.clock.advance(3500)
            assert len(one.mails) > 4
            assert events(caplog, "expired") == []
            await r.clock.advance(700)
            assert len(events(caplog, "expired")) == 1

    asyncio.run(scenario())


def test_people_end_a_hold_that_delivery_made(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", BAD_LOGIN)
        async with room(tmp_path, (route("acme.nl", via="one"), route("globex.nl", via="one")), one) as r:
            await r.put()
            await until(lambda: r.scheduler.held() != (), "the hold")
            await r.quiet()
            (held,) = r.scheduler.held()
            assert (held.route, held.upstream, held.reply) == ("acme.nl", "one", BAD_LOGIN.reply)
            assert held.next_probe == r.clock.now() + 60
            assert r.scheduler.release("globex.nl", "released by jan") == 0
            assert r.scheduler.release("nobody.nl", "released by jan") == 0
            one.answers = [SENT]
            assert r.scheduler.release("acme.nl", "released by jan") == 1
            await until(lambda: len(one.mails) == 2, "the mail")
            assert events(caplog, "released")[0]["why"] == "released by jan"
            assert r.scheduler.held() == ()

    asyncio.run(scenario())


def test_a_hurried_mail_is_tried_now(tmp_path):
    async def scenario():
        one = Scripted("one", BUSY)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, retry=(Duration(3600),)) as r:
            await r.put()
            await until(lambda: len(one.mails) == 1, "a first try")
            await r.quiet()
            await r.spool.hurry(Filter(route="acme.nl"), None, r.clock.now())
            await until(lambda: len(one.mails) == 2, "a second try")

    asyncio.run(scenario())
