"""SendGrid's signed events: read to the letter of the signature, and not at all without it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils

from config.credentials import Secret
from config.fields import Mistake
from routing.provider_events import Post, ProviderEvent, Refusal, Told
from tests.fakes.webhooks import SendGridWebhook
from upstreams.sendgrid import KIND, SendGridSettings
from upstreams.sendgrid_events import SIGNATURE, TIMESTAMP, reader, verification_key

NOW = 1_700_000_000.0
SENDGRID = SendGridWebhook()
ID = "1K9ZQ2M4P1ABC"


def read(signed, now: float = NOW, key: str = SENDGRID.key) -> Post | Refusal:
    headers, body = signed
    return reader(key)({name.lower(): value for name, value in headers.items()}, body, now)


def event(name: str, **more: object) -> dict[str, object]:
    return SENDGRID.event(name, ID, **{"timestamp": 1_699_999_990, "sg_event_id": "e1", **more})


@pytest.mark.parametrize(
    ("said", "told", "reply"),
    [
        (event("delivered", response="250 OK"), Told.DELIVERED, "250 OK"),
        (event("deferred", response="451 4.7.1 één", attempt="5"), Told.DEFERRED, "451 4.7.1 één"),
        (event("bounce", type="bounce", reason="550 5.1.1 no", status="5.1.1"), Told.BOUNCED, "550 5.1.1 no"),
        (event("bounce", type="blocked", reason="554 spam"), Told.BOUNCED, "blocked: 554 spam"),
        (event("dropped", reason="Bounced Address"), Told.DROPPED, "Bounced Address"),
        (event("spamreport"), Told.COMPLAINED, ""),
    ],
)
def test_an_event_in_neutral_words(said, told, reply):
    post = read(SENDGRID.signed([said], NOW))
    assert post.events == (ProviderEvent("e1", ID, "jan@example.org", 1_699_999_990.0, told, reply),)
    assert (post.ignored, post.again, post.until > NOW + 24 * 3600) == (0, 208, True)


def test_a_batch_in_order_without_what_is_no_delivery():
    names = ["processed", "deferred", "open", "delivered", "click", "unsubscribe", "made-up", "spamreport"]
    post = read(SENDGRID.signed([event(name) for name in names], NOW))
    assert [each.told for each in post.events] == [Told.DEFERRED, Told.DELIVERED, Told.COMPLAINED]
    assert post.ignored == 5


def test_the_signature_covers_time_and_body_to_the_last_octet():
    headers, body = SENDGRID.signed([event("delivered")], NOW)
    assert isinstance(read((headers, body)), Post)
    for wrong in (body[:-2], body + b" ", body.replace(b"delivered", b"dropped"), b""):
        assert read((headers, wrong)) == Refusal(401, "wrong signature")
    assert read((headers | {"X-Twilio-Email-Event-Webhook-Timestamp": "1700000001"}, body)).status == 401
    other = SendGridWebhook()
    assert read((headers, body), key=other.key) == Refusal(401, "wrong signature")
    assert read(other.signed([event("delivered")], NOW)) == Refusal(401, "wrong signature")


@pytest.mark.parametrize("missing", [SIGNATURE, TIMESTAMP])
def test_what_is_not_signed_is_not_read(missing):
    headers, body = SENDGRID.signed([event("delivered")], NOW)
    kept = {name: value for name, value in headers.items() if name.lower() != missing}
    assert read((kept, body)) == Refusal(401, "not signed")


@pytest.mark.parametrize("stamp", ["", "-1", "1e9", "1700000000.0", " 1700000000", "٣", "9" * 5000])
@pytest.mark.parametrize("signature", ["", "?", "QUJD", "é", "A" * 5000])
def test_nothing_in_the_header_makes_it_fail(stamp, signature):
    answer = read(({SIGNATURE: signature, TIMESTAMP: stamp}, b"[]"))
    assert answer.status == 401


@pytest.mark.parametrize(
    ("age", "taken"), [(0, True), (24 * 3600, True), (25 * 3600 + 1, False), (-290, True), (-310, False)]
)
def test_the_time_of_the_signature_counts_a_day(age, taken):
    answer = read(SENDGRID.signed([event("delivered")], NOW - age))
    assert isinstance(answer, Post) is taken
    assert taken or answer.status == 403


def test_a_signature_written_in_its_other_way_has_the_same_seal():
    headers, body = SENDGRID.signed([event("delivered")], NOW)
    name = "X-Twilio-Email-Event-Webhook-Signature"
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = utils.decode_dss_signature(base64.b64decode(headers[name]))
    twin = base64.b64encode(utils.encode_dss_signature(r, order - s)).decode()
    assert twin != headers[name]
    assert read((headers | {name: twin}, body)).seal == read((headers, body)).seal
    assert read(SENDGRID.signed([event("delivered")], NOW + 1)).seal != read((headers, body)).seal
    other = SendGridWebhook()  # what one account says does not keep the words of another out
    assert read(other.signed_octets(body, NOW), key=other.key).seal != read((headers, body)).seal


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"\xff", b"[" * 100_000, b'[{"event": "delivered"', b'"x"', b"9" * 5000]
)
def test_a_signed_body_that_is_no_list_is_refused(body):
    assert read(SENDGRID.signed_octets(body, NOW)) == Refusal(406, "not a list of events")


@pytest.mark.parametrize("odd", [None, 5, "x", [], {}, {"event": ["delivered"]}, {"event": {}}])
def test_an_odd_entry_does_not_spoil_the_others(odd):
    post = read(SENDGRID.signed([odd, event("delivered")], NOW))
    assert (len(post.events), post.ignored) == (1, 1)


@pytest.mark.parametrize("at", [None, "x", -5, 1e300, True, [1]])
def test_fields_that_are_missing_or_odd_have_a_stand_in(at):
    said = event("bounce", timestamp=at, email=None, reason={"x": 1}, sg_event_id="") | {"relay_id": 7}
    (first,) = read(SENDGRID.signed([said], NOW)).events
    assert (first.at, first.mail, first.recipient, first.reply) == (NOW, "", "", "")
    (second,) = read(SENDGRID.signed([said], NOW + 5), NOW + 5).events
    assert first.id == second.id != ""


def test_texts_are_cut_and_can_be_written():
    said = json.dumps([event("bounce", reason="x" * 5000, email="\ud800@x.nl")]).encode()
    (bounced,) = read(SENDGRID.signed_octets(said, NOW)).events
    assert len(bounced.reply) == 1000
    assert bounced.recipient.encode() == b"\\ud800@x.nl"


def test_the_key_is_one_of_the_right_curve():
    other = SendGridWebhook(ec.generate_private_key(ec.SECP384R1()))
    pem = "-----BEGIN PUBLIC KEY-----"
    for wrong in (other.key, "x", "", SENDGRID.key[:-10], pem, base64.b64encode(b"x" * 91).decode()):
        with pytest.raises(Mistake, match="verification key"):
            verification_key(wrong)


def test_a_kind_reads_only_with_its_key():
    key = Secret("env:X", "SG.k")
    assert KIND.events(SendGridSettings(api_key=key)) is None
    made = KIND.events(SendGridSettings(api_key=key, webhook_key=SENDGRID.key))
    headers, body = SENDGRID.signed([event("delivered")], NOW)
    assert len(made({name.lower(): value for name, value in headers.items()}, body, NOW).events) == 1
