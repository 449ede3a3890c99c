"""Lines over 998 octets (RFC 5321 4.5.3.1.6): fields are folded, bodies re-encoded where that is safe.

Must never touch a part that is encoded, signed or encrypted already, nor a part whose lines are short.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from routing.encoded_words import decode, encode
from routing.headers import append, fields, fold, header_end, set_field, unfold, value

LINE_LIMIT: Final = 998
"""Most octets of a line, without its CRLF."""

_DEPTH_LIMIT: Final = 20
_TEXT_FIELDS: Final = frozenset(("subject", "comments", "thread-topic", "content-description"))
_LIST_FIELDS: Final = frozenset(("to", "cc", "bcc", "reply-to", "from"))
_COMMA: Final = re.compile(rb'("(?:[^"\\]++|\\.)*+"?)|,(?=[^ \t\r])', re.DOTALL)
_BOUNDARY: Final = re.compile(rb';\s*boundary\s*=\s*(?:"((?:[^"\\]++|\\.)*+)"|([^\s;"]+))', re.IGNORECASE)
_SEALED: Final = (b"multipart/signed", b"multipart/encrypted")


def has_long_line(content: bytes) -> bool:
    """True when a line is longer than LINE_LIMIT. Looks at one line ending in each thousand octets."""
    position, end, find_last = 0, len(content), content.rfind
    while position < end:
        position = find_last(b"\n", position, position + LINE_LIMIT + 2) + 1
        if not position:
            return True
    return False


def fold_headers(content: bytes) -> bytes:
    """The mail with its overlong fields folded; one that offers no place to fold stays as it is."""
    end = header_end(content)
    block = content[:end]
    if not has_long_line(block):
        return content
    raw = (block[field.start : field.end] for field in fields(block))
    return b"".join(_short(field) if has_long_line(field) else field for field in raw) + content[end:]


def _short(field: bytes) -> bytes:
    folded = fold(field.removesuffix(b"\r\n"))
    name, _, rest = unfold(folded).partition(b":")
    kind = name.strip().lower().decode("latin-1")
    if has_long_line(folded + b"\r\n") and kind in _LIST_FIELDS:
        folded = fold(name + b":" + _COMMA.sub(lambda hit: hit[1] or b", ", rest))
    if has_long_line(folded + b"\r\n") and kind in _TEXT_FIELDS:
        folded = fold(name + b": " + encode(decode(rest)))
    return folded + b"\r\n"


def wrap_body(content: bytes) -> bytes:
    """The mail with overlong lines of its body re-encoded, each leaf part by itself."""
    end = header_end(content)
    if not has_long_line(content[end:]):
        return content
    wrapped = _wrap(content, _DEPTH_LIMIT)
    if wrapped is content or value(wrapped, "MIME-Version"):
        return wrapped
    return append(wrapped, "MIME-Version", b"1.0")


def _wrap(entity: bytes, depth: int) -> bytes:
    """An entity, a whole mail or a part (RFC 2045 2.4), without lines that are too long."""
    end = header_end(entity)
    body = entity[end + 2 :]
    kind, boundary = _content_type(value(entity[:end], "Content-Type"))
    if not has_long_line(body + b"\r\n") or not depth or kind in _SEALED or kind.startswith(b"message/"):
        return entity
    if kind.startswith(b"multipart/"):
        return entity[: end + 2] + _wrap_parts(body, boundary, depth) if boundary else entity
    encoding = (value(entity[:end], "Content-Transfer-Encoding") or b"7bit").strip().lower()
    if encoding not in (b"7bit", b"8bit", b"binary"):
        return entity
    name, encoded = _encode(body, kind.startswith(b"text/"))
    return set_field(entity[:end], "Content-Transfer-Encoding", name) + b"\r\n" + encoded


def _wrap_parts(body: bytes, boundary: bytes, depth: int) -> bytes:
    """The parts between the delimiter lines (RFC 2046 5.1.1); preamble and epilogue stay as they are."""
    delimiter = re.compile(rb"(?:\A|(?<=\n))--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    pieces: list[bytes] = []
    position, inside = 0, False
    for found in delimiter.finditer(body):
        part = body[position : found.start()]
        pieces.append(_wrap_part(part, depth) if inside else part)
        pieces.append(found[0])
        position, inside = found.end(), not found[1]
        if not inside:
            break
    return b"".join((*pieces, body[position:]))


def _wrap_part(part: bytes, depth: int) -> bytes:
    """The CRLF before a delimiter belongs to the delimiter."""
    entity = part.removesuffix(b"\r\n")
    return _wrap(entity, depth - 1) + part[len(entity) :]


def _content_type(raw: bytes | None) -> tuple[bytes, bytes]:
    """The type in lower case, `text/plain` when there is none, and the boundary."""
    if not raw:
        return b"text/plain", b""
    found = _BOUNDARY.search(unfold(raw))
    quoted, bare = (found[1], found[2]) if found else (None, None)
    boundary = re.sub(rb"\\(.)", rb"\1", quoted) if quoted else bare or b""
    return raw.partition(b";")[0].strip().lower() or b"text/plain", boundary


def _encode(body: bytes, text: bool) -> tuple[bytes, bytes]:
    """Quoted-printable for text in mostly ASCII, base64 for the rest; a CRLF at the end stays one."""
    if text and len(body) > 6 * (len(body) - len(body.decode("ascii", "ignore"))):
        encoded = binascii.b2a_qp(body, istext=True).replace(b"\r\n", b"\n")
        return b"quoted-printable", encoded.replace(b"\n", b"\r\n")
    encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
    return b"base64", encoded if body.endswith(b"\r\n") else encoded.removesuffix(b"\r\n")
