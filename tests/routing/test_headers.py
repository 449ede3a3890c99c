"""Editing the header block and reading address lists, on mails that break the rules too."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing import headers
from routing.addresses import Mailbox, addresses, encode_names, tokens, write_mailbox
from routing.encoded_words import decode, encode

MAIL = b"A: one\r\nFrom: x@a.nl\r\nbroken line\r\n  and more\r\nfROM : y@a.nl,\r\n\tz@a.nl\r\nB:\r\n\r\nFrom: body\r\n"

LINES = st.sampled_from(
    [
        b"From: a@b",
        b"from : c",
        b"To: x,",
        b" folded",
        b"\tfolded",
        b"no field",
        b"",
        b"Subject:",
        b":",
        b"X\xe9: 1",
        b"\r",
    ]
)
MAILS = st.lists(LINES, max_size=8).map(lambda lines: b"\r\n".join(lines))


def test_a_field_is_found_in_any_case_and_its_value_is_raw() -> None:
    assert headers.values(MAIL, "FROM") == (b" x@a.nl", b" y@a.nl,\r\n\tz@a.nl")
    assert headers.value(MAIL, "b") == b""
    assert headers.value(MAIL, "Subject") is None


def test_a_line_that_is_no_field_is_kept_under_no_name() -> None:
    assert [field.name for field in headers.fields(MAIL)] == ["A", "From", "", "fROM", "B"]
    assert headers.remove(MAIL, "From", "a") == b"broken line\r\n  and more\r\nB:\r\n\r\nFrom: body\r\n"


def test_set_field_leaves_one_in_place_of_the_first() -> None:
    changed = headers.set_field(MAIL, "From", b"q@a.nl")
    assert changed == b"A: one\r\nFrom: q@a.nl\r\nbroken line\r\n  and more\r\nB:\r\n\r\nFrom: body\r\n"


def test_append_goes_before_the_body_and_prepend_to_the_top() -> None:
    assert headers.append(b"A: 1\r\n\r\nbody", "B", b"2") == b"A: 1\r\nB: 2\r\n\r\nbody"
    assert headers.append(b"A: 1", "B", b"2") == b"A: 1\r\nB: 2\r\n"
    assert headers.append(b"\r\nbody", "B", b"2") == b"B: 2\r\n\r\nbody"
    assert headers.prepend(b"\r\nbody", "B", b"2") == b"B: 2\r\n\r\nbody"


def test_nothing_to_remove_is_the_same_object() -> None:
    assert headers.remove(MAIL, "Sender") is MAIL


@pytest.mark.parametrize(
    "value", [b"x\r\nBcc: a@b", b"x\nBcc: a@b", b"x\rBcc: a@b", b"x\r\n\r\nbody", b"x\r\n \r\n y", b"\0"]
)
def test_a_value_cannot_bring_another_field(value: bytes) -> None:
    with pytest.raises(ValueError, match="holds a line ending"):
        headers.prepend(MAIL, "Subject", b"ok " + value + b" ok")


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "É"])
def test_a_name_must_be_one(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        headers.field_line(name, b"x")


def test_long_values_are_folded_and_unfold_to_the_same() -> None:
    value = b", ".join(b"user%d@example.org" % number for number in range(100))
    line = headers.field_line("Bcc", value)
    assert max(map(len, line.split(b"\r\n"))) <= 78
    assert headers.unfold(line) == b"Bcc: " + value + b"\r\n"


@given(MAILS)
def test_fields_cover_the_block_without_a_gap(mail: bytes) -> None:
    block, rest = headers.split(mail)
    found = headers.fields(mail)
    assert block + rest == mail
    assert b"".join(mail[field.start : field.end] for field in found) == block
    by_name = tuple(field.value for field in found if field.name.lower() == "from")
    assert headers.values(mail, "From") == by_name


@given(MAILS)
def test_edits_leave_all_other_fields_and_the_body(mail: bytes) -> None:
    body = headers.split(mail)[1]
    others = [field.value for field in headers.fields(mail) if field.name.lower() != "from"]
    changed = headers.set_field(mail, "From", b"new@a.nl")
    assert headers.values(changed, "From") == (b" new@a.nl",)
    assert headers.split(changed)[1] == body
    assert [field.value for field in headers.fields(changed) if field.name.lower() != "from"] == others


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a@b.nl", [("", "a@b.nl")]),
        (
            b' "Jan @ acme, BV" <jan@acme.nl>, p@x.nl (Piet (de) Boer)',
            [("Jan @ acme, BV", "jan@acme.nl"), ("Piet (de) Boer", "p@x.nl")],
        ),
        (b"undisclosed-recipients:;", []),
        (b"Klanten: A <a@x.nl>, b@x.nl;, c@x.nl", [("A", "a@x.nl"), ("", "b@x.nl"), ("", "c@x.nl")]),
        (b"<@relay.nl,@other.nl:jan@x.nl>", [("", "jan@x.nl")]),
        (b"=?iso-8859-1?q?Andr=E9?=\r\n =?utf-8?b?w6k=?= <a@b.nl>", [("Andréé", "a@b.nl")]),
        (b"Andr\xe9 <a@b.nl>", [("André", "a@b.nl")]),
        (b'"Jan <jan@x.nl>', [('"Jan', "jan@x.nl")]),
        (b"Jan jan@x.nl", [("Jan", "jan@x.nl")]),
        (b"jan @ x.nl", [("", "jan@x.nl")]),
        (b'"a b, c"@x.nl', [("", '"a b, c"@x.nl')]),
        (b"<jan@x.nl, piet@y.nl", [("", "jan@x.nl"), ("", "piet@y.nl")]),
        (b"A <a@x.nl> B <b@x.nl>", [("A B", "a@x.nl"), ("", "b@x.nl")]),
        (b"info@a.nl <info@b.nl>", [("info@a.nl", "info@b.nl")]),
        (b"a@[IPv6:::1], (only a comment), <>, nobody, @x.nl, a@", [("", "a@[IPv6:::1]")]),
        (b"=?utf-8?q?a=0D=0ABcc:_x?= <a@b.nl>", [("a Bcc: x", "a@b.nl")]),
        (b'"back\\\\slash \\"quote\\"" <a@b.nl>', [('back\\slash "quote"', "a@b.nl")]),
        (b"a@b.nl; c@d.nl", [("", "a@b.nl"), ("", "c@d.nl")]),
        ("jan@müller.nl".encode(), [("", "jan@müller.nl")]),
    ],
)
def test_address_lists(raw: bytes, expected: list[tuple[str, str]]) -> None:
    assert addresses(raw) == tuple(Mailbox(*pair) for pair in expected)


@given(st.binary(max_size=200) | st.text('<>@,;:"\\()[] \r\nab=?éq', max_size=60).map(str.encode))
@example(b'"' * 50 + b"(" * 50)
def test_reading_addresses_never_raises_and_keeps_control_characters_in(raw: bytes) -> None:
    assert b"".join(token.raw for token in tokens(raw)) == raw
    for mailbox in addresses(raw):
        assert "@" in mailbox.address
        assert not any(character < " " for character in mailbox.name + mailbox.address)
    assert encode_names(encode_names(raw)) == encode_names(raw)


def test_reading_hostile_addresses_takes_linear_time() -> None:
    for hostile in (b'"\\' * 100_000, b"(" * 200_000, b"<" * 200_000, b"<@a," * 50_000, b"=?a?q?" * 40_000):
        assert addresses(hostile) == ()


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=80))
def test_a_name_is_read_as_it_was_written(name: str) -> None:
    assert addresses(write_mailbox(Mailbox(name, "a@b.nl"))) == (Mailbox(" ".join(name.split()), "a@b.nl"),)


@pytest.mark.parametrize(
    "name", ["André van Één", 'De "echte", Jan @ thuis', "", "O'Brien", "日本語 テスト" * 12, "=?x?=", "a" * 90]
)
def test_a_name_survives_the_wire(name: str) -> None:
    raw = write_mailbox(Mailbox(name, "a@b.nl"))
    assert raw.isascii()
    assert max(map(len, raw.split(b"\r\n"))) <= 76
    assert addresses(raw) == (Mailbox(name, "a@b.nl"),)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=120))
def test_encoded_text_is_read_as_it_was_written(text: str) -> None:
    raw = encode(text)
    assert decode(raw) == text
    assert all(len(word) <= 64 for word in raw.split(b"\r\n "))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "é"),
        (b"=?iso-8859-1?q?=80?=", "€"),
        (b"=?made-up?q?=C3=A9?=", "é"),
        (b"=?utf-8?b?w6k?= x", "é x"),
        (b"=?utf-8*nl?q?a?=", "a"),
        (b"=?utf-8?q?open", "=?utf-8?q?open"),
        (b"=?utf-8?b?!?=", ""),
        (b"=?idna?q?" + b"=2E" * 3 + b"?=", "..."),
    ],
)
def test_encoded_words_as_they_come(raw: bytes, text: str) -> None:
    assert decode(raw) == text


@given(st.binary(max_size=120) | st.text("=?utf-8bq _éa", max_size=40).map(lambda text: text.encode("latin-1")))
def test_reading_text_never_raises(raw: bytes) -> None:
    assert not any(character < " " for character in decode(raw))


@pytest.mark.parametrize(
    "address", ["a@b.nl>\r\nBcc: <x@y.nl", "a@b.nl, x@y.nl", "a\0@b.nl", '"a\r\n"@b.nl', "a@b@c.nl", "x"]
)
def test_an_address_stays_one_address(address: str) -> None:
    raw = write_mailbox(Mailbox("N", address))
    assert b"\r" not in raw
    assert b"\n" not in raw
    assert raw.count(b"<") == raw.count(b">") == 1
    assert len(addresses(raw)) <= 1
