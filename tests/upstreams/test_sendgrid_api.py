"""SendGrid's API on the wire: how long to wait, what it cannot carry, whom an error names, the probe."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable

import pytest

from config.credentials import Secret
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from tests.fakes.http_server import Fault, Response
from tests.fakes.sendgrid import FakeSendGrid, error
from upstreams.base import Host, Upstream
from upstreams.sendgrid import KIND, SendGridSettings

KEY = "SG.very-secret.key-of-acme"
CONTENT = b"From: anna@acme.nl\r\nTo: a@x.nl\r\nSubject: x\r\n\r\nhi\r\n"


def mail(*recipients: str, content: bytes = CONTENT) -> Outgoing:
    return Outgoing("01JQ", "acme.nl", "anna@acme.nl", recipients or ("a@x.nl",), content)


def way(sendgrid: FakeSendGrid, timeout: float = 30.0) -> Upstream:
    settings = SendGridSettings(
        api_key=Secret("env:KEY", KEY), method="api", base_url=sendgrid.url, timeout=timeout, tracking=False
    )
    return KIND.build("our-sendgrid", settings, Host("relay.test"))


def on_the_wire(
    act: Callable[[Upstream, FakeSendGrid], Awaitable[object]],
    sendgrid: FakeSendGrid | None = None,
    timeout: float = 30.0,
) -> object:
    async def run() -> object:
        async with sendgrid or FakeSendGrid(key=KEY) as server:
            upstream = way(server, timeout)
            try:
                return await act(upstream, server)
            finally:
                await upstream.close()

    return asyncio.run(run())


def answered(answer: Response | Fault, outgoing: Outgoing | None = None, timeout: float = 30.0) -> Outcome:
    async def act(upstream: Upstream, server: FakeSendGrid) -> Results:
        server.script(answer)
        return await upstream.send(outgoing or mail())

    results = on_the_wire(act, timeout=timeout)
    assert isinstance(results, dict)
    return results["a@x.nl"]


def test_a_mail_is_taken_and_its_id_kept():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "hidden@x.nl"))
        assert server.recipients == ["a@x.nl", "hidden@x.nl"]
        assert [delivery.custom_args for delivery in server.delivered] == [{"relay_id": "01JQ"}] * 2
        assert all(delivery.shown == (("to", "a@x.nl"),) for delivery in server.delivered)
        return results

    results = on_the_wire(act)
    sent = Outcome(Word.SENT, "202 Accepted", Stage.REQUEST, 202, upstream_id="look-alike-0001")
    assert results == {"a@x.nl": sent, "hidden@x.nl": sent}


def test_the_reply_is_sendgrids_own_text_with_its_field():
    assert answered(error(403, "not verified", "from")).reply == "403 not verified (from)"
    assert answered(error(401, "Maximum credits exceeded")).hint != answered(error(401, "revoked")).hint


@pytest.mark.parametrize(
    ("headers", "word", "low", "high"),
    [
        ({"X-RateLimit-Reset": "{now+30}"}, Word.WAIT, 20, 31),
        ({"X-RateLimit-Reset": "{now-30}"}, Word.WAIT, 1, 1),
        ({"X-RateLimit-Reset": "99999999999"}, Word.WAIT, 3600, 3600),
        ({"Retry-After": "12"}, Word.WAIT, 12, 12),
        ({"X-RateLimit-Reset": "soon"}, Word.RETRY, None, None),
    ],
)
def test_too_many_requests_waits_as_long_as_told(headers, word, low, high):
    now = int(time.time())
    filled = {k: v.replace("{now+30}", str(now + 30)).replace("{now-30}", str(now - 30)) for k, v in headers.items()}
    outcome = answered(error(429, "too many requests", **filled))
    assert outcome.word is word
    assert outcome.wait is None if low is None else low <= (outcome.wait or 0) <= high


def test_what_the_api_cannot_carry_is_refused_before_a_connection():
    signed = CONTENT.replace(b"Subject: x", b"Content-Type: multipart/signed; boundary=b")

    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", "b@x.nl", content=signed))
        assert server.http.connections == 0
        return results

    results = on_the_wire(act)
    assert {outcome.word for outcome in results.values()} == {Word.REJECT}
    assert {outcome.stage for outcome in results.values()} == {Stage.PREPARE}
    assert "multipart/signed" in results["a@x.nl"].reply
    assert all(outcome.only_here for outcome in results.values()), "the route's next upstream may take it"
    assert "method: smtp" in str(results["b@x.nl"].hint)


def test_an_address_the_api_cannot_hold_is_refused_alone():
    async def act(upstream, server):
        results = await upstream.send(mail("a@x.nl", '"jan b"@x.nl', "jän@x.nl"))
        assert server.recipients == ["a@x.nl"]
        return results

    results = on_the_wire(act)
    assert [results[each].word for each in ("a@x.nl", '"jan b"@x.nl', "jän@x.nl")] == [
        Word.SENT,
        Word.REJECT,
        Word.REJECT,
    ]


def test_only_the_recipient_that_sendgrid_minds_is_refused():
    async def act(upstream, server):
        server.script(error(400, "Does not contain a valid address.", "personalizations.0.bcc.0.email"))
        return await upstream.send(mail("a@x.nl", "bad@x.nl", "good@x.nl"))

    results = on_the_wire(act)
    words = {each: outcome.word for each, outcome in results.items()}
    assert words == {"a@x.nl": Word.RETRY, "bad@x.nl": Word.REJECT, "good@x.nl": Word.RETRY}


@pytest.mark.parametrize("field", ["personalizations.7.to.0.email", "personalizations.0", "subject"])
def test_an_error_that_names_no_recipient_of_ours_is_for_all(field):
    async def act(upstream, server):
        server.script(error(400, "wrong", field))
        return await upstream.send(mail("a@x.nl", "b@x.nl"))

    assert {outcome.word for outcome in on_the_wire(act).values()} == {Word.REJECT}


@pytest.mark.parametrize(
    ("answer", "alerts"),
    [
        (error(400, "The from email does not contain a valid address.", "from.email"), ["sendgrid_refused"]),
        (error(400, "Does not contain a valid address.", "personalizations.0.to.0.email"), []),
        (error(403, "The from address does not match a verified Sender Identity."), []),
    ],
)
def test_a_request_that_sendgrid_does_not_understand_is_an_alert(answer, alerts, caplog):
    answered(answer)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == alerts


def test_a_large_mail_keeps_its_attachment_and_the_loop_its_turn():
    octets = os.urandom(2_000_000)
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    head = b"From: anna@acme.nl\r\nTo: a@x.nl\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    part = b"--b\r\n\r\nhi\r\n--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"

    async def act(upstream, server):
        results = await upstream.send(mail(content=head + part + encoded + b"--b--\r\n"))
        assert base64.b64decode(server.delivered[0].mail["attachments"][0]["content"]) == octets
        return results

    assert on_the_wire(act)["a@x.nl"].word is Word.SENT


PROBES = [
    (None, Word.SENT),
    (Response(200, {}, json.dumps({"scopes": ["alerts.read"]}).encode()), Word.CONFIG),
    (Response(200, {}, b"<html>hotel wifi</html>"), Word.CONFIG),
    (error(401, "authorization required"), Word.CONFIG),
    (error(403, "access forbidden"), Word.CONFIG),
    (error(404, "not found"), Word.CONFIG),
    (error(429, "too many requests"), Word.RETRY),
    (error(500, "internal server error"), Word.RETRY),
    (Fault.CUT, Word.RETRY),
]


@pytest.mark.parametrize(("answer", "word"), PROBES)
def test_probe_asks_for_the_keys_scopes_and_sends_nothing(answer, word):
    async def act(upstream, server):
        if answer is not None:
            server.script(answer)
        outcome = await upstream.probe()
        assert [(request.method, request.target) for request in server.requests] == [("GET", "/v3/scopes")]
        assert server.delivered == []
        return outcome

    assert on_the_wire(act).word is word
