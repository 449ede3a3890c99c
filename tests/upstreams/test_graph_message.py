"""The header Graph is handed, read back by Python's email package: it names the envelope, exactly."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes.graph import named_in
from upstreams.graph_message import can_be_named, graph_message

BODY = b"\r\n\r\nTo: not-a-header@body.example\r\nBody\r\n"


def mail(*lines: str | bytes) -> bytes:
    return b"\r\n".join(line.encode("utf-8") if isinstance(line, str) else line for line in lines) + BODY


def named(content: bytes) -> frozenset[str]:
    return named_in(message_from_bytes(content, policy=policy.SMTP))


def header_of(content: bytes, name: str) -> str | None:
    return message_from_bytes(content, policy=policy.SMTP)[name]


def test_who_is_in_neither_to_nor_cc_goes_into_one_bcc_at_the_top():
    made = graph_message(mail("From: a@x.nl", "To: jan@y.nl"), ("jan@y.nl", "piet@y.nl", "els@y.nl"))
    assert made.content == mail("Bcc: piet@y.nl, els@y.nl", "From: a@x.nl", "To: jan@y.nl")
    assert made.left_out == 0


def test_who_is_not_in_the_envelope_is_taken_out_of_to_and_cc():
    content = mail("To: Jan <jan@y.nl>, Piet <piet@y.nl>", "Cc: els@y.nl", "Subject: hoi")
    made = graph_message(content, ("jan@y.nl",))
    assert made.content == mail("To: Jan <jan@y.nl>", "Subject: hoi")
    assert made.left_out == 2


def test_the_bcc_of_the_mail_as_it_came_mails_nobody():
    made = graph_message(mail("To: jan@y.nl", "Bcc: spy@y.nl", "bcc : spy2@y.nl"), ("jan@y.nl",))
    assert made.content == mail("To: jan@y.nl")


def test_a_name_survives_whatever_is_in_it():
    content = mail(
        'To: "Jansen, jan@evil.nl" <jan@y.nl>,', "  =?utf-8?q?Andr=C3=A9=2C_x=40evil=2Enl?= <els@y.nl>", "Subject: x"
    )
    made = graph_message(content, ("jan@y.nl", "els@y.nl"))
    boxes = message_from_bytes(made.content, policy=policy.SMTP)["To"].addresses
    assert [(box.display_name, box.addr_spec) for box in boxes] == [
        ("Jansen, jan@evil.nl", "jan@y.nl"),
        ("André, x@evil.nl", "els@y.nl"),
    ]


def test_case_and_repetition_do_not_make_two_recipients():
    content = mail("To: Jan@Y.nl, JAN@y.nl", "Cc: jan@y.NL, els@y.nl")
    made = graph_message(content, ("jan@y.nl", "ELS@y.nl", "Els@y.nl"))
    assert made.content == mail("To: Jan@Y.nl", "Cc: els@y.nl")
    assert made.left_out == 0


def test_both_forms_of_a_domain_are_one_recipient():
    made = graph_message(mail("To: k@münchen.de"), ("k@xn--mnchen-3ya.de",))
    assert made.content == mail("To: k@xn--mnchen-3ya.de")


def test_groups_give_their_members_and_an_empty_group_nobody():
    made = graph_message(mail("To: Team: a@y.nl, b@y.nl;", "Cc: undisclosed-recipients:;"), ("a@y.nl", "c@y.nl"))
    assert made.content == mail("Bcc: c@y.nl", "To: a@y.nl")


def test_resent_recipients_and_old_signatures_go_and_other_fields_stay_as_they_are():
    kept = ["Received: from x", "\tby y", "X-Odd:  two  spaces ", "subject:ge\u00ebncodeerd niet", "To: jan@y.nl"]
    content = mail("DKIM-Signature: v=1;", " d=x.nl", *kept, "Resent-To: a@y.nl", "Resent-Bcc: b@y.nl")
    assert graph_message(content, ("jan@y.nl",)).content == mail(*kept)


def test_nothing_hides_behind_a_line_that_readers_disagree_on():
    content = mail(
        "From: a@x.nl", b"X-A: 1\rBcc: e1@evil.nl", b"X-B: 2\nBcc: e2@evil.nl", "no field at all", "To: jan@y.nl",
        " ", " , e3@evil.nl", b"X-C: \x00", "Subject: x", " \t", "Bcc\t: e4@evil.nl",
    )  # fmt: skip
    made = graph_message(content, ("jan@y.nl",))
    assert named(made.content) == {"jan@y.nl"}
    assert b"no field" not in made.content
    assert header_of(made.content, "Subject") == "x"


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"\r\nbody\r\n", b"Bcc: a@y.nl\r\n\r\nbody\r\n"),
        (b"Subject: x\r\n", b"Bcc: a@y.nl\r\nSubject: x\r\n\r\n"),
        (b"Subject: x", b"Bcc: a@y.nl\r\nSubject: x\r\n\r\n"),
        (b"", b"Bcc: a@y.nl\r\n\r\n"),
    ],
)
def test_mails_without_a_header_or_a_body(content, whole):
    assert graph_message(content, ("a@y.nl",)).content == whole


def test_the_body_and_its_parts_are_left_alone():
    inner = b"Bcc: inner@y.nl\r\nDKIM-Signature: x\r\n\r\n--b--\r\n"
    content = b"To: a@y.nl\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + inner
    assert graph_message(content, ("a@y.nl",)).content == content


def test_five_hundred_recipients_fit_on_short_lines():
    people = tuple(f"recipient-number-{n}@example.nl" for n in range(500))
    made = graph_message(mail("To: " + ", ".join(people[:250])), people)
    assert named(made.content) == set(people)
    assert max(map(len, made.content.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("jan@y.nl", True),
        ("jan.o'neil+tag@sub.y.nl", True),
        ("k@münchen.de", True),
        ('"jan jansen"@y.nl', True),
        ('"a@b"@y.nl', True),
        ("andré@y.nl", False),
        ("a b@y.nl", False),
        ("a..b@y.nl", False),
        ("a@y.nl>, <b@y.nl", False),
        ("a@y.nl\r\nBcc: b@y.nl", False),
        ("a,b@y.nl", False),
        ("a@b@y.nl", False),
        ("postmaster", False),
        ("@y.nl", False),
        ("a@", False),
        ("a@[192.0.2.1]", False),
        ("", False),
    ],
)
def test_which_addresses_a_header_can_say(address, fits):
    assert can_be_named(address) is fits


ADDRESSES = st.builds(
    "{}@{}".format,
    st.sampled_from(["jan", "Piet", "els.de.wit", "o'neil", "a+b", "x_1", '"q r"', '"s,t"', '"u@v"']),
    st.sampled_from(["y.nl", "Z.example", "xn--mnchen-3ya.de", "münchen.de", "sub.y.nl"]),
)
NAMES = st.sampled_from(
    ["Jan ", '"De Wit, Els" ', '"evil@e.nl" ', "=?utf-8?q?Andr=C3=A9?= ", "=?utf-8?b?ZXZpbEBlLm5sLCBiQGUubmw=?= ",
     "=?utf-8?q?a=40e=2Enl=2C?= ", "(c@e.nl) ", "(open ", '"open ',
     "evil@e.nl ", "Team: ", "=?x?q?=0D=0ABcc:_e=40e=2Enl?= "]
)  # fmt: skip
MAILBOXES = st.one_of(
    ADDRESSES,
    st.builds("{}<{}>".format, NAMES, ADDRESSES),
    st.builds("{} (comment, b@e.nl)".format, ADDRESSES),
    st.builds("Team: {}, {};".format, ADDRESSES, ADDRESSES),
    st.builds("<@relay.nl,@e.nl:{}>".format, ADDRESSES),
    st.sampled_from(["undisclosed-recipients:;", "bob", "<>", "<", "a@", "@", ";;", ":", ",", "a@e.nl b@e.nl", "\\"]),
)
SEPARATORS = st.sampled_from([", ", ",\r\n ", ",\r\n\t", "; ", " ", ",,", "\r\n \r\n ,", ",\r", ",\n"])
NAMES_OF_FIELDS = st.sampled_from(
    ["To", "Cc", "Bcc", "to", "CC ", "Resent-To", "Resent-Bcc", "Bcc\t", "X-To", "Bcc\x00"]
)


@st.composite
def address_fields(draw) -> bytes:
    value = draw(MAILBOXES)
    for _ in range(draw(st.integers(0, 4))):
        value += draw(SEPARATORS) + draw(MAILBOXES)
    return f"{draw(NAMES_OF_FIELDS)}: {value}\r\n".encode()


HEADERS = st.lists(
    st.one_of(
        address_fields(),
        st.sampled_from([b"From: a@x.nl\r\n", b"nonsense\r\n", b" lead\r\n", b"X: y\r\n z\r\n", b"\tBcc: e@e.nl\r\n"]),
        st.binary(max_size=40).filter(lambda raw: b"\r\n\r\n" not in raw).map(lambda raw: b"X-" + raw + b"\r\n"),
    ),
    max_size=6,
).map(b"".join)


def canonical(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}".lower()


@settings(max_examples=250, deadline=None)
@given(HEADERS, st.lists(ADDRESSES, min_size=1, max_size=8, unique=True))
@example(b"To: jan@y.nl, piet@y.nl\r\n", ["jan@y.nl"])
@example(b"X-\r\r\nBcc: e@e.nl\r\n", ["jan@y.nl"])
def test_the_envelope_is_exactly_who_is_named(header, envelope):
    made = graph_message(header + BODY, tuple(envelope))
    assert named(made.content) == {canonical(address) for address in envelope}
    assert made.content.endswith(BODY)


@settings(max_examples=80, deadline=None)
@given(HEADERS, st.lists(ADDRESSES, min_size=1, max_size=4, unique=True))
def test_doing_it_again_changes_nothing(header, envelope):
    once = graph_message(header + BODY, tuple(envelope))
    again = graph_message(once.content, tuple(envelope))
    assert again.content == once.content
    assert again.left_out == 0
