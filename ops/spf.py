"""SPF as a receiver judges it (RFC 7208): what an address gets for a domain, and what a record costs.

Asks a `Lookup` and nobody else. A lookup that failed is `temperror`, never a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Final

from ops.resolver import Answer, IpAddress, Known, Lookup, reverse_name
from ops.spf_record import LOOKUP_TERMS, SpfSyntax, Term, expand, is_spf, parse

LOOKUP_LIMIT: Final = 10
VOID_LIMIT: Final = 2
_NAMES: Final = 10
"""Hosts behind one `mx`, and names behind one `ptr`."""
_DEEPEST: Final = 20
_ENOUGH: Final = 50
"""Lookups after which a record is looked at no further."""


class Spf(StrEnum):
    """RFC 7208 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


_QUALIFIERS: Final = {"+": Spf.PASS, "-": Spf.FAIL, "~": Spf.SOFTFAIL, "?": Spf.NEUTRAL}


@dataclass(frozen=True, slots=True)
class SpfVerdict:
    """What an address gets. `why` is the term that decided, or what is wrong."""

    result: Spf
    why: str
    lookups: int
    voids: int


@dataclass(frozen=True, slots=True)
class SpfCost:
    """A record with everything behind its names. `record` is "" without one (the first where `several` stand there),
    `error` a sentence on what makes it useless for every sender. `includes` are the names included or redirected to,
    at any depth.
    """

    record: str
    lookups: int = 0
    voids: int = 0
    includes: frozenset[str] = frozenset()
    error: str = ""
    unknown: str = ""
    several: bool = False


class _Ended(Exception):
    """A result that ends the whole check."""

    def __init__(self, result: Spf, why: str) -> None:
        super().__init__(why)
        self.result = result
        self.why = why


async def check_host(dns: Lookup, address: IpAddress, domain: str, sender: str, helo: str = "unknown") -> SpfVerdict:
    """`check_host()` of RFC 7208 4. `sender` is the address in MAIL FROM."""
    check = _Check(dns, address, sender if "@" in sender else f"postmaster@{domain}", helo)
    try:
        result, why = await check.judge(domain, 0)
    except _Ended as ended:
        result, why = ended.result, ended.why
    return SpfVerdict(result, why, check.count.lookups, check.count.voids)


async def cost_of(dns: Lookup, domain: str) -> SpfCost:
    """What the record costs at most, with every term looked at (a receiver stops at the first that matches)."""
    survey = _Survey(dns)
    try:
        record, _ = await _record(dns, domain)
        await survey.visit(domain, 0)
    except _Ended as ended:
        unknown = ended.why if ended.result is Spf.TEMPERROR else ""
        found = await dns.ask(domain, "TXT")
        own = [text for text in found.records if is_spf(text)]
        error = "" if unknown else ended.why
        includes = frozenset(survey.includes)
        return SpfCost("".join(own[:1]), survey.lookups, survey.voids, includes, error, unknown, len(own) > 1)
    error = ""
    if survey.lookups > LOOKUP_LIMIT:
        error = f"needs {survey.lookups} DNS lookups, and receivers make at most {LOOKUP_LIMIT}"
    elif survey.voids > VOID_LIMIT:
        error = f"leads to {survey.voids} names without any record, and receivers take at most {VOID_LIMIT}"
    return SpfCost(record, survey.lookups, survey.voids, frozenset(survey.includes), error)


async def _record(dns: Lookup, domain: str) -> tuple[str, tuple[Term, ...]]:
    """The one record of a domain. Ends with `none` without one, `permerror` with several or a wrong one."""
    found = await dns.ask(domain, "TXT")
    if found.known is Known.UNKNOWN:
        raise _Ended(Spf.TEMPERROR, f"TXT of {domain} is not known: {found.why}")
    records = [text for text in found.records if is_spf(text)]
    if not records:
        raise _Ended(Spf.NONE, f"{domain} has no SPF record")
    if len(records) > 1:
        raise _Ended(Spf.PERMERROR, f"{domain} has {len(records)} SPF records, and only one may stand there")
    try:
        return records[0], parse(records[0])
    except SpfSyntax as wrong:
        raise _Ended(Spf.PERMERROR, f"the SPF record of {domain} is wrong: {wrong}") from None


@dataclass(slots=True)
class _Count:
    """Lookups made so far; ends the check over either limit."""

    lookups: int = 0
    voids: int = 0

    def lookup(self, term: Term) -> None:
        self.lookups += 1
        if self.lookups > LOOKUP_LIMIT:
            raise _Ended(Spf.PERMERROR, f"more than {LOOKUP_LIMIT} DNS lookups (at {term.text})")

    def heard(self, name: str, answer: Answer) -> Answer:
        if answer.known is Known.UNKNOWN:
            raise _Ended(Spf.TEMPERROR, f"{name} is not known: {answer.why}")
        self.voids += answer.void
        if self.voids > VOID_LIMIT:
            raise _Ended(Spf.PERMERROR, f"more than {VOID_LIMIT} lookups without any record (at {name})")
        return answer


@dataclass(slots=True)
class _Check:
    dns: Lookup
    address: IpAddress
    sender: str
    helo: str
    count: _Count = field(default_factory=_Count)

    async def judge(self, domain: str, depth: int) -> tuple[Spf, str]:
        if depth > _DEEPEST:
            raise _Ended(Spf.PERMERROR, f"more than {LOOKUP_LIMIT} DNS lookups (at {domain})")
        _, terms = await _record(self.dns, domain)
        for term in terms:
            if term.name in LOOKUP_TERMS:
                self.count.lookup(term)
            if term.name == "redirect":
                return await self._redirected(term, domain, depth)
            if await self._matches(term, domain, depth):
                return _QUALIFIERS[term.qualifier], f"{term.text} in the SPF record of {domain}"
        return Spf.NEUTRAL, f"no term of the SPF record of {domain} names it"

    async def _redirected(self, term: Term, domain: str, depth: int) -> tuple[Spf, str]:
        try:
            return await self.judge(self._target(term, domain), depth + 1)
        except _Ended as ended:
            if ended.result is Spf.NONE:
                raise _Ended(Spf.PERMERROR, f"{term.text}: {ended.why}") from None
            raise

    async def _matches(self, term: Term, domain: str, depth: int) -> bool:
        match term.name:
            case "all":
                return True
            case "ip4" | "ip6":
                return term.network is not None and self.address in term.network
            case "include":
                return await self._included(term, domain, depth)
            case "exists":
                name = self._target(term, domain)
                return bool(self.count.heard(name, await self.dns.ask(name, "A")).records)
            case "a":
                return await self._resolves_here(self._target(term, domain), term)
            case "mx":
                return await self._exchanged(term, domain)
        return await self._pointed(term, domain)

    async def _included(self, term: Term, domain: str, depth: int) -> bool:
        try:
            result, _ = await self.judge(self._target(term, domain), depth + 1)
        except _Ended as ended:
            if ended.result is Spf.NONE:
                raise _Ended(Spf.PERMERROR, f"{term.text}: {ended.why}") from None
            raise
        return result is Spf.PASS

    async def _resolves_here(self, name: str, term: Term, *, counted: bool = True) -> bool:
        answer = await self.dns.ask(name, "A" if self.address.version == 4 else "AAAA")
        if counted:
            answer = self.count.heard(name, answer)
        elif answer.known is Known.UNKNOWN:
            raise _Ended(Spf.TEMPERROR, f"{name} is not known: {answer.why}")
        length = term.cidr[0 if self.address.version == 4 else 1]
        return any(self.address in ip_network(f"{ip_address(text)}/{length}", strict=False) for text in answer.records)

    async def _exchanged(self, term: Term, domain: str) -> bool:
        name = self._target(term, domain)
        hosts = self.count.heard(name, await self.dns.ask(name, "MX")).records
        if len(hosts) > _NAMES:
            raise _Ended(Spf.PERMERROR, f"{term.text}: {name} has more than {_NAMES} MX hosts")
        return any([await self._resolves_here(host, term) for host in hosts])

    async def _pointed(self, term: Term, domain: str) -> bool:
        wanted = self._target(term, domain)
        name = reverse_name(self.address)
        answer = await self.dns.ask(name, "PTR")
        if answer.known is Known.UNKNOWN:
            return False
        for host in self.count.heard(name, answer).records[:_NAMES]:
            below = host == wanted or host.endswith(f".{wanted}")
            if below and await self._resolves_here(host, Term("", "+", "a"), counted=False):
                return True
        return False

    def _target(self, term: Term, domain: str) -> str:
        if not term.domain:
            return domain
        return expand(term.domain, self.address, domain, self.sender, self.helo)


@dataclass(slots=True)
class _Survey:
    """Walks every term of a record, for no address in particular."""

    dns: Lookup
    lookups: int = 0
    voids: int = 0
    includes: set[str] = field(default_factory=set)

    async def visit(self, domain: str, depth: int) -> None:
        _, terms = await _record(self.dns, domain)
        for term in terms:
            self.lookups += term.name in LOOKUP_TERMS
            if self.lookups > _ENOUGH:
                raise _Ended(
                    Spf.PERMERROR, f"needs more than {_ENOUGH} DNS lookups, of which receivers make {LOOKUP_LIMIT}"
                )
            name = term.domain.lower().rstrip(".") or domain
            if "%" in name or term.name == "ptr" or term.name not in LOOKUP_TERMS:
                continue
            if term.name in ("include", "redirect"):
                await self._follow(term, name, depth)
            else:
                await self._look(term, name)

    async def _follow(self, term: Term, name: str, depth: int) -> None:
        self.includes.add(name)
        if depth >= _DEEPEST:
            raise _Ended(Spf.PERMERROR, f"{term.text} leads round in circles, or too deep")
        try:
            await self.visit(name, depth + 1)
        except _Ended as ended:
            if ended.result is Spf.NONE:
                raise _Ended(Spf.PERMERROR, f"{term.text}: {ended.why}") from None
            raise

    async def _look(self, term: Term, name: str) -> None:
        answer = await self.dns.ask(name, "MX" if term.name == "mx" else "A")
        if answer.known is Known.UNKNOWN:
            raise _Ended(Spf.TEMPERROR, f"{name} is not known: {answer.why}")
        self.voids += answer.void
        if term.name == "mx" and len(answer.records) > _NAMES:
            raise _Ended(Spf.PERMERROR, f"{term.text}: {name} has more than {_NAMES} MX hosts")
