"""The form for Mailgun: the mail's own bytes but for a few fields, framed so that nothing inside can end it early."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fakes.http_server import Request
from tests.fakes.mailgun import FormPart, form_parts
from upstreams.mailgun_request import form, message_of, options

BODY = b"\r\nBcc: not-a-header@body.example\r\nX-Mailgun-Tag: neither\r\n\xff\x00\r\n"


def read(filled: tuple[str, bytes]) -> list[FormPart]:
    return form_parts(Request("POST", "/", {"content-type": filled[0]}, filled[1], 1))


@pytest.mark.parametrize(
    "unwanted",
    [
        b"Bcc: a@x.nl\r\n",
        b"bcc : a@x.nl,\r\n\tb@x.nl\r\n",
        b"BCC\t:\r\n a@x.nl\r\n",
        b"Bcc:\r\n",
        b"Bcc\r\n : a@x.nl\r\n",
        b"Resent-Bcc: a@x.nl\r\n",
        b"X-Mailgun-Drop-Message: yes\r\n",
        b'x-MAILGUN-variables: {"a":\r\n "b"}\r\n',
        b"X-Mailgun-Tag : a\r\n",
        b"X-Mailgun-Drop-Message\r\n : yes\r\n",
        b"X-Mailgun-\r\n",
        b" X-Mailgun-Drop-Message: yes\r\n",
    ],
)
def test_bcc_and_orders_to_mailgun_are_taken_out_however_written(unwanted):
    rest = b"From: a@x.nl\r\nSubject:  two  spaces \r\n\tfolded\r\n"
    assert message_of(unwanted + rest + BODY) == rest + BODY
    if not unwanted.startswith(b" "):
        assert message_of(rest + unwanted + unwanted + BODY) == rest + BODY
        assert message_of(rest + unwanted) == rest


@pytest.mark.parametrize("name", [b"X-Mailgunner", b"Bcc-Note", b"X-Bcc", b"X-Mail", b"X-Old-X-Mailgun-Tag", b"Bccs"])
def test_fields_that_only_sound_alike_stay(name):
    content = name + b": x\r\nFrom: a@x.nl\r\n" + BODY
    assert message_of(content) is content


LINES = st.sampled_from(
    [
        b"Bcc: a@x.nl",
        b"X-Mailgun-Tag: x",
        b"x-mailgun-drop-message : yes",
        b" folded",
        b"\tfolded",
        b"Subject: \xe9",
        b"odd",
    ]
)


@given(
    st.lists(LINES | st.binary(max_size=10).filter(lambda line: b"\r\n" not in line), max_size=8),
    st.binary(max_size=30),
)
@example([b"Subject: x", b"Bcc: a@x.nl", b" b@x.nl"], b"")
def test_all_other_bytes_stay_in_their_order(lines, body):
    head = b"".join(line + b"\r\n" for line in lines if line)
    made = message_of(head + b"\r\n" + body)
    assert made.endswith(b"\r\n" + body)
    kept = made.removesuffix(b"\r\n" + body).split(b"\r\n")
    assert not any(
        re.match(rb"[ \t]*(bcc\s*:|x-mailgun-)", line, re.IGNORECASE) for line in kept if line[:1] not in b" \t"
    )
    left = iter(head.split(b"\r\n"))
    assert all(line in left for line in kept)


@given(
    st.lists(st.sampled_from(["a@x.nl", "callpro-relay-0@x.nl", "b@y.nl"]), min_size=1, max_size=4),
    st.binary(max_size=60) | st.sampled_from([b"--callpro-relay-0\r\n", b"\r\n--callpro-relay-0--\r\ncallpro-relay-1"]),
)
def test_what_goes_in_comes_out(people, message):
    parts = read(form([*(("to", each) for each in people), *options("01JQ", tracking=False)], message))
    assert [part.content.decode() for part in parts if part.name == "to"] == people
    assert parts[-1] == FormPart("message", "message.eml", "message/rfc822", message)
    assert [(part.name, part.content) for part in parts[len(people) : -1]] == [
        ("o:tracking", b"no"),
        ("v:relay_id", b"01JQ"),
        ("o:suppress-headers", b"X-Mailgun-Variables"),
    ]


def test_tracking_may_be_left_to_the_account():
    assert dict(options("01JQ", tracking=True)) == {"v:relay_id": "01JQ", "o:suppress-headers": "X-Mailgun-Variables"}


def test_a_value_that_could_end_its_part_is_a_bug_of_ours():
    with pytest.raises(ValueError, match="control"):
        form([("to", "a@x.nl\r\n\r\n--callpro-relay-0")], b"")
