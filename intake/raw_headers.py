"""Fields with raw 8-bit octets, said again in ASCII: encoded words, extended parameters, A-labels.

Must never change what a field means, nor a field that is ASCII already.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from routing.addresses import encode_names
from routing.encoded_words import decode, encode, text_of
from routing.headers import Field, fields, fold, header_end

_ADDRESS_FIELDS: Final = re.compile(
    r"(resent-)?(from|sender|reply-to|to|cc|bcc)|return-receipt-to|disposition-notification-to|errors-to"
)
_PARAMETER_FIELDS: Final = re.compile(r"content-(type|disposition)")
_IDENTIFIER_FIELDS: Final = re.compile(
    r"(resent-)?(message-id|date)|in-reply-to|references|content-id|received|return-path|mime-version"
    r"|content-transfer-encoding|dkim-signature|authentication-results"
)
_PARAMETER: Final = re.compile(rb'(;\s*)([^\s;="]+)\s*=\s*("[^"\\]*+(?:\\.[^"\\]*+)*"?|[^;"]*+)', re.DOTALL)
_EIGHT_BIT: Final = re.compile(rb"[\x80-\xff]")


def encode_headers(content: bytes) -> bytes:
    """The mail with every field in ASCII that can be; raw text counts as UTF-8 when it is, else as windows-1252."""
    end = header_end(content)
    if content[:end].isascii():
        return content
    block = content[:end]
    return b"".join(_ascii_field(block, field) for field in fields(block)) + content[end:]


def _ascii_field(block: bytes, field: Field) -> bytes:
    raw = block[field.start : field.end]
    if raw.isascii() or not field.name:
        return raw
    value = _ascii_value(field.name.lower(), field.value)
    return fold(field.name.encode("ascii") + b": " + value.strip(b" \t\r\n")) + b"\r\n"


def _ascii_value(name: str, value: bytes) -> bytes:
    if _ADDRESS_FIELDS.fullmatch(name):
        return _stable(value)
    if _PARAMETER_FIELDS.fullmatch(name):
        return _EIGHT_BIT.sub(b"?", _PARAMETER.sub(_ascii_parameter, value))
    if _IDENTIFIER_FIELDS.fullmatch(name):
        return _EIGHT_BIT.sub(b"?", value)
    if name.startswith("list-"):
        return _EIGHT_BIT.sub(lambda hit: b"%%%02X" % hit[0][0], value)
    return encode(decode(value))


def _stable(value: bytes) -> bytes:
    """As `encode_names`, again while it finds more: what is no address at first may be one after that."""
    for _ in range(3):
        before, value = value, encode_names(value)
        if value == before:
            break
    return value


def _ascii_parameter(found: re.Match[bytes]) -> bytes:
    """`filename="f\xe9"` as `filename*=utf-8''f%C3%A9` (RFC 2231 4)."""
    lead, name, raw = found[1], found[2], found[3]
    if raw.isascii() or not name.isascii() or name.endswith(b"*"):
        return found[0]
    text = text_of(re.sub(rb"\\(.)", rb"\1", raw[1:].removesuffix(b'"')) if raw.startswith(b'"') else raw.strip())
    return lead + name + b"*=utf-8''" + quote(text, safe="").encode("ascii")
