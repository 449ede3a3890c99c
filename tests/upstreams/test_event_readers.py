"""Whatever is signed and posted, a reader answers: it never raises, and what it gives can be written down."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from config.credentials import Secret
from routing.provider_events import EventReader, Post, Refusal
from tests.fakes.webhooks import MailgunWebhook, SendGridWebhook, Signed
from upstreams import mailgun_events, sendgrid_events

NOW = 1_700_000_000.0
SENDGRID, MAILGUN = SendGridWebhook(), MailgunWebhook()
READ_SENDGRID = sendgrid_events.reader(SENDGRID.key)
READ_MAILGUN = mailgun_events.reader(Secret("env:X", MAILGUN.key))

TEXT = st.text(st.characters(), max_size=20)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
ANY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
NAMES = st.sampled_from(["delivered", "bounce", "deferred", "dropped", "spamreport", "failed", "complained", "open"])
LIKE_SENDGRID = st.fixed_dictionaries(
    {"event": NAMES | ANY},
    optional=dict.fromkeys(
        ["email", "timestamp", "relay_id", "sg_event_id", "reason", "response", "type", "status"], ANY
    ),
)
LIKE_MAILGUN = st.fixed_dictionaries(
    {"event": NAMES | ANY},
    optional={
        **dict.fromkeys(["id", "timestamp", "recipient", "severity", "user-variables"], ANY),
        "delivery-status": ANY | st.fixed_dictionaries({}, optional=dict.fromkeys(["code", "message"], ANY)),
    },
)


def looked_at(read: EventReader, signed: Signed) -> Post | Refusal:
    headers, body = signed
    said = read({name.lower(): value for name, value in headers.items()}, body, NOW)
    if isinstance(said, Post):
        for event in said.events:
            texts = (event.id, event.mail, event.recipient, event.reply)
            assert event.id
            assert all(len(text.encode()) <= 10_000 for text in texts)
            assert math.isfinite(event.at)
    return said


@settings(deadline=None)
@given(st.lists(LIKE_SENDGRID | ANY, max_size=4))
def test_sendgrid(events):
    said = looked_at(READ_SENDGRID, SENDGRID.signed(events, NOW))
    assert isinstance(said, Post)
    assert len(said.events) + said.ignored == len(events)


@settings(deadline=None)
@given(LIKE_MAILGUN | ANY)
def test_mailgun(event):
    said = looked_at(READ_MAILGUN, MAILGUN.signed(event, NOW))
    assert isinstance(said, Post)
    assert len(said.events) + said.ignored == 1


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([sendgrid_events.SIGNATURE, sendgrid_events.TIMESTAMP]), TEXT), st.binary())
def test_nothing_unsigned_is_taken(headers, body):
    assert isinstance(READ_SENDGRID(headers, body, NOW), Refusal)
    assert isinstance(READ_MAILGUN(headers, body, NOW), Refusal)


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["timestamp", "token", "signature"], ANY)) | ANY)
def test_no_signature_of_another_shape_is_taken(seal):
    body = json.dumps({"signature": seal, "event-data": {"event": "delivered"}}).encode()
    assert isinstance(READ_MAILGUN({}, body, NOW), Refusal)
