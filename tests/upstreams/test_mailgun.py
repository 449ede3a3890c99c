"""Mailgun on the wire: the mail as it is, how long to wait, one bad address, the probe."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from config.credentials import Secret
from routing.mail import Outgoing
from routing.outcome import Outcome, Stage, Word
from tests.fakes.http_server import Fault, Response
from tests.fakes.mailgun import FakeMailgun, said
from tests.upstreams.http_kit import run
from upstreams.api_groups import REQUESTS_LIMIT
from upstreams.base import Host, Upstream
from upstreams.http_client import Reply
from upstreams.mailgun import KIND, MailgunSettings
from upstreams.mailgun_replies import stated_wait
from upstreams.mailgun_request import MESSAGE_LIMIT

KEY = "key-very-secret-of-acme"
CONTENT = b"From: anna@acme.nl\r\nTo: a@x.nl, elsewhere@x.nl\r\nSubject: =?utf-8?q?x?=  \r\n\r\nhi \xff\r\n"
BAD_ADDRESS = "to parameter is not a valid address. please check documentation"


def mail(*recipients: str, content: bytes = CONTENT) -> Outgoing:
    return Outgoing("01JQ", "acme.nl", "anna@acme.nl", recipients or ("a@x.nl",), content)


def way(**more) -> object:
    def build(mailgun: FakeMailgun) -> Upstream:
        given = {"domain": mailgun.domain, "base_url": mailgun.url, "timeout": 30.0, **more}
        return KIND.build("our-mailgun", MailgunSettings(api_key=Secret("env:KEY", KEY), **given), Host("relay.test"))

    return build


def on_the_wire(act, mailgun: FakeMailgun | None = None, **more) -> object:
    return run(mailgun or FakeMailgun(key=KEY), way(**more), act)


def answered(answer: Response | Fault, **more) -> Outcome:
    async def act(upstream, server):
        server.script(answer)
        return await upstream.send(mail())

    return on_the_wire(act, **more)["a@x.nl"]


def test_the_envelope_gets_the_mail_as_it_is_and_nothing_of_ours_shows():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "hidden@x.nl", "k@münchen.de"))
        assert server.recipients == ["a@x.nl", "hidden@x.nl", "k@xn--mnchen-3ya.de"]
        assert len(server.requests) == 1
        for delivery in server.delivered:
            assert delivery.message == CONTENT
            assert delivery.variables == {"relay_id": "01JQ"}
            assert delivery.options["o:tracking"] == "no"
            assert "X-Mailgun-Variables" not in delivery.added
        return results

    results = on_the_wire(act)
    sent = Outcome(
        Word.SENT, "200 Queued. Thank you.", Stage.REQUEST, 200, upstream_id="<look-alike.1@mg.callcenter.nl>"
    )
    assert results == dict.fromkeys(("a@x.nl", "hidden@x.nl", "k@münchen.de"), sent)


def test_an_order_to_mailgun_in_the_mail_is_not_obeyed():
    async def act(upstream, server):
        await upstream.send(mail(content=b"X-Mailgun-Drop-Message: yes\r\nBcc: hidden@x.nl\r\n" + CONTENT))
        assert server.swallowed == []
        return [delivery.message for delivery in server.delivered]

    assert on_the_wire(act) == [CONTENT]


def test_tracking_is_left_to_the_domain_when_asked():
    async def act(upstream, server):
        await upstream.send(mail())
        return "o:tracking" in server.delivered[0].options

    assert on_the_wire(act, tracking=True) is False


ACCOUNT = "Domain mg.acme.nl is not allowed to send: The domain is unverified and requires DNS configuration."


def test_a_request_that_mailgun_does_not_understand_is_an_alert(caplog):
    answered(said(400, "'message' parameter is not a file"))
    assert [
        (record.levelname, record.getMessage()) for record in caplog.records if record.levelno >= logging.ERROR
    ] == [("ERROR", "mailgun_request_wrong")]


NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
SOON = NOW + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("account-requests-per-sec limit exceeded, try again after 120 seconds", 120),
        ("Domain x is not allowed to send: request limit exceeded, try again after 1 second", 1),
        ("try again after 0 seconds", 1),
        ("try again after 999999999 seconds", 86400),
        (f"recipient limit exceeded, try again after {format_datetime(SOON)}", 90),
        (f"bytes limit exceeded, try again after {format_datetime(SOON, usegmt=True)}.", 90),
        ("limit exceeded, try again after Sun, 22 Nov 2026 10:01:30 UTC", 90),
        ("limit exceeded, try again after 2026-11-22T10:01:30Z", 90),
        ("limit exceeded, try again after 2026-11-22 10:01:30 +0000 UTC", 90),
        ("limit exceeded, try again after 2026-11-22 10:01:30", 90),
        ("limit exceeded, try again after 2026-11-22 09:00:00", 1),
        ("limit exceeded, try again after 2027-11-22 09:00:00", 86400),
        ("limit exceeded, try again after a good while", None),
        ("limit exceeded, try again after 22 Nov 99999999999999999999 10:01", None),
        ("limit exceeded", None),
    ],
)
def test_a_wait_stated_in_words_is_read(text, seconds):
    assert stated_wait(Reply(429, {}, b""), text, NOW.timestamp()) == seconds
    outcome = answered(said(429, text))
    assert outcome.word is (Word.RETRY if seconds is None else Word.WAIT)
    assert (outcome.wait is None) == (seconds is None)


def test_retry_after_is_heeded_too():
    assert answered(Response(429, {"Retry-After": "12"})).wait == 12


@pytest.mark.parametrize(
    ("key", "domain", "hinted"), [("another", "mg.callcenter.nl", "region"), (KEY, "mg.other.nl", "EU domain")]
)
def test_a_wrong_key_and_a_wrong_region_are_the_routes_fault(key, domain, hinted):
    async def act(upstream, server):
        return (await upstream.send(mail()))["a@x.nl"], await upstream.probe()

    for outcome in on_the_wire(act, FakeMailgun(key=key), domain=domain):
        assert outcome.word is Word.CONFIG
        assert hinted in str(outcome.hint)


def test_too_large_a_mail_never_leaves():
    async def act(upstream, server):
        results = await upstream.send(mail(content=CONTENT + b"a" * MESSAGE_LIMIT))
        assert server.http.connections == 0
        return results["a@x.nl"]

    outcome = on_the_wire(act)
    assert (outcome.word, outcome.stage, outcome.only_here) == (Word.REJECT, Stage.PREPARE, True)
    assert answered(said(413, "request size exceeds 52.4MiB limit")).only_here


def test_an_address_that_a_list_could_cut_apart_is_refused_alone():
    odd = ('"a@x.nl, b"@x.nl', "jän@x.nl", "a@[192.0.2.1]")

    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", *odd))
        assert server.recipients == ["a@x.nl"]
        only_odd = await upstream.send(mail(*odd))
        assert len(server.requests) == 1
        return results, only_odd

    results, only_odd = on_the_wire(act)
    assert results["a@x.nl"].word is Word.SENT
    assert {results[each].word for each in odd} == {outcome.word for outcome in only_odd.values()} == {Word.REJECT}


def test_the_bad_one_among_a_thousand_is_found_in_one_send():
    people = [f"a{number}@x.nl" for number in range(1000)]

    async def act(upstream, server):
        results = await upstream.send(mail(*people))
        assert sorted(server.recipients) == sorted(set(people) - {"a777@x.nl"})
        assert len(server.requests) <= 21
        return {each for each, outcome in results.items() if outcome.word is not Word.SENT}

    assert on_the_wire(act, FakeMailgun(key=KEY, bad=("a777@x.nl",))) == {"a777@x.nl"}


def test_many_bad_ones_are_found_bit_by_bit_in_several_sends():
    people = [f"a{number}@x.nl" for number in range(100)]
    bad = set(people[::5])

    async def act(upstream, server):
        left, refused, sends = people, set(), 0
        while left:
            asked = len(server.requests)
            results = await upstream.send(mail(*left))
            assert len(server.requests) - asked <= REQUESTS_LIMIT
            refused |= {each for each, outcome in results.items() if outcome.word is Word.REJECT}
            assert {outcome.word for outcome in results.values()} <= {Word.SENT, Word.REJECT, Word.RETRY}
            left, sends = [each for each, outcome in results.items() if outcome.word is Word.RETRY], sends + 1
        assert 1 < sends < 10
        assert sorted(server.recipients) == sorted(set(people) - bad)
        return refused

    assert on_the_wire(act, FakeMailgun(key=KEY, bad=tuple(bad))) == bad


@pytest.mark.parametrize(
    ("answer", "own", "others"),
    [
        (Fault.CUT, Word.UNKNOWN, Word.RETRY),
        (said(429, "try again after 9 seconds"), Word.WAIT, Word.WAIT),
        (Response(401), Word.CONFIG, Word.CONFIG),
    ],
)
def test_trouble_with_the_way_ends_the_search(answer, own, others):
    async def act(upstream, server):
        server.script(said(400, BAD_ADDRESS), said(200, "Queued.", id="<1@x>"), said(400, BAD_ADDRESS), answer)
        results = await upstream.send(mail("a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl"))
        assert len(server.requests) == 4
        return [results[each].word for each in ("a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl")]

    assert on_the_wire(act) == [Word.SENT, Word.SENT, own, others]


PROBES = [
    (None, Word.SENT),
    (said(400, "to parameter is missing"), Word.SENT),
    (said(400, ACCOUNT), Word.CONFIG),
    (Response(401, {}, b"Forbidden"), Word.CONFIG),
    (said(404, "Domain not found"), Word.CONFIG),
    (said(429, "try again after 3 seconds"), Word.WAIT),
    (said(500, "Internal Server Error"), Word.RETRY),
    (Response(200, {}, b"<html>hotel wifi</html>"), Word.UNKNOWN),
    (Fault.CUT, Word.RETRY),
]


@pytest.mark.parametrize(("answer", "word"), PROBES)
def test_a_probe_names_nobody_and_sends_nothing(answer, word):
    async def act(upstream, server):
        if answer is not None:
            server.script(answer)
        outcome = await upstream.probe()
        assert len(server.requests) == 1
        assert b'"to"' not in server.requests[0].body
        assert server.delivered == server.swallowed == []
        return outcome

    assert on_the_wire(act).word is word


@pytest.mark.parametrize(
    ("given_settings", "key"),
    [
        ({"base_url": "http://api.mailgun.net"}, "base_url"),
        ({"base_url": "https://api.mailgun.net/v3/"}, "base_url"),
        ({"api_key": Secret("env:K", "two words")}, "api_key"),
        ({}, None),
        ({"region": "eu"}, None),
    ],
)
def test_settings_that_do_not_go_together(given_settings, key):
    made = MailgunSettings(**{"domain": "mg.x.nl", "api_key": Secret("env:K", "k"), **given_settings})
    assert [fault.key for fault in made.faults()] == ([key] if key else [])
    assert made.loopback() is False
