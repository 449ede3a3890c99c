"""Reports of undelivered mail: their form, their way, and that nothing fails in silence or twice for ever."""

from __future__ import annotations

import asyncio
import logging
from email import message_from_bytes, policy

import pytest

from config.fields import Duration
from config.rules import Sender
from delivery.bounce import Reporter, report
from delivery.verdict import Failure
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from spool.contract import Arrival, Leased, Pending, Settled, SpoolFull
from spool.sqlite_view import SqliteView
from tests.delivery.room import (
    BAD_LOGIN,
    BUSY,
    CONTENT,
    DOUBT,
    NO_USER,
    NOT_YOURS,
    SENT,
    START,
    Scripted,
    events,
    id_number,
    room,
    route,
)
from tests.waiting import until

BAD_CERTIFICATE = Outcome(Word.CONFIG, "certificate has expired", Stage.TLS)
BAD_KEY = Outcome(Word.CONFIG, "401 Forbidden", Stage.REQUEST, 401)


def one_report(*failures: Failure, content: bytes = CONTENT) -> bytes:
    mail = Leased(7, "acme.nl", "info@acme.nl", tuple(Pending(f.address) for f in failures), content, START, 3)
    by = Reporter("relay.callcenter.nl", "acme.nl", "000000000000A")
    return report(mail, failures, by, "info@acme.nl", START + 7200)


def test_the_form_is_that_of_rfc_3464_with_the_verbatim_reply():
    long_reply = (
        "550 5.1.1 <x@example.org>: Recipient address rejected: " + "User unknown in virtual mailbox table " * 3
    )
    hint = Hint(Who.CALLPRO, "Correct the address.", "Verbeter het adres: \u00e9\u00e9n teken is fout.")
    refused = Outcome(Word.REJECT, long_reply, Stage.RECIPIENT, 550, "5.1.1", hint=hint)
    raw = one_report(
        Failure("x@example.org", refused, Settled.FAILED),
        Failure("y@example.org", BUSY, Settled.EXPIRED),
        Failure("z@example.org", DOUBT, Settled.FAILED, doubtful=True),
    )
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    mail = message_from_bytes(raw, policy=policy.SMTP)
    assert not mail.defects
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "delivery-status"
    assert (mail["To"], mail["Auto-Submitted"]) == ("info@acme.nl", "auto-replied")
    text, status, headers = mail.iter_parts()
    assert "Ask before you send it again" in text.get_content()
    assert "It was tried for 2 hours" in text.get_content()
    assert f"    What to do: {hint.en}\n    Wat te doen: {hint.nl}\n" in text.get_content().replace("\r\n", "\n")
    about, x, y, z = status.get_payload()
    assert about["Reporting-MTA"] == "dns; relay.callcenter.nl"
    assert (x["Final-Recipient"], x["Action"], x["Status"]) == ("rfc822; x@example.org", "failed", "5.1.1")
    assert " ".join(x["Diagnostic-Code"].split()) == f"smtp; {' '.join(long_reply.split())}"
    assert (y["Status"], z["Status"]) == ("4.3.2", "4.4.2")
    assert headers.get_content_type() == "text/rfc822-headers"
    assert "Subject: Factuur" in headers.get_payload()
    assert "Dag." not in raw.decode()


def test_what_an_upstream_or_a_header_holds_cannot_break_the_report():
    reply = "550 nee: geblokkeerd\r\nBcc: evil@example.org\r\n\r\n--=_report_000000000000A--\r\n\u00e9\u20ac"
    raw = one_report(
        Failure("x@example.org", Outcome(Word.REJECT, reply, Stage.REQUEST, 400, "ErrorInvalid"), Settled.FAILED),
        content=b"Subject: \xe9\xff\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\nbody\r\n",
    )
    assert raw.isascii()
    mail = message_from_bytes(raw, policy=policy.SMTP)
    text, status, headers = mail.iter_parts()
    assert mail["Bcc"] is None
    assert "\u00e9\u20ac" in text.get_content()
    fields = status.get_payload()[1]
    assert fields["Status"] == "5.0.0"
    assert fields["Diagnostic-Code"].startswith("x-http; 400 550 nee") or fields["Diagnostic-Code"].startswith(
        "x-http;"
    )
    assert fields["Bcc"] is None
    assert headers.get_payload().strip() == "Subject: ??"


def refuse_some(mail: Outgoing) -> Results:
    return {to: SENT if to == "good@example.org" or not mail.sender else NO_USER for to in mail.recipients}


def test_one_report_for_all_failed_recipients_by_the_mails_own_way(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", refuse_some)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            number = await r.put("info@acme.nl", "a@example.org", "good@example.org", "b@example.org")
            await until(lambda: len(one.mails) == 2, "the report")
            sent = one.mails[1]
            assert (sent.sender, sent.recipients, sent.route) == ("", ("info@acme.nl",), "acme.nl")
            assert sent.content.count(b"Final-Recipient: ") == 2
            assert b"From: Mail Delivery System <MAILER-DAEMON@acme.nl>" in sent.content
            assert await r.waiting() == {}
            (line,) = events(caplog, "bounced")
            assert (line["to"], line["report"]) == ("info@acme.nl", sent.id)
            assert id_number(line["mail"]) == number
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            assert any(sent.id in entry.text for entry in story.entries)
            assert r.scheduler.routes()["acme.nl"].failed == 2

    asyncio.run(scenario())


def test_bounces_names_who_gets_the_report_and_nobody_reports_on_it(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", NO_USER)
        ours = route("acme.nl", via="one", bounces="postmaster@callcenter.nl")
        async with room(tmp_path, (ours,), one) as r:
            number = await r.put()
            await until(lambda: len(events(caplog, "failed")) == 2, "both failures")
            await r.quiet()
            assert [(mail.sender, mail.recipients) for mail in one.mails] == [
                ("info@acme.nl", ("x@example.org",)),
                ("", ("postmaster@callcenter.nl",)),
            ]
            assert b"\r\nTo: <postmaster@callcenter.nl>\r\n" in one.mails[1].content
            (line,) = events(caplog, "bounced")
            assert line["to"] == "postmaster@callcenter.nl"
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            assert any("reported to postmaster@callcenter.nl" in entry.text for entry in story.entries)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_of_the_null_sender_is_not_reported_to_bounces_either(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", NO_USER)
        ours = route("acme.nl", "<>", via="one", bounces="postmaster@callcenter.nl")
        async with room(tmp_path, (ours,), one) as r:
            await r.put("")
            await until(lambda: events(caplog, "failed") != [], "the failure")
            assert await r.waiting() == {}
            assert len(one.mails) == 1

    asyncio.run(scenario())


def test_a_rule_for_the_null_sender_takes_the_report(tmp_path):
    async def scenario():
        one, ours = Scripted("one", NO_USER), Scripted("ours")
        async with room(tmp_path, (route("acme.nl", via="one"), route("<>", via="ours")), one, ours) as r:
            await r.put()
            await until(lambda: ours.mails, "the report")
            assert b"MAILER-DAEMON@relay.callcenter.nl" in ours.mails[0].content
            assert len(one.mails) == 1

    asyncio.run(scenario())


def test_a_report_keeps_its_null_sender_on_a_route_that_rewrites(tmp_path):
    async def scenario():
        one = Scripted("one", NO_USER, SENT)
        mailbox = Sender(address="hooli@callcenter.nl", name="Hooli")
        content = CONTENT.replace(b"acme.nl", b"hooli.nl")
        async with room(tmp_path, (route("hooli.nl", via="one", sender=mailbox),), one) as r:
            await r.put("info@hooli.nl", route="hooli.nl", content=content)
            await until(lambda: len(one.mails) == 2, "the report")
            assert (one.mails[0].sender, one.mails[1].sender) == ("hooli@callcenter.nl", "")
            assert b"Hooli <hooli@callcenter.nl>" in one.mails[0].content
            assert b"From: Mail Delivery System <MAILER-DAEMON@callcenter.nl>" in one.mails[1].content
            assert one.mails[1].recipients == ("info@hooli.nl",)

    asyncio.run(scenario())


def test_a_report_of_a_mailbox_beyond_ascii_comes_from_its_a_labels(tmp_path, caplog):
    async def scenario():
        one = Scripted("one", refuse_some)
        ours = route("acme.nl", via="one", sender=Sender(address="info@b\u00fccher.example"))
        async with room(tmp_path, (ours,), one) as r:
            await r.put("info@acme.nl", "a@example.org", "good@example.org")
            await until(lambda: len(one.mails) == 2, "the report")
            assert b"<MAILER-DAEMON@xn--bcher-kva.example>" in one.mails[1].content
            await r.clock.advance(3600)
            assert len(one.mails) == 2, "and who has the mail gets it once"
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_report_that_fails_is_an_error_line_and_nothing_more(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", NO_USER)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: len(events(caplog, "failed")) == 2, "both failures")
            await r.quiet()
            assert [line["level"] for line in events(caplog, "failed")] == ["WARNING", "ERROR"]
            assert len(one.mails) == 2
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_customers_upstream_that_takes_no_null_sender_does_not_hold_the_customer(tmp_path, caplog):
    def answer(mail: Outgoing) -> Results:
        return dict.fromkeys(mail.recipients, NO_USER if mail.sender else NOT_YOURS)

    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", answer)
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            await r.put()
            await until(lambda: len(events(caplog, "failed")) == 2, "both failures")
            await r.quiet()
            assert events(caplog, "held") == []
            assert await r.waiting() == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [BAD_LOGIN, BAD_CERTIFICATE, BAD_KEY])
def test_mail_of_the_null_sender_waits_for_a_way_that_works_for_nobody(tmp_path, caplog, trouble):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", trouble, SENT)
        async with room(tmp_path, (route("acme.nl", "<>", via="one"),), one) as r:
            await r.put("")
            await until(lambda: events(caplog, "held") != [], "the hold")
            assert await r.waiting() == {"acme.nl": 1}
            await r.clock.advance(61)
            assert await r.waiting() == {}
            assert events(caplog, "failed") == []

    asyncio.run(scenario())


def test_the_route_of_the_null_sender_is_held_like_any_other(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one, ours = Scripted("one", NO_USER), Scripted("ours", BAD_LOGIN, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"), route("<>", via="ours")), one, ours) as r:
            await r.put()
            await until(lambda: events(caplog, "held") != [], "the hold")
            assert await r.waiting() == {"<>": 1}
            await r.clock.advance(61)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_an_expired_mail_is_reported(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)

        def answer(mail: Outgoing) -> Results:
            return dict.fromkeys(mail.recipients, BUSY if mail.sender else SENT)

        one = Scripted("one", answer)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, expire=Duration(1000)) as r:
            await r.put()
            await r.clock.advance(999)
            assert events(caplog, "expired") == []
            await r.clock.advance(1.5)
            assert len(events(caplog, "expired")) == 1
            assert b"Status: 4.3.2" in one.mails[-1].content
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_bug_in_settling_sends_nothing_twice_to_whoever_has_the_mail(tmp_path, caplog):
    async def scenario():
        one = Scripted("one", refuse_some)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, start=False) as r:
            await r.put("info@acme.nl", "a@example.org", "good@example.org")
            number = r.spool.next_id

            def fail() -> int:
                raise ZeroDivisionError

            r.spool.next_id = fail  # the report needs one
            await r.scheduler.start()
            await r.clock.advance(100)
            assert [mail.recipients for mail in one.mails] == [
                ("a@example.org", "good@example.org"),
                ("a@example.org",),
            ]
            assert "bug of ours" in caplog.text
            r.spool.next_id = number
            await r.clock.advance(7200)
            assert one.mails[-1].recipients == ("info@acme.nl",), "the report, late but not lost"
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_the_report_is_kept_before_the_failure_is_settled(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", NO_USER, NO_USER, SENT)
        async with room(tmp_path, (route("acme.nl", via="one"),), one, start=False) as r:
            await r.put()
            keep = r.spool.put

            async def full(arrival: Arrival) -> None:
                raise SpoolFull("mail of 10 octets waits; the limit is 10")

            r.spool.put = full  # the spool's own limit, met at this moment
            await r.scheduler.start()
            await r.clock.advance(0)
            await until(lambda: len(one.mails) == 1, "the refusal")
            assert await r.waiting() == {"acme.nl": 1}
            assert len(events(caplog, "report_refused")) == 1
            r.spool.put = keep
            await r.clock.advance(70)
            await until(lambda: len(one.mails) == 3, "the report")
            assert await r.waiting() == {}

    asyncio.run(scenario())
