"""A redirected route: one mail to one address, whatever the mail's recipients, and one outcome for all of them."""

from __future__ import annotations

import asyncio
import logging

import dkim

from config.credentials import Secret
from config.rules import Dkim, Pace, Rate, Sender
from routing.headers import values
from spool.sqlite_view import SqliteView
from tests.delivery.room import CONTENT, DOWN, NO_USER, SENT, Scripted, events, room, route
from tests.delivery.test_attempt import key_pair
from tests.waiting import until

TEST = "test@callcenter.nl"
EVERYBODY = tuple(f"r{number}@example.org" for number in range(7))


def test_only_the_redirect_is_mailed_and_the_outcome_is_everybodys(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", recipients_limit=3)
        async with room(tmp_path, (route("acme.nl", via="one", redirect=TEST),), one) as r:
            number = await r.put("info@acme.nl", *EVERYBODY)
            assert await r.waiting() == {}
            (mail,) = one.mails
            assert mail.recipients == (TEST,)
            (intended,) = values(mail.content, "X-Intended-Recipients")
            assert b" ".join(intended.split()).decode() == ", ".join(EVERYBODY)
            assert max(map(len, mail.content.split(b"\r\n"))) <= 78
            (line,) = events(caplog, "delivered")
            assert (line["redirected_to"], line["recipients"]) == (TEST, list(EVERYBODY))
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            assert any(f"redirected to {TEST}, and to no recipient" in entry.text for entry in story.entries)
            assert {recipient.state for recipient in story.mail.recipients} == {"delivered"}

    asyncio.run(scenario())


def test_a_try_again_and_a_fallback_are_redirected_too(tmp_path):
    async def scenario():
        one, two = Scripted("one", DOWN), Scripted("two")
        async with room(
            tmp_path, (route("acme.nl", via=("one", "two"), redirect=TEST),), one, two, fallback_after=100.0
        ) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl")
            await r.clock.advance(1000)
            assert await r.waiting() == {}
            assert one.mails
            assert [mail.recipients for mail in (*one.mails, *two.mails)] == [(TEST,)] * (len(one.mails) + 1)
            assert values(two.mails[0].content, "X-Intended-Recipients") == (b" a@x.nl, b@x.nl",)

    asyncio.run(scenario())


def test_a_report_on_the_route_is_redirected_as_well(tmp_path):
    async def scenario():
        one = Scripted("one", NO_USER, SENT)
        async with room(tmp_path, (route("acme.nl", via="one", redirect=TEST),), one) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl")
            assert await r.waiting() == {}
            assert [(mail.sender, mail.recipients) for mail in one.mails] == [("info@acme.nl", (TEST,)), ("", (TEST,))]
            assert one.mails[1].content.count(b"Final-Recipient: ") == 2

    asyncio.run(scenario())


def test_the_field_is_there_before_the_signature_and_a_field_that_came_in_goes(tmp_path):
    async def scenario():
        pem, record = key_pair()
        signing = Dkim(domain="callcenter.nl", selector="callpro", key=Secret("literal", pem))
        mailbox = Sender(address="klant@callcenter.nl")
        one = Scripted("one")
        ours = route("acme.nl", via="one", redirect=TEST, sender=mailbox, dkim=(signing,))
        async with room(tmp_path, (ours,), one) as r:
            await r.put(content=b"X-Intended-Recipients: liar@example.org\r\n" + CONTENT)
            await until(lambda: one.mails, "the mail")
            (mail,) = one.mails
            assert mail.content.startswith(b"DKIM-Signature:")
            assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)
            assert values(mail.content, "X-Intended-Recipients") == (b" x@example.org",)
            assert values(mail.content, "To") == (b" x@example.org",)

    asyncio.run(scenario())


def test_for_the_pace_a_redirected_mail_has_one_recipient(tmp_path):
    async def scenario():
        one = Scripted("one")
        ours = route("acme.nl", via="one", redirect=TEST, pace=Pace(per_hour=2))
        async with room(tmp_path, (ours,), one, paces={"one": Rate(per_day=2)}) as r:
            for _ in range(3):
                await r.put("info@acme.nl", *EVERYBODY)
            await r.clock.advance(60)
            assert len(one.mails) == 2

    asyncio.run(scenario())
