"""A route that is wrong is held: no mail is lost, no login wasted, and it resumes by itself without flapping."""

from __future__ import annotations

import asyncio
import logging

from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from spool.sqlite_view import SqliteView
from spool.view import Filter
from tests.delivery.room import BAD_LOGIN, NOT_YOURS, SENT, Scripted, events, numbers_of, room, route
from tests.waiting import until


def test_one_wrong_password_is_one_login_however_much_mail_waits(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", BAD_LOGIN)
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            for _ in range(30):
                await r.put()
            await until(lambda: events(caplog, "held") != [], "the hold")
            await r.quiet()
            await r.put()
            await r.clock.advance(59)
            assert len(one.mails) == 1
            assert one.probes == []
            (held,) = events(caplog, "held")
            assert (held["level"], held["route"], held["upstream"]) == ("ERROR", "acme.nl", "one")
            assert (held["reply"], held["hint"], held["who"]) == (
                BAD_LOGIN.reply,
                "Give us the new password.",
                "customer",
            )
            assert await r.waiting() == {"acme.nl": 31}
            numbers = r.scheduler.routes()["acme.nl"]
            assert [(note.upstream, note.reply) for note in numbers.held] == [("one", BAD_LOGIN.reply)]
            assert (numbers.deferred, numbers.failed) == (0, 0)

    asyncio.run(scenario())


def test_probes_follow_the_timetable_and_success_releases_in_order(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", BAD_LOGIN, SENT, concurrency=1)
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            first = await r.put()
            await until(lambda: events(caplog, "held") != [], "the hold")
            others = []
            for _ in range(5):
                r.clock.at += 1
                others.append(await r.put())
            await r.clock.advance(60 + 300 + 900)
            assert [round(at, -1) for at in one.probes] == [60, 360, 1260]
            assert len(one.mails) == 1
            one.probe_answer = SENT
            await r.clock.advance(1800)
            await until(lambda: len(one.mails) == 7, "all mail")
            # the one that put the route on hold goes behind the others: they show whose fault it was
            assert numbers_of(one.mails) == [first, *others, first]
            (released,) = events(caplog, "released")
            assert released["why"] == "a probe succeeded"
            assert await r.waiting() == {}
            assert r.scheduler.routes()["acme.nl"].held == ()

    asyncio.run(scenario())


def test_a_probe_that_succeeds_while_mail_fails_does_not_flap(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", NOT_YOURS)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            for _ in range(8):
                await r.put()
            await r.clock.advance(24 * 3600)
            # 1m, 5m, 15m, 30m, 1h, then every hour: one mail each time
            assert [round(at) for at in one.probes[:5]] == [60, 360, 1260, 3060, 6660]
            assert len(one.probes) <= 28
            assert len(one.mails) == len(one.probes) + 1
            assert [line["level"] for line in events(caplog, "held")[:3]] == ["ERROR", "WARNING", "WARNING"]
            one.answers = [SENT]
            await r.clock.advance(3601)
            assert await r.waiting() == {}
            one.answers = [NOT_YOURS]
            before = len(one.probes)
            await r.put()
            await r.clock.advance(61)
            assert len(one.probes) == before + 1  # after a delivery the timetable begins anew

    asyncio.run(scenario())


def test_sends_under_way_when_the_route_is_held_come_back_uncounted(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", SENT)
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: len(events(caplog, "delivered")) == 1, "a way that works")
            one.answers = [BAD_LOGIN]
            one.opened.clear()
            for _ in range(6):
                await r.put()
            await until(lambda: one.under_way == 6, "six sends")
            one.opened.set()
            await until(lambda: events(caplog, "held") != [], "the hold")
            await r.quiet()
            assert len(events(caplog, "held")) == 1
            assert len(one.mails) == 7
            assert await r.waiting() == {"acme.nl": 6}
            assert {mail.attempts for mail in await r.spool.lease("acme.nl", 10, r.clock.now() + 3600)} == {0}

    asyncio.run(scenario())


def test_a_hold_is_for_the_route_and_never_for_the_whole_upstream(tmp_path):
    def answer(mail: Outgoing) -> Results:
        return dict.fromkeys(mail.recipients, NOT_YOURS if mail.sender.endswith("acme.nl") else SENT)

    async def scenario():
        shared = Scripted("shared", answer)
        shared.probe_answer = NOT_YOURS
        routes = (route("acme.nl", via="shared"), route("globex.nl", via="shared"))
        async with room(tmp_path, routes, shared) as r:
            await r.put()
            await until(lambda: len(shared.mails) == 1, "the mail that is refused")
            await r.quiet()
            for _ in range(5):
                await r.put("info@globex.nl", route="globex.nl")
            await until(lambda: len(shared.mails) == 6, "the other customer's mail")
            assert await r.waiting() == {"acme.nl": 1}

    asyncio.run(scenario())


def test_routes_that_share_a_wrong_password_share_a_probe(tmp_path):
    async def scenario():
        shared = Scripted("shared", BAD_LOGIN)
        shared.probe_answer = BAD_LOGIN
        names = [f"c{number}.nl" for number in range(20)]
        async with room(tmp_path, tuple(route(name, via="shared") for name in names), shared) as r:
            for name in names:
                await r.put(f"info@{name}", route=name)
            await until(lambda: len(shared.mails) == 20, "every route's first mail")
            await r.clock.advance(61)
            assert len(shared.probes) == 1
            shared.probe_answer, shared.answers = SENT, [SENT]
            await r.clock.advance(300)
            assert len(shared.probes) == 2
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_one_mails_own_fault_holds_the_route_once_and_then_backs_off_alone(tmp_path, caplog):
    def answer(mail: Outgoing) -> Results:
        return {to: NOT_YOURS if to == "odd@example.org" else SENT for to in mail.recipients}

    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", answer)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, expire=Duration(6 * 3600)) as r:
            await r.put("info@acme.nl", "odd@example.org")
            await until(lambda: events(caplog, "held") != [], "the hold")
            for _ in range(3):
                await r.put()
            await r.clock.advance(61)
            assert len(events(caplog, "delivered")) == 3
            for _ in range(10):
                await r.put()
                await r.clock.advance(600)
            assert len(events(caplog, "delivered")) == 13
            assert len(events(caplog, "held")) == 1
            assert {line["level"] for line in events(caplog, "deferred")} == {"WARNING"}
            await r.clock.advance(6 * 3600)
            assert len(events(caplog, "expired")) == 1  # the route works: this mail's own time runs

    asyncio.run(scenario())


def test_expiry_does_not_run_while_held(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        busy = Outcome(Word.RETRY, "451 greylisted", Stage.RECIPIENT, 451)
        one = Scripted("one", BAD_LOGIN, busy, SENT)
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"),), one, expire=Duration(4 * 3600)) as r:
            await r.put()
            await r.clock.advance(6 * 3600)
            assert await r.waiting() == {"acme.nl": 1}
            one.probe_answer = SENT
            await r.clock.advance(3601)
            assert len(one.mails) >= 2
            await r.clock.advance(120)
            assert await r.waiting() == {}
            assert events(caplog, "expired") == []
            assert len(events(caplog, "delivered")) == 1

    asyncio.run(scenario())


def test_a_wait_that_comes_with_config_is_obeyed(tmp_path):
    async def scenario():
        quota = Outcome(Word.CONFIG, "550 5.4.5 daily limit", Stage.CONTENT, 550, "5.4.5", wait=7200.0)
        one = Scripted("one", quota, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(7199)
            assert one.probes == []
            await r.clock.advance(2)
            assert (len(one.probes), len(one.mails)) == (1, 2)

    asyncio.run(scenario())


def test_a_probe_with_a_bug_is_a_failed_probe(tmp_path, caplog):
    async def scenario():
        one = Scripted("one", BAD_LOGIN, SENT)
        one.probe_answer = KeyError("oops")
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(61)
            assert "by a bug of ours" in caplog.text
            one.probe_answer = SENT
            await r.clock.advance(300)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_the_story_of_a_held_mail_has_the_verbatim_reply(tmp_path):
    async def scenario():
        one = Scripted("one", BAD_LOGIN)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            number = await r.put()
            await until(lambda: len(one.mails) == 1, "the try")
            await r.quiet()
            view = SqliteView(str(tmp_path / "spool.db"))
            try:
                (line,) = view.list(Filter(), 10)
                assert (line.id, line.attempts) == (number, 0)
                assert line.recipients[0].last == BAD_LOGIN
            finally:
                view.close()

    asyncio.run(scenario())
