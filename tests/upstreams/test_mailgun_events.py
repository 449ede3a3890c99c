"""Mailgun's signed events: the token is the proof, and the body is believed only with it."""

from __future__ import annotations

import json

import pytest

from config.credentials import Secret
from routing.provider_events import Post, ProviderEvent, Refusal, Told
from tests.fakes.webhooks import MailgunWebhook
from upstreams.mailgun import KIND, MailgunSettings
from upstreams.mailgun_events import LARGEST, reader

NOW = 1_700_000_000.0
MAILGUN = MailgunWebhook()
ID = "1K9ZQ2M4P1ABC"


def read(signed, now: float = NOW, key: str = MAILGUN.key) -> Post | Refusal:
    headers, body = signed
    return reader(Secret("env:X", key))({name.lower(): value for name, value in headers.items()}, body, now)


def event(name: str, **more: object) -> dict[str, object]:
    return MAILGUN.event(name, ID, **{"timestamp": 1_699_999_990.25, "id": "e1", **more})


def failed(severity: str, **status: object) -> dict[str, object]:
    return event("failed", severity=severity, **{"delivery-status": status})


@pytest.mark.parametrize(
    ("said", "told", "reply"),
    [
        (event("delivered", **{"delivery-status": {"code": 250, "message": "OK"}}), Told.DELIVERED, "250 OK"),
        (failed("permanent", code=550, message="5.1.1 no such user"), Told.BOUNCED, "550 5.1.1 no such user"),
        (failed("permanent", code=550, message="550 5.1.1 één"), Told.BOUNCED, "550 5.1.1 één"),
        (failed("temporary", code=451, message="", description="try later"), Told.DEFERRED, "451 try later"),
        (failed("permanent", code=605, description="Not delivering to previously bounced address"), Told.BOUNCED,
         "605 Not delivering to previously bounced address"),
        (failed("permanent", code="x", message=None), Told.BOUNCED, ""),
        (event("failed"), Told.BOUNCED, ""),
        (event("complained"), Told.COMPLAINED, ""),
    ],
)  # fmt: skip
def test_an_event_in_neutral_words(said, told, reply):
    post = read(MAILGUN.signed(said, NOW))
    assert post.events == (ProviderEvent("e1", ID, "jan@example.org", 1_699_999_990.25, told, reply),)
    assert (post.ignored, post.again, post.until > NOW + 8 * 3600) == (0, 406, True)


@pytest.mark.parametrize("said", [event("opened"), event("accepted"), event("clicked"), {}, None, [], {"event": []}])
def test_what_is_no_news_of_a_delivery_is_counted_and_left(said):
    post = read(MAILGUN.signed(said, NOW))
    assert (post.events, post.ignored) == ((), 1)


def test_the_signature_covers_time_and_token():
    seal = MAILGUN.seal(NOW)
    said = event("delivered")
    post = read(MAILGUN.signed(said, seal=seal))
    assert post.seal == seal["signature"]
    assert read(MAILGUN.signed(said, seal=seal | {"signature": seal["signature"].upper()})).seal == post.seal
    for name, value in (("timestamp", "1700000001"), ("token", seal["token"] + "0"), ("signature", "0" * 64)):
        assert read(MAILGUN.signed(said, seal=seal | {name: value})) == Refusal(401, "wrong signature")
    for value in ("", "é", "\ud800", "x" * 5000):
        assert read(MAILGUN.signed(said, seal=seal | {"signature": value})) == Refusal(401, "wrong signature")
    assert read(MAILGUN.signed(said, seal=seal), key="another key") == Refusal(401, "wrong signature")


def test_a_digit_that_moves_between_time_and_token_gains_no_time():
    """Time and token are signed without anything between them."""
    seal = next(seal for _ in range(1000) if (seal := MAILGUN.seal(NOW))["token"][0].isdigit())
    stamp, token = seal["timestamp"], seal["token"]
    moved = [(stamp + token[:1], token[1:]), (stamp[:-1], stamp[-1:] + token), ("", stamp + token)]
    for time, rest in moved:
        assert read(MAILGUN.signed(event("delivered"), seal=seal | {"timestamp": time, "token": rest})).status == 406


@pytest.mark.parametrize("missing", ["timestamp", "token", "signature"])
def test_what_is_not_signed_is_not_read(missing):
    seal = {name: value for name, value in MAILGUN.seal(NOW).items() if name != missing}
    assert read(MAILGUN.signed(event("delivered"), seal=seal)) == Refusal(401, "not signed")
    odd = MAILGUN.seal(NOW) | {missing: 5}
    assert read(MAILGUN.signed(event("delivered"), seal=odd)) == Refusal(401, "not signed")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"signature":', b"9" * 5000, b'"' + b"x" * LARGEST]
)
def test_a_body_that_is_no_event_is_refused_for_good(body):
    assert read(({}, body)).status == 406


def test_a_signature_of_another_shape_is_none():
    for said in ({}, {"signature": "x"}, {"signature": []}, {"signature": None, "event-data": {}}):
        assert read(({}, json.dumps(said).encode())) in (Refusal(401, "not signed"), Refusal(406, "not signed"))


@pytest.mark.parametrize(
    ("age", "taken"), [(0, True), (8 * 3600, True), (9 * 3600 + 1, False), (-290, True), (-310, False)]
)
def test_the_time_of_the_signature_counts_as_long_as_mailgun_tries(age, taken):
    answer = read(MAILGUN.signed(event("delivered"), NOW - age))
    assert isinstance(answer, Post) is taken
    assert taken or answer.status == 406


def test_fields_that_are_missing_or_odd_have_a_stand_in():
    said = event("failed", id=None, timestamp="x", recipient=5, **{"user-variables": [], "delivery-status": "x"})
    (first,) = read(MAILGUN.signed(said, NOW)).events
    assert (first.at, first.mail, first.recipient, first.reply) == (NOW, "", "", "")
    (second,) = read(MAILGUN.signed(said, NOW)).events
    assert first.id == second.id != ""


def test_a_kind_reads_only_with_its_key():
    words = {"domain": "mg.callcenter.nl", "api_key": Secret("env:X", "key")}
    assert KIND.events(MailgunSettings(**words)) is None
    unread = Secret("systemd:mailgun", "")  # outside the unit it has no value: nothing may be signed with that
    assert KIND.events(MailgunSettings(**words, webhook_signing_key=unread)) is None
    made = KIND.events(MailgunSettings(**words, webhook_signing_key=Secret("env:Y", MAILGUN.key)))
    assert len(made({}, MAILGUN.signed(event("delivered"), NOW)[1], NOW).events) == 1
    wrong = MailgunSettings(**words, webhook_signing_key=Secret("env:Y", "two words"))
    assert [fault.key for fault in wrong.faults()] == ["webhook_signing_key"]
