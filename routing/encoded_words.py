"""Text in header fields: encoded words (RFC 2047) read leniently and written strictly.

Must never raise on anything a mail holds, and never let a control character out.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

WORD_LIMIT: Final = 64
"""Longest encoded word we write. RFC 2047 2 allows 75; less leaves room for a field name on the same line."""

_WORD: Final = re.compile(rb"=\?([^?*\s\x00-\x1f]+)(?:\*[^?\s]*)?\?([BbQq])\?([^?\r\n]*)\?=")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_Q_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q_HEX: Final = re.compile(rb"=([0-9A-Fa-f]{2})")


def text_of(raw: bytes) -> str:
    """Raw octets as text: UTF-8 when they are, else windows-1252, which is what legacy Windows programs send."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("windows-1252", "replace")


def decode(raw: bytes) -> str:
    """The text of an unstructured value or a phrase: unfolded, encoded words decoded, control characters as spaces."""
    pieces: list[str] = []
    held, held_charset, position = b"", b"", 0
    unfolded = _FOLD.sub(b"", raw)
    for word in _WORD.finditer(unfolded):
        between = unfolded[position : word.start()]
        octets, charset = _octets(word[2], word[3]), word[1].lower()
        # White space between two encoded words is not shown (RFC 2047 6.2); a character may be cut between them.
        if held_charset and (between.strip() or charset != held_charset):
            pieces.append(_characters(held, held_charset))
            held = b""
        if between.strip() or not held_charset:
            pieces.append(text_of(between))
        held, held_charset, position = held + octets, charset, word.end()
    if held_charset:
        pieces.append(_characters(held, held_charset))
    pieces.append(text_of(unfolded[position:]))
    return _CONTROL.sub(" ", "".join(pieces)).strip()


def encode(text: str) -> bytes:
    """`text` as UTF-8 encoded words of at most WORD_LIMIT octets, one on each line of the folded result.

    Letters that are safe in a phrase too (RFC 2047 5.3) are the only ones left as they are.
    """
    text = _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8")
    plain = sum(octet in _Q_PLAIN or octet == 32 for octet in text.encode())
    writer = _quoted if plain * 3 >= len(text.encode()) * 2 else _base64
    room = WORD_LIMIT - len(b"=?utf-8?q??=")
    words: list[bytes] = []
    held = ""
    for character in text:
        if held and len(writer(held + character)) - len(b"=?utf-8?q??=") > room:
            words.append(writer(held))
            held = ""
        held += character
    if held:
        words.append(writer(held))
    return b"\r\n ".join(words)


def _octets(encoding: bytes, payload: bytes) -> bytes:
    if encoding in b"Qq":
        return _Q_HEX.sub(lambda hit: bytes((int(hit[1], 16),)), payload.replace(b"_", b" "))
    cleaned = re.sub(rb"[^A-Za-z0-9+/]", b"", payload)
    try:
        return base64.b64decode(cleaned + b"=" * (-len(cleaned) % 4))
    except binascii.Error:
        return base64.b64decode(cleaned[: len(cleaned) // 4 * 4])


def _characters(octets: bytes, charset: bytes) -> str:
    if charset in (b"iso-8859-1", b"us-ascii", b"ascii", b"unknown-8bit", b"x-unknown"):
        # Declared Latin-1 is windows-1252 in practice, and declared ASCII may be anything.
        return octets.decode("windows-1252", "replace") if charset == b"iso-8859-1" else text_of(octets)
    try:
        return octets.decode(charset.decode("ascii"), "replace")
    except (LookupError, UnicodeError, ValueError):
        return text_of(octets)


def _quoted(text: str) -> bytes:
    octets = text.encode("utf-8")
    body = b"".join(bytes((o,)) if o in _Q_PLAIN else b"_" if o == 32 else b"=%02X" % o for o in octets)
    return b"=?utf-8?q?" + body + b"?="


def _base64(text: str) -> bytes:
    return b"=?utf-8?b?" + base64.b64encode(text.encode("utf-8")) + b"?="
