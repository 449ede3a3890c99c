"""What legacy programs get wrong in a mail, mended on raw bytes: pure, named, and a second pass changes nothing.

A conforming mail comes back as the same object. Must never drop text, raise on anything a mail holds, or touch a
conforming part of a body.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import gmtime
from typing import Final

from intake.long_lines import fold_headers, has_long_line, wrap_body
from intake.raw_headers import encode_headers
from routing.headers import append, field_line, fields, header_end, set_field, values

_LEADING: Final = re.compile(rb"(?:\xef\xbb\xbf|>?From (?![ \t]*:)[^\r\n]*\r\n)+")
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_NO_FIELD: Final = re.compile(rb"\n(?![ \t]|[!-9;-~]+[ \t]*:)")
_DATE: Final = re.compile(rb"\ndate:[ \t]*[^ \t\r]")
_MESSAGE_ID: Final = re.compile(rb"\nmessage-id:[ \t]*+([^ \t\r]++)")
_MIME_VERSION: Final = re.compile(rb"\nmime-version:[ \t]*[^ \t\r]")
_CR_RUN: Final = re.compile(rb"(?<!\r)\r++\n")

LARGEST_HEADER: Final = 128 << 10
"""Octets of a header block. 500 recipients take 40 KB; to read much more would keep every other client waiting."""

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HELO: Final = re.compile(r"[^A-Za-z0-9.:_\[\]-]")

_Step = tuple[str, Callable[[bytes], bytes]]


@dataclass(frozen=True, slots=True)
class Repaired:
    """The mail and the names of what was mended, in order; the same `content` object when nothing was. `message_id` is
    the value of its Message-ID field, with the angle brackets.
    """

    content: bytes
    repairs: tuple[str, ...]
    message_id: str


def repair(content: bytes, now: float, hostname: str, queue_id: str) -> Repaired | None:
    """The mail with CRLF line endings, a header block that parses, Date, Message-ID, MIME-Version, ASCII fields and
    lines of at most 998 octets, as far as each can be had without loss. None when its header is over LARGEST_HEADER.

    `now` in unix seconds is for a missing Date; `queue_id` and `hostname` make a missing Message-ID, so that it is the
    same at every delivery.
    """
    if (message_id := _conforming(content)) is not None:
        return Repaired(content, (), message_id) if header_end(content) <= LARGEST_HEADER else None
    frame: tuple[_Step, ...] = (
        ("nul_bytes", drop_nul),
        ("line_endings", mend_line_endings),
        ("leading_bytes", drop_leading_bytes),
        ("blank_line", insert_blank_line),
    )
    inside: tuple[_Step, ...] = (
        ("date", lambda mail: _ensure(mail, "Date", date_text(now))),
        ("message_id", lambda mail: _ensure(mail, "Message-ID", f"<{queue_id}@{_domain_text(hostname)}>")),
        ("charset", name_charset),
        ("mime_version", add_mime_version),
        ("raw_headers", encode_headers),
        ("long_headers", fold_headers),
        ("long_lines", wrap_body),
    )
    content, names = _mended(content, frame)
    if header_end(content) > LARGEST_HEADER:
        return None
    content, more = _mended(content, inside)
    return Repaired(content, names + more, _message_id(content))


def _mended(content: bytes, steps: tuple[_Step, ...]) -> tuple[bytes, tuple[str, ...]]:
    names: list[str] = []
    for name, step in steps:
        mended = step(content)
        if mended != content:
            content = mended
            names.append(name)
    return content, tuple(names)


def _conforming(content: bytes) -> str | None:
    """The Message-ID of a mail that no repair would change, else None: the quick look at every mail, which copies
    nothing but the header block.
    """
    end = content.find(b"\r\n\r\n")
    if end < 0 or b"\0" in content or not content.endswith(b"\r\n"):
        return None
    if not only_crlf(content) or has_long_line(content):
        return None
    block = b"\n" + content[:end]
    if not block.isascii() or block[1:2] in (b" ", b"\t") or _NO_FIELD.search(block):
        return None
    lowered = block.lower()
    found = _MESSAGE_ID.search(lowered)
    if found is None or not _DATE.search(lowered) or not (_has_mime(lowered) or _needs_no_mime(lowered, content)):
        return None
    return block[found.start(1) : found.end(1)].decode("ascii")


def _needs_no_mime(lowered: bytes, content: bytes) -> bool:
    return b"\ncontent-" not in lowered and content.isascii()


def _message_id(content: bytes) -> str:
    words = (word for value in values(content, "Message-ID") for word in value.split())
    return next(words, b"").decode("ascii", "replace")


def _has_mime(block: bytes) -> bool:
    return b"\ncontent-type:" in block and _MIME_VERSION.search(block) is not None


def only_crlf(content: bytes) -> bool:
    """True when every line ends in CRLF. The newline decoder is the fastest exact count of line endings at hand."""
    seen = io.IncrementalNewlineDecoder(None, translate=False)
    seen.decode(content.decode("latin-1"), final=True)
    return seen.newlines == "\r\n"


def drop_nul(content: bytes) -> bytes:
    """Without NUL (RFC 5322 2.2 and 3.5 allow none): a server behind us that drops it would see CRLF.CRLF where we saw
    CRLF, NUL and a dot, and take one mail for two.
    """
    return content.replace(b"\0", b"")


def mend_line_endings(content: bytes) -> bytes:
    """Bare CR and bare LF become CRLF, CR CR LF too (RFC 5322 2.3); the last line gets its CRLF."""
    if not content.endswith(b"\r\n"):
        content += b"\r\n" if content[-1:] not in (b"\r", b"\n") else b""
    if only_crlf(content):
        return content
    content = content.replace(b"\r\n", b"\n")  # most of the work, and a hundred times faster than the pattern
    if b"\r\n" in content:
        content = _CR_RUN.sub(b"\n", content)
    return content.replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def drop_leading_bytes(content: bytes) -> bytes:
    """Without a byte order mark and the `From ` line of an mbox file in front of the first field."""
    found = _LEADING.match(content)
    return content[found.end() :] if found else content


def insert_blank_line(content: bytes) -> bytes:
    """The header block ends where the first line stands that is no field; an empty line is put there if none is."""
    found = _NO_FIELD.search(content) if _FIELD.match(content) else None
    end = found.start() + 1 if found else 0
    return content if content.startswith(b"\r\n", end) else content[:end] + b"\r\n" + content[end:]


def _ensure(content: bytes, name: str, text: str) -> bytes:
    """One field of that name when there is none, or none with a value."""
    if any(value.strip() for value in values(content, name)):
        return content
    return set_field(content, name, text.encode("ascii"))


def name_charset(content: bytes) -> bytes:
    """A Content-Type for an 8-bit body that has none: UTF-8 when it is, else windows-1252 (RFC 2045 5.2 says ASCII)."""
    end = header_end(content)
    if content.isascii() or content[end:].isascii() or values(content, "Content-Type"):
        return content
    charset = b"utf-8" if _is_utf8(content[end:]) else b"windows-1252"
    content = append(content, "Content-Type", b"text/plain; charset=" + charset)
    return content if values(content, "Content-Transfer-Encoding") else _eight_bit(content)


def _eight_bit(content: bytes) -> bytes:
    return append(content, "Content-Transfer-Encoding", b"8bit")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def add_mime_version(content: bytes) -> bytes:
    """MIME-Version where a field of MIME is present without it (RFC 2045 4)."""
    if not any(field.name.lower().startswith("content-") for field in fields(content)):
        return content
    return _ensure(content, "MIME-Version", "1.0")


def date_text(now: float) -> str:
    """Unix seconds as a date of RFC 5322 3.3, in UTC."""
    return _date_of_second(int(now))


@lru_cache(maxsize=2)
def _date_of_second(second: int) -> str:
    at = gmtime(second)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04} {clock} +0000"


def trace_header(*, peer: str, helo: str, hostname: str, queue_id: str, protocol: str, now: float) -> bytes:
    """The Received field of this hop (RFC 5321 4.4), ending in CRLF.

    `peer` is the client's IP address, `helo` the name it gave, `protocol` a word of RFC 3848. What the client said is
    reduced to the characters of a name, and the recipients are left out: they may be blind copies.
    """
    return b"%b%b;\r\n\t%b\r\n" % (
        _trace_start(peer, helo, hostname, protocol, len(queue_id)),
        queue_id.encode("ascii"),
        date_text(now).encode("ascii"),
    )


def our_hop(hostname: str) -> re.Pattern[bytes]:
    """What is found once in each Received field of the relay with that name, however it was folded."""
    return re.compile(rb"\bby\s+%b\s+with\s" % re.escape(_domain_text(hostname).encode("ascii")), re.IGNORECASE)


@lru_cache(maxsize=256)
def _trace_start(peer: str, helo: str, hostname: str, protocol: str, id_octets: int) -> bytes:
    """Up to the id, which is the same for all mails of a client. It ends where the longest line begins its id."""
    literal = _address_literal(peer)
    name = _HELO.sub("?", helo)[:255] or literal
    mark = "x" * id_octets + ";"
    start = f"from {name} ({literal})\r\n\tby {_domain_text(hostname)} with {protocol} id {mark}"
    return field_line("Received", start.encode("ascii"))[: -len(mark) - 2]


def _address_literal(peer: str) -> str:
    try:
        address = ip_address(peer)
    except ValueError:
        return "unknown"
    return f"[IPv6:{address.compressed}]" if isinstance(address, IPv6Address) else f"[{address}]"


def _domain_text(hostname: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", hostname)[:255] or "localhost"
