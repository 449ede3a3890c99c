"""Mails as v3 requests: golden files, the exact recipients, correlation, and what the relay never lets through."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.mail import Outgoing
from tests.fakes.http_server import Request
from tests.fakes.sendgrid import checked, deliveries
from tests.upstreams.sendgrid_cases import Case, cases
from upstreams.api_message import plain_address
from upstreams.mime_parts import Unsayable
from upstreams.sendgrid_body import BODY_LIMIT, Prepared, category, prepare


def result_of(case: Case) -> dict[str, object]:
    recipients = {"recipients": list(case.mail.recipients)}
    try:
        return {**recipients, "request": json.loads(prepare(case.mail, tracking=False).body)}
    except Unsayable as reason:
        return {**recipients, "refused": str(reason)}


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_golden_mails(case):
    result = result_of(case)
    if os.environ.get("SENDGRID_CASES") == "write":
        case.path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    assert result == case.expected


def judged(prepared: Prepared) -> list[str]:
    """Who gets it, by the look-alike's rules (which raise when the request breaks one)."""
    request = Request("POST", "/v3/mail/send", {"content-type": "application/json"}, prepared.body, 1)
    return [delivery.recipient for delivery in deliveries(checked(request), "id")]


def mail(header: str, *recipients: str, body: str = "hi", route: str = "acme.nl") -> Outgoing:
    content = f"From: anna@acme.nl\r\n{header}\r\n\r\n{body}\r\n".encode()
    return Outgoing("01JQ", route, "anna@acme.nl", recipients, content)


ADDRESSES = st.sampled_from(["a@x.nl", "A@x.nl", "b@x.nl", "c@y.nl", "d@z.example", "e.f+g@x.nl", "weg@elders.nl"])
NAMED = st.tuples(st.sampled_from(["", "Jan", '"Vries, de; J"', "=?utf-8?q?Zo=C3=AB?=", '"a@x.nl"', "x@y,"]), ADDRESSES)


@given(
    to=st.lists(NAMED, max_size=5),
    cc=st.lists(NAMED, max_size=5),
    bcc=st.lists(NAMED, max_size=3),
    envelope=st.lists(ADDRESSES, min_size=1, max_size=7, unique=True),
)
def test_exactly_the_envelope_gets_the_mail_once(to, cc, bcc, envelope):
    fields = (("To", to), ("Cc", cc), ("Bcc", bcc))
    header = "\r\n".join(f"{n}: " + ", ".join(f"{name} <{a}>" for name, a in each) for n, each in fields if each)
    got = judged(prepare(mail(header or "X-None: yes", *envelope), tracking=False))
    assert sorted(address.lower() for address in got) == sorted({address.lower() for address in envelope})


def test_a_hidden_recipient_is_never_shown():
    request = json.loads(prepare(mail("To: a@x.nl\r\nBcc: b@x.nl", "a@x.nl", "b@x.nl"), tracking=False).body)
    people = request["personalizations"][0]
    assert (people["to"], people["bcc"]) == ([{"email": "a@x.nl"}], [{"email": "b@x.nl"}])
    assert "bcc" not in {name.lower() for name in request.get("headers", {})}


def test_a_thousand_hidden_recipients_get_a_copy_each():
    recipients = [f"a{number}@x.nl" for number in range(1000)]
    assert judged(prepare(mail("Subject: x", *recipients), tracking=False)) == recipients


def test_tracking_is_switched_off_or_left_to_the_account():
    off = json.loads(prepare(mail("To: a@x.nl", "a@x.nl"), tracking=False).body)["tracking_settings"]
    assert {name: value["enable"] for name, value in off.items()} == dict.fromkeys(
        ("click_tracking", "open_tracking", "subscription_tracking", "ganalytics"), False
    )
    assert "tracking_settings" not in json.loads(prepare(mail("To: a@x.nl", "a@x.nl"), tracking=True).body)


@pytest.mark.parametrize(
    ("route", "expected"),
    [("acme.nl", "acme.nl"), ("info@acme.nl", "acme.nl"), ("*.acme.nl", "*.acme.nl"), ("<>", "<>")],
)
def test_a_category_holds_no_address(route, expected):
    assert category(route) == expected
    request = json.loads(prepare(mail("To: a@x.nl", "a@x.nl", route=route), tracking=False).body)
    assert request["categories"] == [expected]
    assert request["personalizations"][0]["custom_args"] == {"relay_id": "01JQ"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("Jan@X.nl", "Jan@X.nl"),
        ("jan@bücher.nl", "jan@xn--bcher-kva.nl"),
        ("jän@x.nl", None),
        ("jan..b@x.nl", None),
        ('"jan b"@x.nl', None),
        ("jan@localhost", None),
        ("jan@[192.0.2.1]", None),
        ("jan@" + "a" * 400 + ".nl", None),
    ],
)
def test_addresses_the_api_takes(address, expected):
    assert plain_address(address) == expected


def test_more_than_thirty_megabytes_is_refused_by_name():
    large = mail("To: a@x.nl", "a@x.nl", body="a" * BODY_LIMIT)
    with pytest.raises(Unsayable, match="30 MB"):
        prepare(large, tracking=False)


LINES = st.sampled_from(
    [
        b"To: a@x.nl", b"Cc: <b@x.nl>, a@x.nl", b"From: x@y.nl", b"Reply-To: =?utf-7?q?+2AA-?= <r@y.nl>, r@y.nl",
        b"Subject: =?utf-7?q?+2AA-?=", b"Subject: \xff\x00\x1b", b"X-\xe9: y", b"X: \xe9\x00", b"X-Y:", b"Bcc: b@x.nl",
        b"Content-Type: text/plain; charset=utf-7", b"Content-Type: text/calendar; method=request", b"To: \"",
        b" folded", b"Content-ID: <a b>", b"Date: never", b"Message-ID: <1@x>",
    ]
)  # fmt: skip


@given(st.lists(LINES | st.binary(max_size=12), max_size=8), st.binary(max_size=20))
def test_any_header_gives_a_request_that_keeps_the_rules_or_a_named_reason(lines, body):
    content = b"\r\n".join([b"From: anna@acme.nl", *lines, b"", body, b""])
    outgoing = Outgoing("01JQ", "acme.nl", "anna@acme.nl", ("a@x.nl", "b@x.nl"), content)
    try:
        got = judged(prepare(outgoing, tracking=False))
    except Unsayable:
        got = ["a@x.nl", "b@x.nl"]
    assert sorted(got) == ["a@x.nl", "b@x.nl"]
