"""Lines over 998 octets (RFC 5321 4.5.3.1.6): fields are folded, bodies re-encoded where that is safe.

Must never touch a part that is encoded, signed or encrypted already, nor a part whose lines are short.
"""

from __future__ import annotations

import re
from typing import Final

from routing.encoded_words import decode, encode
from routing.headers import fields, fold, header_end, unfold
from routing.transfer_encoding import encode_leaves

LINE_LIMIT: Final = 998
"""Most octets of a line, without its CRLF."""

_TEXT_FIELDS: Final = frozenset(("subject", "comments", "thread-topic", "content-description"))
_LIST_FIELDS: Final = frozenset(("to", "cc", "bcc", "reply-to", "from"))
_COMMA: Final = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*"?)|,(?=[^ \t\r])', re.DOTALL)


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
    return encode_leaves(content, has_long_line)
