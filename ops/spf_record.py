"""An SPF record taken apart (RFC 7208 4.5, 5, 7): its terms, and the macros in their names. Asks nobody.

A record with one wrong term is wrong as a whole: `SpfSyntax`, with the term.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final
from urllib.parse import quote

from ops.resolver import IpAddress

LOOKUP_TERMS: Final = frozenset(("include", "a", "mx", "ptr", "exists", "redirect"))
"""Those that ask the DNS, at most ten in all (RFC 7208 4.6.4)."""

_TERM: Final = re.compile(r"([+?~-]?)([A-Za-z][A-Za-z0-9._-]*)([:=]?)(.*)", re.DOTALL)
_CIDR: Final = re.compile(r"(?:/(\d|[12]\d|3[0-2]))?(?://(\d|[1-9]\d|1[01]\d|12[0-8]))?\Z")
_MACRO: Final = re.compile(r"%(?:\{([slodiphcrtv])(\d*)(r?)([.\-+,/_=]*)\}|([%_-])|.|\Z)", re.IGNORECASE | re.DOTALL)
_NEEDS_NAME: Final = frozenset(("include", "exists", "redirect"))


class SpfSyntax(Exception):
    """The record cannot be read. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term. `name` is lower case; `domain` is what stands behind the colon, macros and all, "" for none.

    `network` is that of ip4 and ip6; `cidr` the prefix lengths for IPv4 and IPv6 of `a` and `mx`.
    """

    text: str
    qualifier: str
    name: str
    domain: str = ""
    network: IPv4Network | IPv6Network | None = None
    cidr: tuple[int, int] = (32, 128)


def is_spf(text: str) -> bool:
    """True for a TXT record that is an SPF record, right or wrong."""
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a record, `redirect` last. Raises SpfSyntax."""
    terms: list[Term] = []
    last: dict[str, Term] = {}
    for word in text.split(" ")[1:]:
        term = _term(word) if word else None
        if term is None:
            continue
        if term.name in ("redirect", "exp"):
            if term.name in last:
                raise SpfSyntax(f"{term.name}= stands there twice")
            last[term.name] = term
        else:
            terms.append(term)
    ends = any(term.name == "all" for term in terms)
    return (*terms, *([last["redirect"]] if "redirect" in last and not ends else ()))


def _term(word: str) -> Term | None:
    """One word; None for a modifier that nobody has to know."""
    found = _TERM.fullmatch(word)
    if found is None:
        raise SpfSyntax(f"{word!r} is no term")
    qualifier, name, mark, rest = found[1], found[2].lower(), found[3], found[4]
    if mark == "=":
        if qualifier:
            raise SpfSyntax(f"{word!r} is no term")
        return Term(word, "+", name, _named(word, rest)) if name in ("redirect", "exp") else None
    if name in ("ip4", "ip6"):
        return Term(word, qualifier or "+", name, network=_network(word, name, rest))
    if name not in ("all", "include", "a", "mx", "ptr", "exists"):
        raise SpfSyntax(f"{word!r} is no mechanism there is")
    return _mechanism(word, qualifier or "+", name, mark + rest)


def _mechanism(word: str, qualifier: str, name: str, rest: str) -> Term:
    domain, cidr = rest, (32, 128)
    if name in ("a", "mx"):
        domain, cidr = _without_cidr(word, rest)
    if domain and not domain.startswith(":"):
        raise SpfSyntax(f"{word!r} is no mechanism there is")
    if name == "all" and domain:
        raise SpfSyntax(f"{word!r}: all takes nothing behind it")
    if not domain and name in _NEEDS_NAME:
        raise SpfSyntax(f"{word!r} names no domain")
    return Term(word, qualifier, name, _named(word, domain[1:]) if domain else "", cidr=cidr)


def _without_cidr(word: str, rest: str) -> tuple[str, tuple[int, int]]:
    start = rest.rfind("}") + 1
    slash = rest.find("/", start)
    if slash < 0:
        return rest, (32, 128)
    found = _CIDR.fullmatch(rest[slash:])
    if found is None:
        raise SpfSyntax(f"{word!r} has no prefix length behind the slash")
    return rest[:slash], (int(found[1] or 32), int(found[2] or 128))


def _network(word: str, name: str, rest: str) -> IPv4Network | IPv6Network:
    try:
        found = ip_network(rest, strict=False)
    except ValueError:
        raise SpfSyntax(f"{word!r} is no network") from None
    if found.version != (4 if name == "ip4" else 6) or not re.fullmatch(r"[0-9A-Fa-f:.]+(/\d+)?", rest):
        raise SpfSyntax(f"{word!r} is no {name} network")
    return found


def _named(word: str, text: str) -> str:
    for macro in _MACRO.finditer(text):
        if macro[1] is None and macro[5] is None:
            raise SpfSyntax(f"{word!r} has a % that begins no macro")
    if not text or re.search(r"[\x00-\x20\x7f]", text):
        raise SpfSyntax(f"{word!r} names no domain")
    return text


def expand(text: str, address: IpAddress, domain: str, sender: str, helo: str) -> str:
    """The name with its macros replaced (RFC 7208 7). `sender` is the address in MAIL FROM."""
    local, _, sender_domain = sender.rpartition("@")
    letters = {
        "s": sender,
        "l": local or "postmaster",
        "o": sender_domain,
        "d": domain,
        "i": str(address) if address.version == 4 else ".".join(address.exploded.replace(":", "")),
        "p": "unknown",
        "v": "in-addr" if address.version == 4 else "ip6",
        "h": helo,
        "c": str(address),
        "r": "unknown",
        "t": "0",
    }

    def replaced(found: re.Match[str]) -> str:
        if found[5] is not None:
            return {"%": "%", "_": " ", "-": "%20"}[found[5]]
        parts = re.split(f"[{re.escape(found[4] or '.')}]", letters[found[1].lower()])
        parts = parts[::-1] if found[3] else parts
        text = ".".join(parts[-int(found[2]) :] if found[2] and int(found[2]) else parts)
        return quote(text, safe="") if found[1].isupper() else text

    expanded = _MACRO.sub(replaced, text)
    while len(expanded) > 253 and "." in expanded:
        expanded = expanded.partition(".")[2]
    return expanded.rstrip(".").lower()
