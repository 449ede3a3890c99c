"""Campaign Monitor on the wire: who gets it and sees whom, how long to wait, the probe."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.credentials import Secret
from routing.mail import Outgoing
from routing.outcome import Outcome, Stage, Word
from tests.fakes.campaign_monitor import FakeCampaignMonitor, error
from tests.fakes.http_server import Fault, Response
from tests.upstreams.http_kit import run
from upstreams.base import Host, Upstream
from upstreams.campaign_monitor import KIND, CampaignMonitorSettings
from upstreams.campaign_monitor_body import BODY_LIMIT

KEY = "very-secret-key-of-acme"
CONTENT = b"From: anna@acme.nl\r\nTo: Jan <a@x.nl>\r\nSubject: x\r\n\r\nhi\r\n"


def mail(*recipients: str, content: bytes = CONTENT) -> Outgoing:
    return Outgoing("01JQ", "acme.nl", "anna@acme.nl", recipients or ("a@x.nl",), content)


def way(**more) -> object:
    def build(monitor: FakeCampaignMonitor) -> Upstream:
        given = {"client_id": monitor.client_id, "base_url": monitor.base_url, "timeout": 30.0, **more}
        made = CampaignMonitorSettings(api_key=Secret("env:KEY", KEY), **given)
        return KIND.build("our-cm", made, Host("relay.test"))

    return build


def on_the_wire(act, monitor: FakeCampaignMonitor | None = None, **more) -> object:
    return run(monitor or FakeCampaignMonitor(key=KEY), way(**more), act)


def answered(answer: Response | Fault, **more) -> Outcome:
    async def act(upstream, server):
        server.script(answer)
        return await upstream.send(mail())

    return on_the_wire(act, **more)["a@x.nl"]


def test_a_mail_is_taken_and_each_recipient_has_its_id():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "hidden@x.nl"))
        assert len(server.requests) == 1
        assert server.recipients == ["a@x.nl", "hidden@x.nl"]
        assert all(delivery.shown == ("a@x.nl",) for delivery in server.delivered)
        return results

    results = on_the_wire(act)
    assert results["a@x.nl"] == Outcome(Word.SENT, "202 Received", Stage.REQUEST, 202, upstream_id="look-alike-1-0")
    assert results["hidden@x.nl"].upstream_id == "look-alike-1-1"


def entries(*said: object) -> Response:
    return Response(200, {}, json.dumps(said).encode())


def test_the_code_is_kept_and_a_refused_field_is_an_alert(caplog):
    outcome = answered(error(400, 1, "Invalid Subject"))
    assert (outcome.reply, outcome.enhanced) == ("400 Invalid Subject", "1")
    assert "campaign_monitor_refused" in [
        record.getMessage() for record in caplog.records if record.levelname == "ERROR"
    ]
    assert answered(error(400, 993, "x")).enhanced == "993"


@pytest.mark.parametrize(
    ("headers", "word", "wait"),
    [
        ({"X-RateLimit-Reset": "30"}, Word.WAIT, 30),
        ({"X-RateLimit-Reset": "0"}, Word.WAIT, 1),
        ({"X-RateLimit-Reset": "99999999999"}, Word.WAIT, 3600),
        ({"Retry-After": "12"}, Word.WAIT, 12),
        ({"X-RateLimit-Reset": "soon"}, Word.RETRY, None),
    ],
)
def test_too_many_requests_waits_as_long_as_told(headers, word, wait):
    outcome = answered(error(429, 429, "slow down", **headers))
    assert (outcome.word, outcome.wait) == (word, wait)


def test_each_recipient_has_its_own_end():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "b@x.nl", "c@x.nl"))
        assert len(server.requests) == 1
        return {each: (outcome.word, outcome.reply) for each, outcome in results.items()}

    assert on_the_wire(act, FakeCampaignMonitor(key=KEY, status={"b@x.nl": "Suppressed"})) == {
        "a@x.nl": (Word.SENT, "202 Received"),
        "b@x.nl": (Word.REJECT, "202 Suppressed"),
        "c@x.nl": (Word.SENT, "202 Received"),
    }


def test_nobody_received_is_not_asked_again():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "b@x.nl"))
        return len(server.requests), {outcome.word for outcome in results.values()}

    status = {"a@x.nl": "Odd", "b@x.nl": "Odd"}
    assert on_the_wire(act, FakeCampaignMonitor(key=KEY, status=status)) == (1, {Word.REJECT})


PEOPLE = [f"a{number}@x.nl" for number in range(9)]
NAMED = st.lists(st.sampled_from([*PEOPLE, "elsewhere@y.nl"]), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    to=NAMED,
    cc=NAMED,
    bcc=NAMED,
    envelope=st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True),
    bad=st.sets(st.sampled_from(PEOPLE), max_size=2),
)
def test_exactly_the_envelope_gets_it_once_and_sees_only_whom_the_header_names(to, cc, bcc, envelope, bad):
    fields = (("To", to), ("Cc", cc), ("Bcc", bcc))
    header = "".join(f"{name}: {', '.join(each)}\r\n" for name, each in fields if each)
    content = f"From: anna@acme.nl\r\n{header}Subject: x\r\n\r\nhi\r\n".encode()

    async def act(upstream, server):
        results = await upstream.send(mail(*envelope, content=content))
        return results, list(server.delivered)

    results, delivered = on_the_wire(act, FakeCampaignMonitor(key=KEY, bad=tuple(bad)))
    assert sorted(delivery.recipient for delivery in delivered) == sorted(set(envelope) - bad)
    assert {each: outcome.word for each, outcome in results.items()} == {
        each: Word.REJECT if each in bad else Word.SENT for each in envelope
    }
    for delivery in delivered:
        assert set(delivery.shown) - {delivery.recipient} <= {*to, *cc} & set(envelope)


def test_hidden_recipients_alone_get_a_copy_each():
    async def act(upstream, server):
        people = [f"h{number}@x.nl" for number in range(25)]
        results = await upstream.send(mail(*people))
        assert [delivery.shown for delivery in server.delivered] == [(each,) for each in people]
        return {outcome.word for outcome in results.values()}, len(server.requests)

    assert on_the_wire(act) == ({Word.SENT}, 25)


def test_trouble_with_the_way_ends_the_round():
    async def act(upstream, server):
        sent = Response(200, {}, b'[{"Status": "Received", "Recipient": "h0@x.nl"}]')
        server.script(sent, error(429, 429, "slow", **{"X-RateLimit-Reset": "9"}))
        results = await upstream.send(mail("h0@x.nl", "h1@x.nl", "h2@x.nl"))
        server.script(Fault.CUT)
        doubted = await upstream.send(mail("h0@x.nl", "h1@x.nl"))
        assert len(server.requests) == 3
        return [outcome.word for outcome in (*results.values(), *doubted.values())]

    assert on_the_wire(act) == [Word.SENT, Word.WAIT, Word.WAIT, Word.UNKNOWN, Word.RETRY]


def test_what_the_api_cannot_carry_is_refused_before_a_connection():
    signed = CONTENT.replace(b"Subject: x", b"Content-Type: multipart/signed; boundary=b")

    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", '"jan b"@x.nl', content=signed))
        assert server.http.connections == 0
        return results

    results = on_the_wire(act)
    assert {(outcome.word, outcome.stage) for outcome in results.values()} == {(Word.REJECT, Stage.PREPARE)}
    assert "multipart/signed" in results["a@x.nl"].reply
    assert all(outcome.only_here for outcome in results.values()), "the route's next upstream may take it"


def test_too_large_a_mail_may_go_another_way():
    async def act(upstream, server):
        return (await upstream.send(mail(content=CONTENT + b"a" * BODY_LIMIT)))["a@x.nl"]

    outcome = on_the_wire(act)
    assert outcome.only_here
    assert "10 MB" in outcome.reply
    assert answered(Response(413)).only_here
    assert not answered(error(400, 1, "x")).only_here


def test_an_address_the_api_cannot_hold_is_refused_alone():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", '"jan b"@x.nl', "jän@x.nl"))
        assert server.recipients == ["a@x.nl"]
        alone = await upstream.send(mail("jän@x.nl"))
        return [outcome.word for outcome in (*results.values(), *alone.values())]

    assert sorted(on_the_wire(act)) == [Word.REJECT, Word.REJECT, Word.REJECT, Word.SENT]


def test_a_wrong_key_and_a_sender_not_authenticated_are_the_routes_fault():
    async def act(upstream, server):
        return (await upstream.send(mail()))["a@x.nl"]

    for monitor in (FakeCampaignMonitor(key="another"), FakeCampaignMonitor(key=KEY, authenticated=("other.nl",))):
        outcome = on_the_wire(act, monitor)
        assert outcome.word is Word.CONFIG
        assert outcome.hint


PROBES = [
    (None, Word.SENT),
    (Response(200, {}, b"<html>hotel wifi</html>"), Word.CONFIG),
    (error(401, 100, "Invalid API Key"), Word.CONFIG),
    (error(403, 403, "no"), Word.CONFIG),
    (error(404, 404, "no"), Word.CONFIG),
    (error(429, 429, "slow"), Word.RETRY),
    (error(500, 500, "sorry"), Word.RETRY),
    (Fault.CUT, Word.RETRY),
]


@pytest.mark.parametrize(("answer", "word"), PROBES)
def test_probe_lists_messages_and_sends_nothing(answer, word):
    async def act(upstream, server):
        if answer is not None:
            server.script(answer)
        outcome = await upstream.probe()
        target = f"/api/v3.3/transactional/messages?status=all&clientID={server.client_id}"
        assert [(request.method, request.target) for request in server.requests] == [("GET", target)]
        assert server.delivered == []
        return outcome

    assert on_the_wire(act).word is word


def test_without_a_client_id_nothing_is_said_of_one():
    async def act(upstream, server):
        server.script(entries({"Status": "Received", "Recipient": "a@x.nl"}))
        await upstream.send(mail())
        return server.requests[0].target

    assert on_the_wire(act, client_id=None) == "/api/v3.3/transactional/classicEmail/send"


def test_a_large_mail_keeps_its_attachment():
    octets = os.urandom(2_000_000)
    head = b"From: anna@acme.nl\r\nTo: a@x.nl\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    part = b"--b\r\n\r\nhi\r\n--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"

    async def act(upstream, server):
        encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
        results = await upstream.send(mail(content=head + part + encoded + b"--b--\r\n"))
        assert base64.b64decode(server.delivered[0].mail["Attachments"][0]["Content"]) == octets
        return results["a@x.nl"].word

    assert on_the_wire(act) is Word.SENT


@pytest.mark.parametrize(
    ("given_settings", "key"),
    [
        ({"base_url": "http://api.createsend.com/api/v3.3"}, "base_url"),
        ({"api_key": Secret("env:K", "two words")}, "api_key"),
        ({"client_id": "a&b"}, "client_id"),
        ({}, None),
    ],
)
def test_settings_that_do_not_go_together(given_settings, key):
    made = CampaignMonitorSettings(**{"api_key": Secret("env:K", "k"), **given_settings})
    assert [fault.key for fault in made.faults()] == ([key] if key else [])
    assert made.loopback() is False
