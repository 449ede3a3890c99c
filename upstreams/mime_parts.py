"""A mail taken apart into its MIME entities (RFC 2045, 2046), for providers that take fields instead of a message.

Parts point into the mail's own bytes and copy nothing until asked. Must never guess at a structure it does not
understand: `Unsayable` names what stands in the way, and no text of the mail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from routing.encoded_words import decode, text_of
from routing.headers import Field, fields, unfold

DEPTH_LIMIT: Final = 20
PARTS_LIMIT: Final = 1000
VALUE_LIMIT: Final = 8 * 1024

_PARAMETER: Final = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]+|\\.)*"|[^;]*)', re.DOTALL)
_SECTION: Final = re.compile(r"(?P<name>[^*]+)(?:\*(?P<number>\d{1,3}))?(?P<extended>\*)?")
_MEDIA_TYPE: Final = re.compile(rb"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_NAMES: Final = ("name", "filename")
_CONTAINERS: Final = ("multipart/mixed", "multipart/alternative", "multipart/related")


class Unsayable(Exception):
    """The mail holds something that only a whole MIME message can carry. The text is a phrase that names it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One entity. `content[start:end]` is its encoded body; `parts` are the entities inside a multipart.

    `media_type` and `transfer_encoding` are lower case, `parameters` are those of Content-Type, `content_id` has no
    angle brackets. `disposition` is "inline", "attachment" or "" when the mail does not say; `filename` is "" then too.
    """

    content: bytes = field(repr=False)
    start: int
    end: int
    media_type: str
    parameters: Mapping[str, str] = field(repr=False)
    transfer_encoding: str
    disposition: str
    filename: str = field(repr=False)
    content_id: str
    fields: tuple[Field, ...] = field(repr=False)
    parts: tuple[Part, ...] = ()

    @property
    def encoded(self) -> bytes:
        """The body as it stands in the mail, transfer encoding and all."""
        return self.content[self.start : self.end]

    def leaves(self) -> Iterator[Part]:
        """The entities below this one that are no multipart, in order; itself when it is none."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


def take_apart(content: bytes) -> Part:
    """The mail as a tree of parts. Raises Unsayable for a structure that is broken, too deep, or no plain container
    (multipart/signed, multipart/encrypted, multipart/report, message/partial and their like).
    """
    return _Reader(content).part(0, len(content), 0)


def single_value(found: tuple[Field, ...], name: str) -> bytes:
    """The one value of that name, unfolded and stripped; b"" without one. Raises Unsayable when there are several."""
    values = [entry.value for entry in found if entry.name.lower() == name.lower()]
    if len(values) > 1:
        raise Unsayable(f"{len(values)} {name} fields")
    return unfold(values[0]).strip(b" \t\r\n") if values else b""


class _Reader:
    """Walks one mail by offsets and counts its parts."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._count = 0

    def part(self, start: int, end: int, depth: int) -> Part:
        self._count += 1
        if depth > DEPTH_LIMIT or self._count > PARTS_LIMIT:
            raise Unsayable(f"more than {DEPTH_LIMIT} levels or {PARTS_LIMIT} parts")
        head_end, body = self._body_start(start, end)
        found = fields(self._content[start:head_end])
        if any(not entry.name for entry in found):
            raise Unsayable("a header line that is no field")
        media_type, parameters = _typed(single_value(found, "Content-Type"))
        _refuse(media_type)
        inside = self._children(media_type, parameters, body, end, depth)
        disposition, filename = _disposed(found, parameters)
        return Part(
            content=self._content,
            start=body,
            end=end,
            media_type=media_type,
            parameters=parameters,
            transfer_encoding=_token(single_value(found, "Content-Transfer-Encoding")) or "7bit",
            disposition=disposition,
            filename=filename,
            content_id=text_of(single_value(found, "Content-ID")).strip("<> \t"),
            fields=found,
            parts=inside,
        )

    def _body_start(self, start: int, end: int) -> tuple[int, int]:
        """Where the header block ends and where the body begins (RFC 5322 2.1: an empty line between them)."""
        if self._content.startswith(b"\r\n", start, end):
            return start, start + 2
        found = self._content.find(b"\r\n\r\n", start, end)
        return (end, end) if found < 0 else (found + 2, found + 4)

    def _children(
        self, media_type: str, parameters: Mapping[str, str], start: int, end: int, depth: int
    ) -> tuple[Part, ...]:
        if not media_type.startswith("multipart/"):
            return ()
        boundary = parameters.get("boundary", "").encode("utf-8")
        pieces = list(self._pieces(boundary, start, end)) if boundary else []
        if not pieces:
            raise Unsayable(f"{media_type} without its boundary")
        return tuple(self.part(first, last, depth + 1) for first, last in pieces)

    def _pieces(self, boundary: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Between two delimiter lines each (RFC 2046 5.1.1); the CRLF before a delimiter belongs to it. A last part
        that nothing closes runs to the end, as every mail reader shows it.
        """
        delimiter, opened, position = b"--" + boundary, -1, start
        while (hit := self._content.find(delimiter, position, end)) >= 0:
            position = hit + len(delimiter)
            if hit != start and self._content[hit - 2 : hit] != b"\r\n":
                continue
            line_end = self._content.find(b"\r\n", position, end)
            line_end = end if line_end < 0 else line_end
            closing = self._content.startswith(b"--", position, line_end)
            if self._content[position + 2 * closing : line_end].strip(b" \t"):
                continue  # a longer boundary that begins alike
            if opened >= 0:
                yield opened, max(opened, hit - 2)
            if closing:
                return
            opened = position = min(line_end + 2, end)
        if opened >= 0:
            yield opened, end


def _refuse(media_type: str) -> None:
    main, _, subtype = media_type.partition("/")
    if main == "multipart" and media_type not in _CONTAINERS:
        raise Unsayable(media_type)
    if main == "message" and subtype not in ("rfc822", "global"):
        raise Unsayable(media_type)


def _typed(value: bytes) -> tuple[str, Mapping[str, str]]:
    """Media type and parameters; text/plain when there is none or it cannot be read (RFC 2045 5.2)."""
    named = _MEDIA_TYPE.match(value)
    parameters = _parameters(value)
    return (named[0].decode("ascii").lower() if named else "text/plain"), parameters


def _disposed(found: tuple[Field, ...], parameters: Mapping[str, str]) -> tuple[str, str]:
    """Disposition (anything unknown is an attachment, RFC 2183 2.8) and file name, of either header field."""
    value = single_value(found, "Content-Disposition")
    kind = _token(value)
    filename = _parameters(value).get("filename") or parameters.get("name", "")
    return (kind if kind in ("", "inline") else "attachment"), filename.strip()


def _token(value: bytes) -> str:
    return text_of(re.split(rb"[;(\s]", value, maxsplit=1)[0]).lower()


def _parameters(value: bytes) -> Mapping[str, str]:
    """All parameters, names in lower case, RFC 2231 sections joined; encoded words in file names are read too."""
    if len(value) > VALUE_LIMIT:
        raise Unsayable("a MIME header field of more than 8 KB")
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for name, raw in _PARAMETER.findall(value):
        split = _SECTION.fullmatch(text_of(name).lower())
        if split is None:
            continue
        key, octets = split["name"], _unquoted(raw, split["name"] in _NAMES)
        if split["number"] is None and split["extended"] is None:
            plain.setdefault(key, decode(octets))
        else:
            sections.setdefault(key, {})[int(split["number"] or 0)] = (octets, split["extended"] is not None)
    return plain | {key: _joined(numbered) for key, numbered in sections.items()}


def _unquoted(raw: bytes, is_name: bool) -> bytes:
    raw = raw.strip(b" \t\r\n")
    if raw.startswith(b'"') and raw.endswith(b'"') and len(raw) > 1:
        return re.sub(rb"\\(.)", rb"\1", raw[1:-1], flags=re.DOTALL)
    # Many programs forget the quotes around a file name with spaces; elsewhere what follows is a comment.
    return raw if is_name else re.split(rb"[\s(]", raw, maxsplit=1)[0]


def _joined(numbered: Mapping[int, tuple[bytes, bool]]) -> str:
    """The value of RFC 2231 sections: charset'language'text in the first extended one, percent encoding in each."""
    charset, octets = "utf-8", b""
    for number, (raw, extended) in sorted(numbered.items()):
        text = raw
        if extended and number == 0 and raw.count(b"'") >= 2:
            name, _, text = raw.split(b"'", 2)
            charset = text_of(name) or charset
        octets += _PERCENT.sub(_octet, text) if extended else text
    return characters(octets, charset)


def _octet(hit: re.Match[bytes]) -> bytes:
    return bytes((int(hit[1], 16),))


_READERS: Final[Mapping[str, Callable[[bytes], str]]] = {
    # Declared Latin-1 is windows-1252 in practice, and declared ASCII may be anything.
    "iso-8859-1": lambda octets: octets.decode("windows-1252"),
    "latin1": lambda octets: octets.decode("windows-1252"),
    "us-ascii": text_of,
    "": text_of,
}
_NOT_CHARSETS: Final = re.compile(r"(?i)(idna|punycode|(raw[-_])?unicode[-_]escape|undefined|mbcs|oem)")


def characters(octets: bytes, charset: str) -> str:
    """Text of a declared charset. A wrong or unknown one is read as UTF-8 when it is that, else as windows-1252."""
    charset = charset.strip().lower()
    try:
        if reader := _READERS.get(charset):
            return reader(octets)
        return text_of(octets) if _NOT_CHARSETS.fullmatch(charset) else octets.decode(charset)
    except (LookupError, UnicodeError, ValueError):
        return text_of(octets)
