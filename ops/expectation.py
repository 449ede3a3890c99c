"""The DMARC result to expect of a mail by one upstream (RFC 9989), looked up in the DNS.

The relation of the names comes from the rules, the rest from the records. What could not be asked is "not known". Must
never promise what only the provider's account can.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, ip_address

from config import names
from config.rules import Dkim, Rules
from ops.dkim_record import KeyRecord, key_at, selector_exists
from ops.dmarc import DmarcUnknown, Policy, aligned, policy_of
from ops.resolver import Lookup
from ops.spf import Spf, check_host, cost_of
from upstreams.traits import FROM_DOMAIN, MAIL_FROM_DOMAIN, Traits, traits_of


class Sure(StrEnum):
    """How one half of DMARC stands."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not known"


class Result(StrEnum):
    """What a receiver is expected to find."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NO_POLICY = "no policy"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Half:
    """SPF or DKIM: whether it will be good and aligned, with sentences."""

    sure: Sure
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Departure:
    """How mail leaves by one upstream. `mail_from` is the envelope sender's domain, "" for the null sender.

    `addresses` are ours, `host` is the server of a customer's own, `keys` are the blocks that sign here.
    """

    way: str
    traits: Traits
    from_domain: str
    mail_from: str
    addresses: tuple[IPv4Address, ...] = ()
    host: str | None = None
    keys: tuple[Dkim, ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """`told` are sentences, the summary first. `policy` is what DMARC asks receivers to do, "" without one."""

    way: str
    result: Result
    spf: Sure
    dkim: Sure
    policy: str
    told: tuple[str, ...]


def departure(
    rules: Rules, way: str, from_domain: str, mail_from: str, dkim: tuple[Dkim, ...], ours: tuple[IPv4Address, ...]
) -> Departure:
    """How mail of a route with these `dkim` blocks leaves by the upstream `way`; `ours` are our addresses."""
    settings = rules.upstreams[way].settings
    traits = traits_of(settings)
    keys = tuple(one for one in dkim if traits.takes_signature(always=one.always))
    return Departure(way, traits, from_domain, mail_from, ours, getattr(settings, "host", None), keys)


async def expect(dns: Lookup, leaving: Departure) -> Expectation:
    """Look everything up for one upstream."""
    try:
        policy = await policy_of(dns, leaving.from_domain)
        spf = await spf_half(dns, leaving, policy)
        dkim = await dkim_half(dns, leaving, policy)
    except DmarcUnknown as unknown:
        why = (f"not known: {unknown}",)
        return Expectation(leaving.way, Result.UNKNOWN, Sure.UNKNOWN, Sure.UNKNOWN, "", why)
    result = _result(policy, spf.sure, dkim.sure)
    summary = _summary(result, spf.sure, dkim.sure, policy)
    told = (summary, *spf.told, *dkim.told, f"DMARC: {policy_text(leaving.from_domain, policy)}", *policy.wrong)
    return Expectation(leaving.way, result, spf.sure, dkim.sure, policy.asked, told)


def policy_text(domain: str, policy: Policy) -> str:
    """The policy in words."""
    if policy.record is None:
        return f"{domain} has no record, nor has a name above it"
    where = f"_dmarc.{policy.record.domain}"
    modes = f"adkim={policy.record.adkim}, aspf={policy.record.aspf}"
    testing = "; t=y: receivers do the milder thing" if policy.record.testing else ""
    return f"{where} says {policy.tag}={policy.asked} ({modes}{testing})"


# ---- SPF ----------------------------------------------------------------------------------------------------------


async def spf_half(dns: Lookup, leaving: Departure, policy: Policy) -> Half:
    """Raises DmarcUnknown."""
    domain = _filled(leaving.traits.return_path, leaving)
    if not leaving.traits.return_path:
        return Half(Sure.NO, ("SPF: does not align, the return path is the provider's own",))
    if not domain:
        return Half(Sure.NO, ("SPF: is about the name in EHLO with the null sender, and is no help to From",))
    if leaving.traits.hidden_path:
        return _hidden(leaving.from_domain, policy)
    if not await aligned(dns, domain, leaving.from_domain, strict=policy.strict_spf):
        mode = " (aspf=s)" if policy.strict_spf else ""
        return Half(Sure.NO, (f"SPF: of {domain} does not align with From in {leaving.from_domain}{mode}",))
    sure, why = await sender_passes(dns, domain, leaving)
    return Half(sure, (f"SPF: aligns; {why}",))


def _hidden(from_domain: str, policy: Policy) -> Half:
    if policy.strict_spf:
        return Half(Sure.NO, (f"SPF: the return path is below {from_domain}, which aspf=s does not let count",))
    told = f"SPF: aligns once {from_domain} is authenticated at the provider, which makes a name below it"
    return Half(Sure.UNKNOWN, (told,))


async def sender_passes(dns: Lookup, domain: str, leaving: Departure) -> tuple[Sure, str]:
    """Whether the servers that send get an SPF pass for `domain`, and why."""
    cost = await cost_of(dns, domain)
    if cost.unknown:
        return Sure.UNKNOWN, cost.unknown
    if cost.error and not cost.record:
        return Sure.NO, cost.error
    if leaving.traits.spf_include:
        return _included(domain, leaving.traits.spf_include, cost.includes, cost.error)
    if leaving.traits.own_server:
        return await _all_pass(dns, domain, leaving.addresses)
    if cost.error:
        return Sure.NO, cost.error
    return await _host_passes(dns, domain, leaving.host)


def _included(domain: str, wanted: str, includes: frozenset[str], error: str) -> tuple[Sure, str]:
    if error:
        return Sure.NO, error
    if wanted in includes:
        return Sure.YES, f"the SPF record of {domain} includes {wanted}"
    return Sure.NO, f"the SPF record of {domain} does not include {wanted}"


async def _all_pass(dns: Lookup, domain: str, addresses: tuple[IPv4Address, ...]) -> tuple[Sure, str]:
    if not addresses:
        return Sure.UNKNOWN, "our addresses are not known: write them in `call_centre.addresses`"
    for address in addresses:
        verdict = await check_host(dns, address, domain, f"postmaster@{domain}")
        if verdict.result is Spf.TEMPERROR:
            return Sure.UNKNOWN, verdict.why
        if verdict.result is not Spf.PASS:
            return Sure.NO, f"our {address} gets {verdict.result}: {verdict.why}"
    shown = ", ".join(str(address) for address in addresses)
    return Sure.YES, f"our {shown} passes: {verdict.why}"


async def _host_passes(dns: Lookup, domain: str, host: str | None) -> tuple[Sure, str]:
    """Of a server that is not ours: it may send from another address than the one it listens on."""
    for text in await _addresses(dns, host or ""):
        verdict = await check_host(dns, ip_address(text), domain, f"postmaster@{domain}")
        if verdict.result is Spf.PASS:
            return Sure.YES, f"{host} ({text}) passes: {verdict.why}"
    return Sure.UNKNOWN, f"counts if the SPF record of {domain} names the server that sends"


async def _addresses(dns: Lookup, host: str) -> tuple[str, ...]:
    try:
        return (str(ip_address(host)),)
    except ValueError:
        return (await dns.ask(host, "A")).records if host else ()


# ---- DKIM ---------------------------------------------------------------------------------------------------------


async def dkim_half(dns: Lookup, leaving: Departure, policy: Policy) -> Half:
    """Raises DmarcUnknown."""
    halves = [await _ours(dns, one, leaving, policy) for one in leaving.keys]
    if leaving.traits.selectors or leaving.traits.signer:
        halves.append(await _theirs(dns, leaving, policy))
    if not halves:
        return _unsigned(leaving.traits)
    order = (Sure.YES, Sure.UNKNOWN, Sure.NO)
    best = min((half.sure for half in halves), key=order.index)
    return Half(best, tuple(told for half in halves for told in half.told))


def _unsigned(traits: Traits) -> Half:
    if traits.own_server:
        return Half(Sure.NO, ("DKIM: nobody signs; add `dkim:` to the route",))
    return Half(Sure.UNKNOWN, ("DKIM: none of ours; ask whether that server signs",))


async def _ours(dns: Lookup, dkim: Dkim, leaving: Departure, policy: Policy) -> Half:
    domain = dkim.domain
    if not await aligned(dns, domain, leaving.from_domain, strict=policy.strict_dkim):
        return Half(Sure.NO, (_unaligned(f"our signature d={domain}", leaving, policy),))
    if not dkim.key.reveal():
        return Half(Sure.UNKNOWN, (f"DKIM: d={domain} aligns; the key {dkim.key.reference} cannot be read here",))
    found = await key_at(dns, dkim.selector, domain, dkim.key.reveal())
    sure = {KeyRecord.OURS: Sure.YES, KeyRecord.UNKNOWN: Sure.UNKNOWN}.get(found.state, Sure.NO)
    return Half(sure, (f"DKIM: our signature d={domain} aligns; {found.told}",))


async def _theirs(dns: Lookup, leaving: Departure, policy: Policy) -> Half:
    domain = _filled(leaving.traits.signs_as, leaving)
    if not await aligned(dns, domain, leaving.from_domain, strict=policy.strict_dkim):
        return Half(Sure.NO, (_unaligned(f"the provider's signature d={domain}", leaving, policy),))
    signer = leaving.traits.signer or "the provider signs, if DKIM is switched on there"
    sure, told = await provider_keys(dns, leaving.traits, domain)
    return Half(sure, (f"DKIM: d={domain} aligns; {told}; {signer}",))


async def provider_keys(dns: Lookup, traits: Traits, domain: str) -> tuple[Sure, str]:
    """Whether the provider's DKIM records stand below `domain`."""
    there = {selector: await selector_exists(dns, selector, domain) for selector in traits.selectors}
    found = [selector for selector, exists in there.items() if exists]
    missing = [selector for selector, exists in there.items() if exists is False]
    if traits.selectors_needed == "any" and found:
        return Sure.YES, f"{found[0]}._domainkey.{domain} is there"
    if None in there.values():
        return Sure.UNKNOWN, f"the DKIM records of {domain} are not known"
    if traits.selectors_needed == "any":  # the provider's page lists those that were seen, and there may be others
        return Sure.UNKNOWN, f"none of {', '.join(there)} is below _domainkey.{domain}"
    if missing or not there:
        return Sure.NO, f"no record at {' or '.join(f'{one}._domainkey.{domain}' for one in missing)}"
    return Sure.YES, f"{' and '.join(f'{one}._domainkey.{domain}' for one in found)} are there"


def _unaligned(what: str, leaving: Departure, policy: Policy) -> str:
    mode = " (adkim=s)" if policy.strict_dkim else ""
    return f"DKIM: {what} does not align with From in {leaving.from_domain}{mode}"


# ---- both ---------------------------------------------------------------------------------------------------------


def _result(policy: Policy, spf: Sure, dkim: Sure) -> Result:
    if policy.record is None:
        return Result.NO_POLICY
    if Sure.YES in (spf, dkim):
        return Result.PASS
    return Result.UNKNOWN if Sure.UNKNOWN in (spf, dkim) else Result.FAIL


def _summary(result: Result, spf: Sure, dkim: Sure, policy: Policy) -> str:
    by = " and ".join(word for word, sure in (("SPF", spf), ("DKIM", dkim)) if sure is Sure.YES)
    if result is Result.PASS:
        return f"passes by {by}" + ("" if "and" in by else " alone: large receivers want both")
    if result is Result.NO_POLICY:
        return f"there is no DMARC record to pass; good and aligned is {by or 'neither SPF nor DKIM'}"
    if result is Result.UNKNOWN:
        return f"may pass: see what it hangs on (the policy is {policy.asked})"
    consequence = {"reject": "no such mail arrives", "quarantine": "it goes to spam"}.get(
        policy.asked, "it arrives all the same, as the policy is none"
    )
    return f"fails: {consequence}"


def _filled(template: str, leaving: Departure) -> str:
    return names.normal(template.replace(FROM_DOMAIN, leaving.from_domain).replace(MAIL_FROM_DOMAIN, leaving.mail_from))
