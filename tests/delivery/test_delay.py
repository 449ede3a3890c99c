"""The warning that a mail is late: once, at its time, to the right address, and never for a wait of our own."""

from __future__ import annotations

import asyncio
import logging
from email import message_from_bytes, policy

import pytest

from config.fields import Duration
from delivery.bounce import Reporter, delay_report
from routing.outcome import Outcome, Stage, Word
from spool.contract import Leased, Pending, SpoolFull
from spool.holding import Hold, Scope
from spool.sqlite_view import SqliteView
from tests.delivery.room import (
    BAD_LOGIN,
    BUSY,
    CONTENT,
    DOWN,
    NO_USER,
    SENT,
    START,
    Scripted,
    events,
    id_number,
    room,
    route,
)

HOUR = 3600.0
SLOW = {"delay_warning": Duration(4 * HOUR), "retry": tuple(Duration(s) for s in (60, 300, 7200, 14400))}


def by_mail(mail):
    """What an upstream says of mail; it takes reports."""
    return dict.fromkeys(mail.recipients, BUSY if mail.sender else SENT)


def warnings(upstream: Scripted) -> list:
    return [mail for mail in upstream.mails if not mail.sender]


def test_the_form_is_that_of_rfc_3464_with_action_delayed():
    mail = Leased(7, "acme.nl", "info@acme.nl", (Pending("x@example.org"),), CONTENT, START, 3)
    by = Reporter("relay.callcenter.nl", "acme.nl", "000000000000A")
    late = {"x@example.org": BUSY, "y@example.org": Outcome(Word.RETRY, "refused", Stage.CONNECT, enhanced="5.1.1")}
    raw = delay_report(mail, late, by, "info@acme.nl", START + 4 * HOUR, START + 72 * HOUR)
    said = message_from_bytes(raw, policy=policy.SMTP)
    assert not said.defects
    assert (said.get_param("report-type"), said["Auto-Submitted"]) == ("delivery-status", "auto-replied")
    text, status, headers = said.iter_parts()
    assert "Do not send it again" in text.get_content()
    assert "451 4.3.2 try later" in text.get_content()
    _, x, y = status.get_payload()
    assert (x["Action"], x["Status"], y["Status"]) == ("delayed", "4.3.2", "4.0.0")
    assert x["Will-Retry-Until"] == "Fri, 17 Nov 2023 22:13:20 -0000"
    assert x["Diagnostic-Code"] == "smtp; 451 4.3.2 try later"
    assert "Subject: Factuur" in headers.get_payload()
    assert b"Dag." not in raw


def test_once_at_its_time_with_one_more_try_and_on_the_timeline(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", by_mail)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, **SLOW) as r:
            number = await r.put("info@acme.nl", "a@example.org", "b@example.org")
            await r.clock.advance(4 * HOUR - 1)
            assert warnings(one) == []
            await r.clock.advance(2)
            (warning,) = warnings(one)
            assert (warning.recipients, warning.route) == (("info@acme.nl",), "acme.nl")
            assert warning.content.count(b"Action: delayed") == 2
            assert one.sent_at[-2] == pytest.approx(4 * HOUR)
            (line,) = events(caplog, "delay_warned")
            assert (id_number(line["mail"]), line["report"], line["to"]) == (number, warning.id, "info@acme.nl")
            await r.clock.advance(40 * HOUR)
            assert len(warnings(one)) == 1
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            assert [entry.text for entry in story.entries if warning.id in entry.text] == [
                f"late: info@acme.nl was told so by mail {warning.id}"
            ]

    asyncio.run(scenario())


def test_also_over_a_restart_it_is_once(tmp_path):
    async def scenario():
        first, second = Scripted("one", by_mail), Scripted("one", by_mail)
        async with room(tmp_path, (route("acme.nl", via="one"),), first, **SLOW) as r:
            await r.put()
            await r.clock.advance(5 * HOUR)
        async with room(tmp_path, (route("acme.nl", via="one"),), second, at=START + 5 * HOUR, **SLOW) as r:
            await r.clock.advance(30 * HOUR)
            assert len([mail for mail in second.mails if mail.sender]) > 1
        assert (len(warnings(first)), len(warnings(second))) == (1, 0)

    asyncio.run(scenario())


def test_not_without_the_key_nor_for_null_senders(tmp_path):
    async def scenario():
        one, two = Scripted("one", BUSY), Scripted("two", BUSY)
        off = {**SLOW, "delay_warning": None}
        async with room(tmp_path, (route("acme.nl", via="one"),), one, **off) as r:
            await r.put()
            await r.clock.advance(30 * HOUR)
            assert warnings(one) == []
        (tmp_path / "two").mkdir()
        async with room(tmp_path / "two", (route("<>", via="two"),), two, **SLOW) as r:
            await r.put("", route="<>")
            await r.clock.advance(30 * HOUR)
            assert len({mail.id for mail in two.mails}) == 1

    asyncio.run(scenario())


def test_to_the_address_of_bounces_and_by_the_route_of_reports(tmp_path):
    async def scenario():
        one, two = Scripted("one", by_mail), Scripted("two")
        routes = (route("acme.nl", via="one", bounces="post@callcenter.nl"), route("<>", via="two"))
        async with room(tmp_path, routes, one, two, **SLOW) as r:
            await r.put()
            await r.clock.advance(5 * HOUR)
            assert [mail.recipients for mail in two.mails] == [("post@callcenter.nl",)]
            assert warnings(one) == []

    asyncio.run(scenario())


def test_only_for_those_that_still_wait_and_not_for_one_that_is_given_up(tmp_path):
    def mixed(mail):
        words = {"late@example.org": BUSY, "gone@example.org": NO_USER}
        return {to: SENT if not mail.sender else words.get(to, SENT) for to in mail.recipients}

    async def scenario():
        one = Scripted("one", mixed)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, expire=Duration(6 * HOUR), **SLOW) as r:
            await r.put("info@acme.nl", "late@example.org", "gone@example.org", "good@example.org")
            await r.clock.advance(5 * HOUR)
            failed, late = warnings(one)
            assert b"gone@example.org" in failed.content
            assert (late.content.count(b"Action: delayed"), late.content.count(b"late@example.org") > 0) == (1, True)
            await r.clock.advance(2 * HOUR)
            assert b"Action: failed" in warnings(one)[-1].content
            assert len(warnings(one)) == 3

    asyncio.run(scenario())


def test_an_upstream_that_is_not_there_counts_as_delay(tmp_path):
    async def scenario():
        one, two = Scripted("one", DOWN), Scripted("two")
        one.probe_answer = DOWN
        async with room(tmp_path, (route("acme.nl", via="one"), route("<>", via="two")), one, two, **SLOW) as r:
            await r.put()
            await r.clock.advance(5 * HOUR)
            (warning,) = two.mails
            assert b"Connection refused" in warning.content

    asyncio.run(scenario())


def test_time_on_hold_is_ours_and_does_not_count(tmp_path):
    """Neither a way that does not work, nor people; after the release the time begins anew, as the expiry does."""

    async def scenario():
        one, two = Scripted("one", BAD_LOGIN), Scripted("two")
        one.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via="one"), route("<>", via="two")), one, two, **SLOW) as r:
            await r.put()
            await r.clock.advance(30 * HOUR)
            assert two.mails == []
            one.answers, one.probe_answer = [BUSY], SENT
            await r.clock.advance(3 * HOUR)
            assert [way.route for way in r.scheduler.held()] == []
            assert two.mails == []
            await r.clock.advance(3 * HOUR)
            assert len(two.mails) == 1
        (tmp_path / "people").mkdir()
        one, two = Scripted("one", BUSY), Scripted("two")
        routes = (route("acme.nl", via="one"), route("<>", via="two"))
        async with room(tmp_path / "people", routes, one, two, **SLOW) as r:
            hold = Hold(Scope.ROUTE, "acme.nl", START, "jan", "")
            await r.spool.hold(hold)
            await r.put()
            await r.clock.advance(30 * HOUR)
            await r.spool.release(hold.key, r.clock.now())
            await r.clock.advance(HOUR)
            assert (len(one.mails) > 0, two.mails) == (True, [])
            await r.clock.advance(4 * HOUR)
            assert len(two.mails) == 1

    asyncio.run(scenario())


def test_a_warning_that_the_spool_cannot_take_comes_with_the_next_try(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", by_mail)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, **SLOW) as r:
            await r.put()
            put = r.spool.put

            async def full(arrival):
                raise SpoolFull("no room")

            r.spool.put = full
            await r.clock.advance(5 * HOUR)
            assert (len(events(caplog, "report_refused")), warnings(one)) == (1, [])
            r.spool.put = put
            await r.clock.advance(5 * HOUR)
            assert len(warnings(one)) == 1

    asyncio.run(scenario())
