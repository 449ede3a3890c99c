"""8-bit parts made fit for every hop: what a reader sees stays, and so does every byte that was fit already."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.headers import value
from routing.transfer_encoding import seven_bit

TEXT = "Beste José,\r\n\r\nDe offerte à € 12,50 staat klaar: =20 is geen spatie.  \r\n.\r\nFrom here.\r\n".encode()
BINARY = bytes(range(128, 256)) * 3


def mail(*lines: bytes) -> bytes:
    return b"\r\n".join((b"From: info@acme.nl", b"MIME-Version: 1.0", *lines))


def plain(body: bytes, encoding: bytes = b"8bit") -> bytes:
    return mail(b"Content-Type: text/plain; charset=utf-8", b"Content-Transfer-Encoding: " + encoding, b"", body)


def leaves(content: bytes) -> list[bytes]:
    """What a reader that is not ours decodes, part by part."""
    parsed = email.message_from_bytes(content, policy=email.policy.SMTP)
    return [bytes(part.get_payload(decode=True)) for part in parsed.walk() if not part.is_multipart()]


def test_text_that_is_mostly_ascii_becomes_quoted_printable() -> None:
    encoded = seven_bit(plain(TEXT))
    assert encoded.isascii()
    assert value(encoded, "Content-Transfer-Encoding") == b" quoted-printable"
    assert leaves(encoded) == [TEXT]
    assert b"De offerte =C3=A0 =E2=82=AC 12,50" in encoded


def test_other_text_becomes_base64() -> None:
    text = "Ελληνικά και ρωσικά\r\n".encode()
    encoded = seven_bit(plain(text))
    assert value(encoded, "Content-Transfer-Encoding") == b" base64"
    assert leaves(encoded) == [text]


def test_only_the_8_bit_parts_of_a_multipart_change() -> None:
    head = (b'Content-Type: multipart/mixed;\r\n boundary="a b"', b"Content-Transfer-Encoding: 8bit", b"", b"Preamble")
    first = b"--a b\r\nContent-Type: text/plain\r\nX-Odd:  kept \r\n\r\nAscii  \r\n\r\n"
    second = b"--a b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + TEXT
    third = b"--a b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n" + BINARY + b"\r\n"
    end = b"--a b--\r\nEpilogue\r\n"
    encoded = seven_bit(mail(*head, first + second + third + end))
    assert encoded.isascii()
    assert encoded.startswith(mail(*head, first))
    assert encoded.endswith(end)
    assert leaves(encoded) == [b"Ascii  \r\n", TEXT.removesuffix(b"\r\n"), BINARY]


@pytest.mark.parametrize(
    "content",
    [
        plain(b"Ascii only.\r\n"),
        plain(b"=C3=A9 and \xe9\r\n", b"quoted-printable"),
        mail("Subject: één".encode(), b"", b"Ascii below an 8-bit field.\r\n"),
        mail(b"Content-Type: multipart/signed; boundary=x", b"", b"--x", b"", TEXT, b"--x--", b""),
        mail(b"Content-Type: message/rfc822", b"", b"From: a@b.nl", b"", TEXT),
        mail(b"Content-Type: multipart/mixed", b"", b"--x", b"", TEXT, b"--x--", b""),
    ],
    ids=["ascii", "declared-encoded", "field-alone", "signed", "forwarded", "no-boundary"],
)
def test_what_is_fit_or_must_not_be_touched_is_the_same_object(content: bytes) -> None:
    assert seven_bit(content) is content


BODY = st.lists(
    st.sampled_from([b"a", b"\xe9", b" ", b"\t", b"=", b".", b"\r\n", b"From ", b"--x", b"x" * 90]), max_size=30
).map(b"".join)


@given(BODY, st.sampled_from([b"text/plain", b"text/html", b"image/png", b""]))
def test_a_reader_sees_the_same_bytes(body: bytes, kind: bytes) -> None:
    content = mail(*([b"Content-Type: " + kind] if kind else []), b"", body + b"\r\n")
    encoded = seven_bit(content)
    assert encoded.isascii()
    assert leaves(encoded) == [body + b"\r\n"]
    assert seven_bit(encoded) is encoded
    assert max(map(len, encoded.split(b"\r\n"))) <= 998 or max(map(len, content.split(b"\r\n"))) > 998


def test_a_mail_of_nothing_but_parts_is_left_alone() -> None:
    flood = b"--x\r\n\r\n\xe9\r\n" * 100_000
    content = mail(b"Content-Type: multipart/mixed; boundary=x", b"", flood)
    assert seven_bit(content) is content
