"""The address and parameters of MAIL and RCPT, read as legacy clients write them.

Plain addresses by one strict pattern, all else by aiosmtpd's own parser. Must never let a control character through.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

Parsed = tuple[str | None, str | None]
"""Address and the parameters behind it, as aiosmtpd's `_getaddr` returns them; (None, None) when malformed."""

_ATEXT: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_PLAIN: Final = re.compile(rf"(<)?({_ATEXT}(?:\.{_ATEXT})*@{_LABEL}(?:\.{_LABEL})*)(?(1)>)(?: +([ -~]*))?")
PLAIN_COMMAND: Final = re.compile(
    rf"(?i:(MAIL FROM)|RCPT TO): *<({_ATEXT}(?:\.{_ATEXT})*@{_LABEL}(?:\.{_LABEL})*)>\r?\n".encode()
)
"""A whole command line with a plain address in brackets and nothing behind it. The first group is there for MAIL."""
HELLO: Final = re.compile(rb"(?i:(EHLO)|HELO) ([!-~]{1,255})\r?\n")
"""A whole greeting. The first group is there for EHLO."""
_NULL: Final = re.compile(r"<>(?: +([ -~]*))?")
_NAMED: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<>@]*)(<.*)')
_TOLERATED: Final = frozenset({"RET", "ENVID", "AUTH", "NOTIFY", "ORCPT"})
"""Parameters of RFC 3461 and RFC 4954 that clients add unasked; they say nothing that would change the delivery."""


def parse(argument: str, original: Callable[[str], Parsed]) -> Parsed:
    """What stands behind `MAIL FROM:` or `RCPT TO:`. `original` takes what no pattern here knows.

    `<>` is returned as it stands. Addresses beyond ASCII are returned for the caller to refuse by name.
    """
    if not argument:
        return "", ""
    found = _PLAIN.fullmatch(argument)
    if found:
        return found[2], _without_tolerated(found[3])
    null = _NULL.fullmatch(argument)
    if null:
        return "<>", _without_tolerated(null[1])
    named = _NAMED.fullmatch(argument)
    if named and not argument.startswith("<"):
        return parse(named[1], original)
    return _by_original(argument, original)


def _by_original(argument: str, original: Callable[[str], Parsed]) -> Parsed:
    try:
        address, rest = original(argument)
    except Exception:  # header-value parser: IndexError, RecursionError and others on garbage, and garbage is no bug
        return None, None
    if not address or not address.isprintable() or not (rest or "").isascii():
        return None, None
    if address not in argument:  # the parser mends what it reads; an address is taken as it was written or not at all
        return None, None
    return address, _without_tolerated(rest)


def _without_tolerated(parameters: str | None) -> str:
    if not parameters:
        return ""
    return " ".join(word for word in parameters.split() if word.partition("=")[0].upper() not in _TOLERATED)
