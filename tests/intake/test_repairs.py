"""Repairs of legacy mail: the golden mails, each repair by name, and what must hold for any bytes at all."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.long_lines import has_long_line
from intake.repairs import LARGEST_HEADER, only_crlf, our_hop, repair, trace_header
from routing.encoded_words import decode
from routing.headers import fields, mailboxes, split, value, values

MAILS = Path(__file__).parents[1] / "cases" / "mails"
NOW = 1793610000.0
HEAD = b"From: info@acme.nl\r\nDate: Mon, 2 Nov 2026 09:00:00 +0100\r\nMessage-ID: <x@acme.nl>\r\n"
REPAIRS = {
    "folded": (),
    "groups": (),
    "inline-image": (),
    "line-feed-only": ("line_endings",),
    "long-lines": ("long_headers", "long_lines"),
    "mbox-from": ("leading_bytes",),
    "mixed-line-endings": ("line_endings", "leading_bytes"),
    "no-blank-line": ("blank_line", "date", "message_id"),
    "quoted-at": (),
    "raw-utf-8": ("raw_headers",),
    "raw-windows-1252": ("message_id", "charset", "mime_version", "raw_headers"),
    "several-from": (),
}


def mended(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    done = repair(content, NOW, "relay.example", "01M8V6WXYZABC")
    assert done is not None
    return done.content, done.repairs


@pytest.mark.parametrize("name", REPAIRS)
def test_golden_mails(name: str) -> None:
    content, names = mended((MAILS / f"{name}.eml").read_bytes())
    assert content == (MAILS / f"{name}.repaired").read_bytes()
    assert names == REPAIRS[name]


def test_every_golden_mail_is_named_here() -> None:
    assert set(REPAIRS) == {path.stem for path in MAILS.glob("*.eml")}


def test_a_conforming_mail_is_the_same_object_with_its_message_id() -> None:
    content = HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xa9\r\n"
    done = repair(content, NOW, "relay.example", "1")
    assert done.content is content
    assert done.message_id == "<x@acme.nl>"


def test_a_missing_message_id_comes_from_the_queue_id() -> None:
    content = b"From: a@b.nl\r\nMessage-ID:\r\nDate: x\r\n\r\n"
    done = repair(content, NOW, "relay.example", "01M8V6WXYZABC")
    assert done.message_id == "<01M8V6WXYZABC@relay.example>"
    assert values(done.content, "Message-ID") == (b" <01M8V6WXYZABC@relay.example>",)
    assert repair(content, NOW + 999, "relay.example", "01M8V6WXYZABC") == done


def test_a_missing_date_is_now() -> None:
    assert value(mended(b"From: a@b.nl\r\n\r\n")[0], "Date") == b" Mon, 2 Nov 2026 09:00:00 +0000"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\r\r\nb", b"a\r\nb\r\n"),
        (b"a\r\n\n\rb\r\n", b"a\r\n\r\n\r\nb\r\n"),
        (b"\n.\n", b"\r\n.\r\n"),
    ],
)
def test_line_endings(raw: bytes, body: bytes) -> None:
    assert mended(HEAD + b"\r\n" + raw) == (HEAD + b"\r\n" + body, ("line_endings",))


@pytest.mark.parametrize(
    ("raw", "body"), [(b"a\0b\r\n", b"ab\r\n"), (b"x\r\n\0.\r\0\ny\r\n", b"x\r\n.\r\ny\r\n"), (b"\0", b"")]
)
def test_nul_bytes_go_before_a_server_behind_us_drops_them(raw: bytes, body: bytes) -> None:
    content, names = mended(HEAD + b"X-Padded: naam\0\0\r\n\r\n" + raw)
    assert (content, names[0]) == (HEAD + b"X-Padded: naam\r\n\r\n" + body, "nul_bytes")


@pytest.mark.parametrize("lead", [b"\xef\xbb\xbf", b"From x Mon Nov 2 09:00:00 2026\r\n", b">From x y\r\n\xef\xbb\xbf"])
def test_leading_bytes_go(lead: bytes) -> None:
    assert mended(lead + HEAD + b"\r\nFrom x\r\n") == (HEAD + b"\r\nFrom x\r\n", ("leading_bytes",))


def test_a_from_field_with_a_space_before_the_colon_is_a_field() -> None:
    content = HEAD.replace(b"From:", b"From :") + b"\r\n"
    assert mended(content) == (content, ())


def test_the_first_line_that_is_no_field_begins_the_body() -> None:
    assert mended(HEAD + b"Beste klant,\r\nx: y\r\n") == (HEAD + b"\r\nBeste klant,\r\nx: y\r\n", ("blank_line",))
    content, names = mended(b" only text\r\n")
    assert split(content)[1] == b"\r\n only text\r\n"
    assert names == ("blank_line", "date", "message_id")


def test_a_body_of_raw_bytes_gets_its_charset() -> None:
    content, names = mended(HEAD + b"\r\n\xe9\x80\r\n")
    assert names == ("charset", "mime_version")
    read = email.message_from_bytes(content, policy=email.policy.default)
    assert read.get_content().strip() == "é€"


def test_raw_names_are_encoded_and_addresses_stay() -> None:
    raw = 'To: "Één, Twee" <a@b.nl>, Drié <c@d.nl> (vier é), Groep é: x@y.nl;\r\n'.encode("windows-1252")
    content, names = mended(HEAD + raw + b"\r\n")
    assert names == ("raw_headers",)
    assert content.isascii()
    assert [(box.name, box.address) for box in mailboxes(content, "To")] == [
        ("Één, Twee", "a@b.nl"),
        ("Drié", "c@d.nl"),
        ("", "x@y.nl"),
    ]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Subject: Één\r\n", b" =?utf-8?b?w4nDqW4=?="),
        ("Subject: =?utf-8?q?a?= é\r\n", b" =?utf-8?b?YSDDqQ==?="),
        ("Content-Disposition: inline; filename=é.pdf; size=3\r\n", b" inline; filename*=utf-8''%C3%A9.pdf; size=3"),
        ('Content-Type: text/plain; name="é;\\"x"\r\n', b" text/plain; name*=utf-8''%C3%A9%3B%22x"),
        ("In-Reply-To: <é@x.nl>\r\n", b" <??@x.nl>"),
        ("List-Unsubscribe: <https://x.nl/é>\r\n", b" <https://x.nl/%C3%A9>"),
    ],
)
def test_raw_fields(field: str, expected: bytes) -> None:
    content, names = mended(HEAD + b"MIME-Version: 1.0\r\n" + field.encode() + b"\r\n")
    assert "raw_headers" in names
    assert value(content, field.partition(":")[0]) == expected


def test_a_long_subject_without_spaces_is_encoded() -> None:
    content, names = mended(HEAD + b"Subject: " + b"x" * 2000 + b"\r\n\r\n")
    assert names == ("long_headers",)
    assert not has_long_line(content)
    assert decode(value(content, "Subject") or b"") == "x" * 2000


def test_a_long_field_that_offers_no_place_stays() -> None:
    content = HEAD + b"X-Token: " + b"x" * 2000 + b"\r\n\r\n"
    folded, names = mended(content)
    assert (folded.replace(b"\r\n ", b" "), names) == (content, ("long_headers",)) or (folded, names) == (content, ())


@pytest.mark.parametrize("line", [b"x" * 5000, "é ".encode() * 2000, "日本".encode() * 900, b"a=b \t" * 900])
def test_a_long_body_is_encoded_and_reads_the_same(line: bytes) -> None:
    body = b"first \r\n.\r\n" + line + b"\r\nlast\r\n\r\n"
    head = HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    content, names = mended(head + b"\r\n" + body)
    assert names == ("long_lines",)
    assert not has_long_line(content)
    assert only_crlf(content)
    assert email.message_from_bytes(content).get_payload(decode=True) == body


def test_a_long_body_without_mime_gets_it() -> None:
    content, names = mended(HEAD + b"\r\n" + b"x" * 999 + b"\r\n")
    assert names == ("long_lines",)
    assert value(content, "MIME-Version") == b" 1.0"
    assert mended(HEAD + b"\r\n" + b"x" * 998 + b"\r\n")[1] == ()


def test_only_the_long_leaf_parts_are_encoded() -> None:
    before, after = (MAILS / "long-lines.eml").read_bytes(), (MAILS / "long-lines.repaired").read_bytes()
    parts = [email.message_from_bytes(raw, policy=email.policy.default) for raw in (before, after)]
    read = [[part.get_payload(decode=True) for part in whole.iter_parts()] for whole in parts]
    assert read[0] == read[1]
    encodings = [part["Content-Transfer-Encoding"] for part in parts[1].iter_parts()]
    assert encodings == ["quoted-printable", None, "base64"]


@pytest.mark.parametrize(
    "mime",
    [
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: Quoted-Printable\r\n",
        b'Content-Type: multipart/signed; boundary="b"; protocol="application/pkcs7-signature"\r\n',
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: multipart/mixed\r\n",
    ],
)
def test_what_cannot_be_encoded_safely_stays(mime: bytes) -> None:
    body = b"--b\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 3000 + b"\r\n--b--\r\n"
    content = HEAD + b"MIME-Version: 1.0\r\n" + mime + b"\r\n" + body
    assert mended(content) == (content, ())


LINES = (
    b"From: a@b",
    b"To: \xe9 <x@y>",
    b"Date: x",
    b"Message-ID: <y>",
    b"MIME-Version: 1.0",
    b"From x",
    b"--b",
    b"--b--",
)
TYPES = (b"Content-Type: multipart/mixed; boundary=b", b"Content-Type: text/plain", b"Subject: ")
BITS = (
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"x" * 1000,
    b"\xe9",
    b"\xef\xbb\xbf",
    b"\0",
    b":",
    b".",
    b'"',
    b"(",
    b"<",
)
PIECES = st.sampled_from((*LINES, *TYPES, *BITS))


@given(st.lists(PIECES, max_size=25).map(b"".join) | st.binary(max_size=300))
def test_any_bytes_come_out_sound_and_a_second_pass_changes_nothing(raw: bytes) -> None:
    content, _ = mended(raw)
    assert only_crlf(content)
    assert content.endswith(b"\r\n")
    assert b"\r\n\r\n" in content or content.startswith(b"\r\n")
    assert all(field.name for field in fields(content))
    assert (value(content, "Date") or b"").strip()
    assert (value(content, "Message-ID") or b"").strip() or len(values(content, "Message-ID")) > 1
    assert mended(content) == (content, ())


@given(st.lists(st.binary(max_size=200).filter(lambda raw: not set(raw) & {0, 10, 13}), max_size=8))
def test_the_body_of_a_conforming_mail_keeps_every_byte(lines: list[bytes]) -> None:
    head = HEAD + b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    content = head + b"".join(line + b"\r\n" for line in lines)
    assert repair(content, NOW, "relay.example", "1").content is content


def test_hostile_mail_is_mended_in_linear_time() -> None:
    for piece in (b"\r", b"\n", b'"\\', b'\\"', b"(", b"<", b"=?a?q?", b"\r\n ", b"--b\r\n"):
        flood = piece * (120_000 // len(piece))
        mended(b"To: \xe9" + flood)
        mended(HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\nX: \xe9 ' + flood + b"\r\n\r\n" + flood)
        mended(HEAD + b'Content-Type: x; \xe9="' + flood + b"\r\n\r\n" + b"x" * 1000)


def test_white_space_without_end_is_folded_in_linear_time() -> None:
    for name in (b"From", b"Subject", b"X-A"):
        mended(HEAD + name + b":" + b" \t" * (LARGEST_HEADER // 2 - 200) + b"\r\n\r\nText.\r\n")


def test_a_header_beyond_the_limit_is_not_read() -> None:
    for piece in (b"X-A: \xe9\r\n", b"X-A: b\r\n", b"X-A: b\n"):
        for flood, read in ((LARGEST_HEADER // 2, True), (LARGEST_HEADER + 8, False)):
            content = HEAD + piece * ((flood - len(HEAD)) // len(piece)) + b"\r\nText.\r\n"
            assert (repair(content, NOW, "relay.example", "1") is not None) is read


def test_a_long_mail_of_short_lines_or_dots_is_mended_in_seconds() -> None:
    for piece in (b".\r\n", b"\r\r\n", b"\n", b"--b\r\n\r\nx\r\n"):
        flood = piece * ((8 << 20) // len(piece))
        mended(HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + flood + b"y" * 1000)


def traced(**changes: str) -> bytes:
    said = {"peer": "127.0.0.1", "helo": "callpro", "hostname": "relay.example", "queue_id": "01M", "protocol": "ESMTP"}
    return trace_header(**{**said, **changes}, now=NOW)


def test_the_trace_header() -> None:
    expected = b"Received: from callpro ([127.0.0.1])\r\n\tby relay.example with ESMTP id 01M;\r\n\t"
    assert traced() == expected + b"Mon, 2 Nov 2026 09:00:00 +0000\r\n"
    assert b"([IPv6:::1])" in traced(peer="::1")
    assert b"from [127.0.0.1] (" in traced(helo="")


@given(st.text(max_size=300), st.text(max_size=30))
def test_nothing_said_by_the_client_gets_out_of_the_trace_header(helo: str, peer: str) -> None:
    line = traced(helo=helo, peer=peer)
    assert [field.name for field in fields(line)] == ["Received"]
    assert line.count(b"(") == line.count(b")") == line.count(b";") == 1


@pytest.mark.parametrize("hostname", ["relay.acme.nl", "call_pro.acme.nl", f"{'r' * 60}.acme.nl"])
def test_our_own_received_field_is_known_again_however_it_was_folded(hostname):
    ours, other = our_hop(hostname), our_hop("elay.acme.nl")
    for length in range(1, 100):
        trace = trace_header(
            peer="203.0.113.10", helo="x" * length, hostname=hostname, queue_id="A1", protocol="ESMTPS", now=0.0
        )
        assert len(ours.findall(trace.replace(b"Received", b"RECEIVED"))) == 1
        assert not other.search(trace)
