"""Domains, addresses and the patterns of `from:`, each in one normal form: lower case, A-labels, no trailing dot.

Texts only: nothing here asks the DNS. What cannot be read raises `Mistake`.
"""

from __future__ import annotations

import re
from typing import Final

import idna

from config.fields import Mistake

NULL_PATTERN: Final = "<>"
ANY_PATTERN: Final = "*"
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LITERAL: Final = re.compile(r"\[(ipv6:)?[0-9a-f.:]+\]")
_FORBIDDEN: Final = re.compile(r'[\x00-\x20\x7f<>(),;:"\\]')
_LONGEST_TEXT: Final = 1000


def domain(text: str) -> str:
    """`München.DE.` -> `xn--mnchen-3ya.de`. Takes underscores, and an address literal such as `[192.0.2.1]`."""
    if len(text) > _LONGEST_TEXT:
        raise Mistake("is too long for a domain", "write a domain of at most 253 characters")
    lowered = text.lower().removesuffix(".")
    if _LITERAL.fullmatch(lowered):
        return lowered
    if not lowered.isascii():
        lowered = _a_labels(text.removesuffix("."))
    if len(lowered) > 253 or not all(_LABEL.fullmatch(label) for label in lowered.split(".")):
        raise Mistake(f"{_shown(text)} is not a domain", "write it like acme.nl")
    return lowered


def normal(text: str) -> str:
    """As `domain`; what is none stays as it is."""
    try:
        return domain(text)
    except Mistake:
        return text


def _a_labels(text: str) -> str:
    try:
        return idna.encode(text, uts46=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise Mistake(f"{_shown(text)} is not a domain", "check the letters, or write its xn-- form") from None


def address(text: str) -> str:
    """`Info@Acme.NL` -> `info@acme.nl`: for comparing; the local part counts without case here (RFC 5321 2.4)."""
    local, at, host = text.rpartition("@")
    if not at or not local or not host:
        raise Mistake(f"{_shown(text)} is not an address", "write it like info@acme.nl")
    if _FORBIDDEN.search(local) or "@" in local or len(local) > 64:
        raise Mistake(f"{_shown(text)} is not a plain address", "write only the address, like info@acme.nl")
    return f"{local.lower()}@{domain(host)}"


def pattern(text: str) -> str:
    """A `from:` pattern in its normal form: an address, a domain, `*.domain`, `<>` or `*`."""
    stripped = text.strip()
    if stripped in (NULL_PATTERN, ANY_PATTERN):
        return stripped
    _common_slips(stripped)
    if stripped.startswith("*."):
        return f"*.{domain(stripped[2:])}"
    return address(stripped) if "@" in stripped else domain(stripped)


def _common_slips(text: str) -> None:
    if not text:
        raise Mistake("is empty", 'write "<>" if you mean the null sender')
    if "," in text or " " in text:
        raise Mistake(f"{_shown(text)} is more than one sender", "write a list: [acme.nl, info@globex.nl]")
    if text.startswith(("*@", "@")):
        raise Mistake(f"{_shown(text)} is not a pattern", f"write the domain alone: {_shown(text.partition('@')[2])}")
    if text.startswith("."):
        raise Mistake(f"{_shown(text)} is not a pattern", f'write "*{_shown(text)}"')
    if "*" in text.removeprefix("*."):
        raise Mistake(f"{_shown(text)} is not a pattern", 'a star stands alone or first: "*" or "*.acme.nl"')


def _shown(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= 80 else f"{printable[:77]}..."
