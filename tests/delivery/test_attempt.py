"""One attempt: what an upstream is handed, how many recipients at once, and what our own bugs do to a mail."""

from __future__ import annotations

import asyncio
import logging

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from config.credentials import Secret
from config.rules import Dkim, Sender
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from spool.sqlite_view import SqliteView
from tests.delivery.room import BUSY, CONTENT, DOUBT, DOWN, NO_USER, SENT, Scripted, events, room, route
from tests.waiting import until


def key_pair() -> tuple[str, bytes]:
    """A private key in PEM and its DNS record."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode(), b"v=DKIM1; k=rsa; p=" + b"".join(public.splitlines()[1:-1])


def test_the_sender_is_rewritten_and_the_signature_comes_last(tmp_path):
    async def scenario():
        pem, record = key_pair()
        signing = Dkim(domain="callcenter.nl", selector="callpro", key=Secret("literal", pem))
        mailbox = Sender(address="klant@callcenter.nl", name="Klantnaam")
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one", sender=mailbox, dkim=(signing,)),), one) as r:
            await r.put()
            await until(lambda: one.mails, "the mail")
            (mail,) = one.mails
            assert mail.sender == "klant@callcenter.nl"
            assert mail.content.startswith(b"DKIM-Signature:")
            assert b"Klantnaam" in mail.content
            assert dkim.verify(mail.content, dnsfunc=lambda name, timeout=5: record)
            assert mail.content.endswith(CONTENT.partition(b"\r\n\r\n")[2])

    asyncio.run(scenario())


def test_without_settings_the_bytes_leave_as_they_came(tmp_path):
    async def scenario():
        one = Scripted("one")
        odd = b"Subject: a\r\n  b\r\nX: \xff\r\n\r\n.\r\n" + b"x" * 2000 + b"\r\n"
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("Info@ACME.nl", content=odd)
            await until(lambda: one.mails, "the mail")
            assert (one.mails[0].sender, one.mails[0].content) == ("Info@ACME.nl", odd)

    asyncio.run(scenario())


def test_hidden_recipients_stay_hidden_whatever_the_upstream_does_with_bcc(tmp_path):
    async def scenario():
        one = Scripted("one")
        shown = b"From: info@acme.nl\r\nTo: x@example.org\r\n"
        hidden = b"BCC: y@example.org,\r\n\tz@example.org\r\nResent-Bcc : y@example.org\r\n"
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "x@example.org", "y@example.org", content=shown + hidden + b"\r\nBcc: no\r\n")
            await until(lambda: one.mails, "the mail")
            assert one.mails[0].recipients == ("x@example.org", "y@example.org")
            assert one.mails[0].content == shown + b"\r\nBcc: no\r\n"

    asyncio.run(scenario())


def test_recipients_are_split_at_the_upstreams_limit_and_only_those_left_are_tried_again(tmp_path):
    everybody = [f"r{number}@example.org" for number in range(7)]

    def answer(mail: Outgoing) -> Results:
        slow = Outcome(Word.RETRY, "450 4.2.0 greylisted", Stage.RECIPIENT, 450)
        first = len(one.mails) <= 3
        return {to: slow if first and to in ("r1@example.org", "r5@example.org") else SENT for to in mail.recipients}

    one = Scripted("one", answer, recipients_limit=3)

    async def scenario():
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            number = await r.put("info@acme.nl", *everybody)
            await until(lambda: len(one.mails) == 3, "three sends")
            assert sorted(to for mail in one.mails for to in mail.recipients) == everybody
            await r.clock.advance(67)
            assert [mail.recipients for mail in one.mails[3:]] == [("r1@example.org", "r5@example.org")]
            assert await r.waiting() == {}
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            attempts = [entry for entry in story.entries if entry.event == "attempt"]
            assert [len(entry.outcomes) for entry in attempts] == [7, 2]

    asyncio.run(scenario())


def test_a_host_that_is_down_is_not_asked_again_for_the_rest_of_the_recipients(tmp_path):
    async def scenario():
        one = Scripted("one", DOWN, recipients_limit=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl", "c@x.nl")
            await until(lambda: one.mails, "the try")
            assert await r.waiting() == {"acme.nl": 1}
            assert len(one.mails) == 1

    asyncio.run(scenario())


def test_one_refused_recipient_does_not_stop_the_next_send(tmp_path):
    async def scenario():
        one = Scripted("one", NO_USER, SENT, recipients_limit=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("", "a@x.nl", "b@x.nl")
            await until(lambda: len(one.mails) == 2, "both")
            assert await r.waiting() == {}
            assert (r.scheduler.routes()["acme.nl"].delivered, r.scheduler.routes()["acme.nl"].failed) == (1, 1)

    asyncio.run(scenario())


def test_a_bug_in_an_upstream_defers_the_mail_and_shows_its_traceback(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", ZeroDivisionError("the letter said: geheim"), SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: events(caplog, "deferred") != [], "the line")
            (line,) = events(caplog, "deferred")
            assert "ZeroDivisionError" in str(line["reply"])
            assert "geheim" not in str(line)
            assert "Traceback" in caplog.text
            await r.clock.advance(67)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_result_that_forgets_a_recipient_is_a_doubt_for_it(tmp_path, caplog):
    async def scenario():
        one = Scripted("one", lambda mail: {mail.recipients[0]: SENT}, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl")
            await until(lambda: one.mails, "the try")
            await r.quiet()
            assert "a bug of ours" in caplog.text
            await r.clock.advance(67)
            assert one.mails[1].recipients == ("b@x.nl",)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_doubt_is_tried_once_more_and_then_reported_as_one(tmp_path):
    def answer(mail: Outgoing) -> Results:
        return dict.fromkeys(mail.recipients, DOUBT if mail.sender else SENT)

    async def scenario():
        one = Scripted("one", answer)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await r.clock.advance(7200)
            assert [mail.sender for mail in one.mails] == ["info@acme.nl", "info@acme.nl", ""]
            assert b"Ask before you send it again" in one.mails[2].content.replace(b"=\r\n", b"")
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_what_was_sent_before_a_stop_cuts_in_is_not_sent_again(tmp_path):
    async def scenario():
        def answer(mail: Outgoing) -> Results:
            one.opened.clear()
            return dict.fromkeys(mail.recipients, SENT)

        one = Scripted("one", answer, recipients_limit=1)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put("info@acme.nl", "a@x.nl", "b@x.nl")
            await until(lambda: len(one.mails) == 2, "the second send")
            await r.scheduler.stop(0.01)
            await r.quiet()
            (mail,) = await r.spool.lease("acme.nl", 1, r.clock.now())
            assert [pending.address for pending in mail.recipients] == ["b@x.nl"]

    asyncio.run(scenario())


def test_a_new_way_carries_one_mail_until_it_has_proved_itself(tmp_path):
    async def scenario():
        one = Scripted("one", BUSY)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            one.opened.clear()
            for _ in range(6):
                await r.put()
            await r.quiet()
            assert one.under_way == 1
            one.opened.set()
            await until(lambda: len(one.mails) == 6, "the others")
            assert one.most > 1
            assert await r.waiting() == {"acme.nl": 6}

    asyncio.run(scenario())


def test_the_rest_of_a_list_goes_on_at_once_in_new_transactions(tmp_path):
    """A server that takes two recipients a mail (452 4.5.3): nobody waits for a backoff."""
    later = Outcome(Word.RETRY, "452 4.5.3 too many recipients", Stage.RECIPIENT, 452, "4.5.3", wait=0.0)

    def two(mail: Outgoing) -> Results:
        return {to: SENT if number < 2 else later for number, to in enumerate(mail.recipients)}

    async def scenario():
        a = Scripted("a", two)
        async with room(tmp_path, (route("acme.nl", via="a"),), a) as r:
            await r.put("info@acme.nl", *(f"klant{number}@example.nl" for number in range(5)))
            await until(lambda: len(a.mails) == 3, "three transactions")
            assert [len(mail.recipients) for mail in a.mails] == [5, 3, 1]
            assert await r.waiting() == {}

    asyncio.run(scenario())
