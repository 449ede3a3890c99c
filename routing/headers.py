"""The header block of a mail, read and edited on raw bytes (RFC 5322 2.2), CRLF line endings.

Every function takes a whole mail or only its header block (`split`): to make several edits, edit the block and join
once. Must never drop bytes it does not understand, and never write a field that could smuggle in another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from routing.addresses import Mailbox, addresses

LINE_TARGET: Final = 78
"""Lines are folded to this many octets where white space allows (RFC 5322 2.1.1)."""

_NAME: Final = re.compile(r"[!-9;-~]+")
_BREAK: Final = re.compile(rb"(?<![ \t])[ \t]+[^ \t]+")
_BCC: Final = re.compile(rb"[ \t]*(?:resent-)?bcc\s*:", re.IGNORECASE)
_UNSAFE: Final = re.compile(rb"\r\n(?![ \t]+[^ \t\r\n])|\r(?!\n)|(?<!\r)\n|\x00")


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it stands: `name` as written, `value` all behind the colon with its folding but without the last
    CRLF; `content[start:end]` is the whole field with its CRLF. A line that is no field has the name "".
    """

    name: str
    value: bytes
    start: int
    end: int


def header_end(content: bytes) -> int:
    """Where the header block ends: behind the CRLF of its last field, before the empty line."""
    if content.startswith(b"\r\n"):
        return 0
    found = content.find(b"\r\n\r\n")
    return len(content) if found < 0 else found + 2


def split(content: bytes) -> tuple[bytes, bytes]:
    """The header block and the rest (the empty line and the body). Joined they are `content` again."""
    end = header_end(content)
    return content[:end], content[end:]


def fields(content: bytes) -> tuple[Field, ...]:
    """All fields of the header block, in order, without a gap between them."""
    found: list[Field] = []
    position, end = 0, header_end(content)
    while position < end:
        start, position = position, _field_end(content, position, end)
        found.append(_read_field(content, start, position))
    return tuple(found)


def _field_end(content: bytes, start: int, end: int) -> int:
    """Behind the first CRLF from `start` on that no white space follows."""
    while (start := content.find(b"\r\n", start, end)) >= 0:
        start += 2
        if content[start : start + 1] not in (b" ", b"\t"):
            return start
    return end


def _read_field(content: bytes, start: int, end: int) -> Field:
    raw = content[start:end].removesuffix(b"\r\n")
    name, colon, value = raw.partition(b":")
    written = name.rstrip(b" \t").decode("latin-1")
    if not colon or not _NAME.fullmatch(written):
        return Field("", raw, start, end)
    return Field(written, value, start, end)


def values(content: bytes, name: str) -> tuple[bytes, ...]:
    """The raw values of every field of that name, in order; the name in any case."""
    return tuple(field.value for field in _named(content, (name,)))


def value(content: bytes, name: str) -> bytes | None:
    """The raw value of the first field of that name, or None."""
    return next((field.value for field in _named(content, (name,))), None)


def mailboxes(content: bytes, *names: str) -> tuple[Mailbox, ...]:
    """The mailboxes of all fields of these names, in the order of the mail."""
    return tuple(mailbox for field in _named(content, names) for mailbox in addresses(field.value))


def _named(content: bytes, names: Iterable[str]) -> list[Field]:
    """The fields of these names, in order. Only lines that begin with a name are read: most edits want one of many."""
    end = header_end(content)
    lowered = b"\r\n" + content[:end].lower()
    found: list[Field] = []
    for name in {name.lower() for name in names}:
        start = lowered.find(b"\r\n" + name.encode("ascii"))
        while start >= 0:
            field = _read_field(content, start, _field_end(content, start, end))
            if field.name.lower() == name:
                found.append(field)
            start = lowered.find(b"\r\n" + name.encode("ascii"), start + 2)
    return sorted(found, key=attrgetter("start"))


def remove(content: bytes, *names: str) -> bytes:
    """`content` without the fields of these names; the same object when there are none."""
    return _cut(content, _named(content, names))


def without(content: bytes, unwanted: re.Pattern[bytes]) -> bytes:
    """`content` without the fields at whose beginning `unwanted` matches, readable as fields or not; the same object
    when there are none.
    """
    return _cut(content, [field for field in fields(content) if unwanted.match(content, field.start)])


def without_bcc(content: bytes) -> bytes:
    """`content` without Bcc and Resent-Bcc, however they are written: they tell who is hidden (RFC 5322 3.6.3)."""
    return without(content, _BCC) if b"bcc" in content[: header_end(content)].lower() else content


def prepend(content: bytes, name: str, value: bytes) -> bytes:
    """`content` with one field more, at the top. Raises ValueError as `field_line` does."""
    return field_line(name, value) + content


def append(content: bytes, name: str, value: bytes) -> bytes:
    """`content` with one field more, at the end of its header block. Raises ValueError as `field_line` does."""
    end = header_end(content)
    gap = b"" if end == 0 or content.endswith(b"\r\n", 0, end) else b"\r\n"
    return b"".join((content[:end], gap, field_line(name, value), content[end:]))


def set_field(content: bytes, name: str, value: bytes) -> bytes:
    """`content` with exactly one field of that name: in place of the first, or at the end of the header block."""
    found = _named(content, (name,))
    if not found:
        return append(content, name, value)
    first = found[0]
    rest = _cut(content, found[1:])
    return b"".join((rest[: first.start], field_line(name, value), rest[first.end :]))


def _cut(content: bytes, unwanted: list[Field]) -> bytes:
    if not unwanted:
        return content
    kept: list[bytes] = []
    position = 0
    for field in unwanted:
        kept.append(content[position : field.start])
        position = field.end
    kept.append(content[position:])
    return b"".join(kept)


def field_line(name: str, value: bytes) -> bytes:
    """A whole field, folded, ending in CRLF. `value` must be ready for the wire (`encode`, `encode_phrase`).

    Raises ValueError when the name is no field name, or the value holds NUL or a line ending that is not a fold.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("not a name of a header field")
    if _UNSAFE.search(value):
        raise ValueError(f"the value of {name} holds a line ending or NUL")
    return fold(name.encode("ascii") + b": " + value.strip(b" \t\r\n")) + b"\r\n"


def unfold(value: bytes) -> bytes:
    """The value on one line, white space kept (RFC 5322 2.2.3)."""
    return re.sub(rb"\r\n(?=[ \t])", b"", value)


def fold(line: bytes) -> bytes:
    """The field broken before white space so that lines keep to LINE_TARGET where they can; unfolding restores it."""
    if max(map(len, line.split(b"\r\n"))) <= LINE_TARGET:
        return line
    line = unfold(line)
    lines: list[bytes] = []
    start = here = len(line) - len(line.lstrip(b" \t"))
    for piece in _BREAK.finditer(line, line.find(b":") + 1):
        if piece.end() - start > LINE_TARGET and here > start and here < piece.end():
            lines.append(line[start:here])
            start = here
        here = piece.end()
    lines.append(line[start:])
    return b"\r\n".join(lines)
