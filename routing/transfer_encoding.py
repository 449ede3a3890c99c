"""Content transfer encodings (RFC 2045 6) put on the leaf parts of a mail that cannot travel as they are.

Must never touch a part that is encoded, signed or encrypted already, nor any byte outside the parts it encodes and
their Content-Transfer-Encoding.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

from routing.headers import append, header_end, set_field, unfold, value

_DEPTH_LIMIT: Final = 20
_BOUNDARY: Final = re.compile(rb';\s*boundary\s*=\s*(?:"([^"\\]*+(?:\\.[^"\\]*+)*)"|([^\s;"]+))', re.IGNORECASE)
_DELIMITER_LIMIT: Final = 20_000
"""Lines that may begin a part. No mail has a hundredth of it, and each part takes time."""
_SEALED: Final = (b"multipart/signed", b"multipart/encrypted")


def seven_bit(content: bytes) -> bytes:
    """The mail with its 8-bit leaf parts encoded; the same object when no body has any.

    A hop without 8BITMIME would do the same and break a DKIM signature by it (RFC 6376 5.3). What is left in 8-bit:
    signed and encrypted parts, forwarded mails, and parts that are declared as encoded but are not.
    """
    return content if content.isascii() else encode_leaves(content, lambda body: not body.isascii())


def encode_leaves(content: bytes, unfit: Callable[[bytes], bool]) -> bytes:
    """The mail with each leaf part whose body is `unfit` in quoted-printable or base64. `unfit` must be true of a
    whole body when it is true of one of its parts.
    """
    if content.count(b"\n--") > _DELIMITER_LIMIT:
        return content
    encoded = _entity(content, unfit, _DEPTH_LIMIT)
    if encoded is content or value(encoded, "MIME-Version"):
        return encoded
    return append(encoded, "MIME-Version", b"1.0")


def _entity(entity: bytes, unfit: Callable[[bytes], bool], depth: int) -> bytes:
    """A whole mail or a part (RFC 2045 2.4) with its unfit leaves encoded; the same object if it has none."""
    end = header_end(entity)
    body = entity[end + 2 :]
    kind, boundary = _content_type(value(entity[:end], "Content-Type"))
    if not unfit(body + b"\r\n") or not depth or kind in _SEALED or kind.startswith(b"message/"):
        return entity
    if kind.startswith(b"multipart/"):
        parts = _parts(body, boundary, unfit, depth) if boundary else body
        return entity if parts == body else entity[: end + 2] + parts
    encoding = (value(entity[:end], "Content-Transfer-Encoding") or b"7bit").strip().lower()
    if encoding not in (b"7bit", b"8bit", b"binary"):
        return entity
    name, encoded = _encode(body, kind.startswith(b"text/"))
    return set_field(entity[:end], "Content-Transfer-Encoding", name) + b"\r\n" + encoded


def _parts(body: bytes, boundary: bytes, unfit: Callable[[bytes], bool], depth: int) -> bytes:
    """The parts between the delimiter lines (RFC 2046 5.1.1); preamble and epilogue stay as they are."""
    delimiter = re.compile(rb"(?:\A|(?<=\n))--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    pieces: list[bytes] = []
    position, inside = 0, False
    for found in delimiter.finditer(body):
        part = body[position : found.start()]
        pieces.append(_part(part, unfit, depth) if inside else part)
        pieces.append(found[0])
        position, inside = found.end(), not found[1]
        if not inside:
            break
    return b"".join((*pieces, body[position:]))


def _part(part: bytes, unfit: Callable[[bytes], bool], depth: int) -> bytes:
    """The CRLF before a delimiter belongs to the delimiter."""
    entity = part.removesuffix(b"\r\n")
    return _entity(entity, unfit, depth - 1) + part[len(entity) :]


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
