"""The doctor's look into the DNS: SPF, DKIM and DMARC of each domain a route sends from (dns-authentication.md 5).

What breaks delivery is a problem, what only weakens it a warning. Must never show a key.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.rules import Dkim
from ops.dkim_record import KeyRecord, key_at, record_of
from ops.dmarc import DmarcUnknown, policy_of
from ops.doctor import Grade, Patient, Verdict
from ops.expectation import Departure, Result, Sure, departure, expect, provider_keys, sender_passes
from ops.resolver import Known, reverse_name, zone_text
from ops.spf import LOOKUP_LIMIT, Spf, check_host, cost_of
from routing.mail import domain_of
from upstreams.traits import FROM_DOMAIN, MAIL_FROM_DOMAIN, Traits, traits_of

GOOD, WARNING, PROBLEM = Grade.GOOD, Grade.WARNING, Grade.PROBLEM
NOT_NOW = "ask again later; a DNS server did not answer"


async def spf(patient: Patient) -> list[Verdict]:
    """For each return path: one record, its lookups, and the servers that send."""
    found: dict[str, Verdict] = {}
    for leaving in departures(patient):
        domain = _return_path(leaving)
        if domain and not leaving.traits.hidden_path:
            verdict = await _spf_of(patient, leaving, domain)
            if domain not in found or _worse(verdict, found[domain]):
                found[domain] = verdict
    return list(found.values())


async def _spf_of(patient: Patient, leaving: Departure, domain: str) -> Verdict:
    cost = await cost_of(patient.dns, domain)
    if cost.unknown:
        return patient.verdict("SPF", WARNING, domain, cost.unknown, NOT_NOW)
    grade = PROBLEM if leaving.traits.own_server else WARNING
    if not cost.record:
        what = cost.error or f"{domain} has no SPF record"
        return patient.verdict("SPF", grade, domain, what, _spf_mend(patient, leaving.traits, domain, ""))
    if cost.error:
        return patient.verdict("SPF", PROBLEM, domain, cost.error, "fewer `include:`, or addresses in their place")
    sure, why = await sender_passes(patient.dns, domain, leaving)
    spent = f"{cost.lookups} of {LOOKUP_LIMIT} lookups"
    if sure is Sure.YES:
        return patient.verdict("SPF", GOOD, domain, f"{why}; {spent}")
    mend = _spf_mend(patient, leaving.traits, domain, cost.record)
    return patient.verdict("SPF", grade if sure is Sure.NO else WARNING, domain, f"{why}; {spent}", mend)


def _spf_mend(patient: Patient, traits: Traits, domain: str, record: str) -> str:
    if traits.spf_include:
        wanted = f"include:{traits.spf_include}"
    elif traits.own_server and patient.us is not None:
        us = patient.us
        wanted = f"include:{us.spf}" if us.spf else " ".join(f"ip4:{address}" for address in us.addresses)
    elif traits.own_server:
        return "write our addresses in `call_centre.addresses`, and have the record name them"
    else:
        return f"ask which server sends, and whether the SPF record of {domain} names it"
    if not record:
        return f'publish at {domain}: TXT "v=spf1 {wanted} ~all"'
    return f"put {wanted} into the record of {domain}, before its `all`"


async def incoming_hop(patient: Patient) -> list[Verdict]:
    """A provider that knows us by our address checks that hop too, so the customer's SPF record names it
    (dns-authentication.md 5).
    """
    found = []
    for name in patient.route.settings.upstreams:
        settings = patient.rules.upstreams[name].settings
        source = getattr(settings, "source_address", None)
        if not traits_of(settings).spf_include or source is None:
            continue
        for domain in patient.domains:
            verdict = await check_host(patient.dns, source, domain, f"postmaster@{domain}")
            if verdict.result is Spf.PASS:
                found.append(patient.verdict("SPF of our hop", GOOD, domain, f"names our {source}: {verdict.why}"))
            elif verdict.result is not Spf.TEMPERROR:
                mend = f"put ip4:{source} into the record of {domain}"
                what = f"{name} gets the mail from our {source}, to which SPF gives {verdict.result}"
                found.append(patient.verdict("SPF of our hop", WARNING, domain, what, mend))
    return found


async def dkim(patient: Patient) -> list[Verdict]:
    """Our own keys, and the providers' records."""
    found: dict[str, Verdict] = {}
    for leaving in departures(patient):
        for block in leaving.keys:
            verdict = await _own_key(patient, block)
            found.setdefault(verdict.where, verdict)
        if leaving.traits.selectors:
            domain = leaving.traits.signs_as.replace(FROM_DOMAIN, leaving.from_domain)
            verdict = await _provider_key(patient, leaving, domain)
            found.setdefault(f"{leaving.way} {domain}", verdict)
    return list(found.values())


async def _own_key(patient: Patient, block: Dkim) -> Verdict:
    where = f"{block.selector}._domainkey.{block.domain}"
    pem = block.key.reveal()
    if not pem:
        mend = "run this as root, or as the relay's own user"
        return patient.verdict("DKIM", WARNING, where, f"the key {block.key.reference} cannot be read here", mend)
    found = await key_at(patient.dns, block.selector, block.domain, pem)
    if found.state is KeyRecord.OURS and not found.testing:
        return patient.verdict("DKIM", GOOD, where, found.told)
    if found.state is KeyRecord.OURS:
        return patient.verdict("DKIM", WARNING, where, f"{found.told}, marked as a test", "take t=y out of the record")
    if found.state is KeyRecord.UNKNOWN:
        return patient.verdict("DKIM", WARNING, where, found.told, NOT_NOW)
    return patient.verdict("DKIM", PROBLEM, where, found.told, _key_mend(found.alias or where, pem))


def _key_mend(name: str, pem: str) -> str:
    return f"publish at {name}: TXT {zone_text(record_of(pem))}"


async def _provider_key(patient: Patient, leaving: Departure, domain: str) -> Verdict:
    sure, told = await provider_keys(patient.dns, leaving.traits, domain)
    where = f"{domain} by {leaving.way}"
    if sure is Sure.YES:
        return patient.verdict("DKIM", GOOD, where, told)
    if sure is Sure.UNKNOWN:
        return patient.verdict("DKIM", WARNING, where, told, "see the domain's page at the provider")
    grade = PROBLEM if not leaving.traits.return_path else WARNING  # then SPF cannot stand in for it
    mend = "switch DKIM on for the domain at the provider, and publish the records it shows"
    return patient.verdict("DKIM", grade, where, told, mend)


async def dmarc(patient: Patient) -> list[Verdict]:
    """What a receiver is expected to find, by each way."""
    found = []
    for leaving in departures(patient):
        expected = await expect(patient.dns, leaving)
        where, (summary, *rest) = f"{leaving.from_domain} by {leaving.way}", expected.told
        policy = next((told.removeprefix("DMARC: ") for told in rest if told.startswith("DMARC: ")), "")
        what = f"{summary}; {policy}" if policy else summary
        match expected.result:
            case Result.PASS if Sure.NO in (expected.spf, expected.dkim):
                weak = "SPF" if expected.spf is Sure.NO else "DKIM"
                verdict = patient.verdict("DMARC", WARNING, where, what, f"mend {weak} as well")
            case Result.PASS:
                verdict = patient.verdict("DMARC", GOOD, where, what)
            case Result.NO_POLICY:
                name = f"_dmarc.{leaving.from_domain}"
                verdict = patient.verdict("DMARC", WARNING, where, what, f'publish at {name}: TXT "v=DMARC1; p=none"')
            case Result.UNKNOWN:
                verdict = patient.verdict("DMARC", WARNING, where, what, _unknown_mend(expected.told))
            case _:
                grade = WARNING if expected.policy == "none" else PROBLEM
                verdict = patient.verdict("DMARC", grade, where, what, "make SPF or DKIM good and aligned")
        found.append(verdict)
    return found


def _unknown_mend(told: tuple[str, ...]) -> str:
    return NOT_NOW if len(told) == 1 else f"make sure of one: `route` tells what it hangs on ({len(told) - 1} lines)"


async def dmarc_records(patient: Patient) -> list[Verdict]:
    """Records that stand there and do not count."""
    found = []
    for domain in patient.domains:
        try:
            policy = await policy_of(patient.dns, domain)
        except DmarcUnknown:
            continue
        mend = "keep one record, which begins with v=DMARC1; p="
        found += [patient.verdict("DMARC record", PROBLEM, domain, wrong, mend) for wrong in policy.wrong]
    return found


async def reverse(patient: Patient) -> list[Verdict]:
    """The names of our own addresses, which receivers look up when our own server delivers."""
    ways = [patient.rules.upstreams[name] for name in patient.route.settings.upstreams]
    if patient.us is None or not any(traits_of(way.settings).own_server for way in ways):
        return []
    found = []
    for address in patient.us.addresses:
        pointer = await patient.dns.ask(reverse_name(address), "PTR")
        if pointer.known is Known.UNKNOWN:
            found.append(patient.verdict("reverse name", WARNING, str(address), f"not known: {pointer.why}", NOT_NOW))
            continue
        good = [name for name in pointer.records if str(address) in (await patient.dns.ask(name, "A")).records]
        if good:
            found.append(patient.verdict("reverse name", GOOD, str(address), f"is {good[0]}, and that leads back"))
        else:
            what = "has no name that leads back to it; Gmail and Yahoo refuse such senders"
            mend = "have our provider set its PTR to a name of ours whose A record is this address"
            found.append(patient.verdict("reverse name", WARNING, str(address), what, mend))
    return found


def departures(patient: Patient) -> Iterator[Departure]:
    """Every way for every From domain."""
    settings = patient.route.settings
    ours = patient.us.addresses if patient.us else ()
    for domain in patient.domains:
        mail_from = domain_of(settings.sender.address) if settings.sender is not None else domain
        for name in settings.upstreams:
            yield departure(patient.rules, name, domain, mail_from, settings.dkim, ours)


def _return_path(leaving: Departure) -> str:
    path = leaving.traits.return_path
    return path.replace(FROM_DOMAIN, leaving.from_domain).replace(MAIL_FROM_DOMAIN, leaving.mail_from)


def _worse(one: Verdict, other: Verdict) -> bool:
    order = list(Grade)
    return order.index(one.grade) > order.index(other.grade)
