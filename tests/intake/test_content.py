"""Where a mail ends on the wire: only at CRLF "." CRLF, however the octets are cut into chunks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.content import Content

NOT_AN_END = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "LF.CR": b"\n.\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRLF.NULCRLF": b"\r\n.\x00\r\n",
    "CRLF. CRLF": b"\r\n. \r\n",
    "CRLFCR.CRLF": b"\r\n\r.\r\n",
    "NEL.NEL": b"\x85.\x85",
}

octets = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"\x00", b"\xe9"]), max_size=40).map(
    b"".join
)


def in_chunks(content: Content, wire: bytes, sizes: list[int]) -> bytes | None:
    """Feed all of it, cut at `sizes` in turn; what was handed back, with all that was not fed yet."""
    position = 0
    while position < len(wire):
        size = sizes[position % len(sizes)] if sizes else len(wire)
        rest = content.feed(wire[position : position + size])
        position += size
        if rest is not None:
            return rest + wire[position:]
    return None


def stuffed(message: bytes) -> bytes:
    """As a client sends it (RFC 5321 4.5.2), a dot more at the begin of a line, whether LF or CRLF ended the last."""
    return b"".join(b"." + line if line.startswith(b".") else line for line in re.findall(rb"[^\n]*\n", message))


def by_lines(wire: bytes) -> tuple[bytes, bytes] | None:
    """The plainest possible reader: message and what follows; None when no end comes. The truth to compare with."""
    message = b""
    while b"\r\n" in wire:
        line, _, wire = wire.partition(b"\r\n")
        if line == b".":
            return message, wire
        message += b"\n".join(unstuffed(part) for part in line.split(b"\n")) + b"\r\n"
    return None


def unstuffed(line: bytes) -> bytes:
    return line[1:] if line.startswith(b".") and line != b"." else line


@pytest.mark.parametrize("sequence", NOT_AN_END.values(), ids=NOT_AN_END.keys())
def test_nothing_else_is_an_end(sequence: bytes) -> None:
    smuggled = b"hello" + sequence + b"MAIL FROM:<evil@acme.nl>\r\n"
    for size in (1, 2, 3, 1000):
        content = Content(10_000)
        assert in_chunks(content, smuggled + b".\r\nQUIT\r\n", [size]) == b"QUIT\r\n"
        message = content.message()
        assert message is not None
        assert message.endswith(b"MAIL FROM:<evil@acme.nl>\r\n")


@given(octets, octets, st.lists(st.integers(1, 7), max_size=5))
def test_it_reads_as_a_reader_of_lines_does(before: bytes, after: bytes, sizes: list[int]) -> None:
    wire = before + b"\r\n.\r\n" + after
    expected = by_lines(wire)
    content = Content(10_000)
    rest = in_chunks(content, wire, sizes)
    assert expected is not None
    assert (content.message(), rest) == expected


@given(octets, st.lists(st.integers(1, 9), max_size=5))
def test_a_mail_comes_back_as_it_was_sent(message: bytes, sizes: list[int]) -> None:
    message += b"\r\n"
    content = Content(10_000)
    assert in_chunks(content, stuffed(message) + b".\r\nNOOP\r\n", sizes) == b"NOOP\r\n"
    assert content.message() == message


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_an_empty_mail(size: int) -> None:
    content = Content(100)
    assert in_chunks(content, b".\r\nQUIT\r\n", [size]) == b"QUIT\r\n"
    assert content.message() == b""


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_client_that_only_speaks_lf_can_end_a_mail(end: bytes, size: int) -> None:
    content = Content(100, lf_client=True)
    line_end = end.partition(b".")[0]
    assert in_chunks(content, b"..hello\n..dot\n.\rno end" + end + b"QUIT\n", [size]) == b"QUIT\n"
    assert content.message() == b".hello\n.dot\n\rno end" + line_end


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_the_limit_counts_octets_without_transparency_dots(size: int) -> None:
    just = b".\r\n" * 100
    for limit, expected in ((300, just), (299, None)):
        content = Content(limit)
        assert in_chunks(content, stuffed(just) + b".\r\n", [size]) == b""
        assert content.message() == expected


@pytest.mark.parametrize("piece", [b"\r\n..", b"\n..\n", b"\n.\n", b"\n.\n..\n.\n"])
def test_a_mail_of_dots_is_read_in_seconds(piece: bytes) -> None:
    flood = piece * ((16 << 20) // len(piece))
    content = Content(1 << 30)
    assert in_chunks(content, flood + b"\r\n.\r\n", [1 << 18]) == b""
    assert content.message() == flood.replace(b"..", b".") + b"\r\n"


def test_what_is_over_the_limit_is_not_held() -> None:
    content = Content(1000)
    for _ in range(1000):
        assert content.feed(b"x" * 1000) is None
        assert content.size <= 2400
    assert content.feed(b"\r\n.\r\nRSET\r\n") == b"RSET\r\n"
    assert content.message() is None
