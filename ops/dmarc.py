"""DMARC in the DNS (RFC 9989): the record that counts for a domain, and the organisation a name belongs to.

Found by the tree walk, at most eight questions; no list of public suffixes. What could not be asked is `DmarcUnknown`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ops.resolver import Known, Lookup

_LABELS: Final = 7
"""A longer name is cut to so many labels after the first question (RFC 9989, the tree walk)."""
POLICIES: Final = ("none", "quarantine", "reject")


class DmarcUnknown(Exception):
    """A record could not be asked for. The text says which, and why."""


@dataclass(frozen=True, slots=True)
class Record:
    """One valid record, at `_dmarc.` + `domain`. `sp` and `np` are "" when left out, `psd` is y, n or u."""

    domain: str
    text: str
    p: str
    sp: str
    np: str
    adkim: str
    aspf: str
    psd: str
    testing: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What DMARC says of mail From a domain. `record` is None when nothing does.

    `tag` is p, sp or np, whichever counts, `asked` its value. `wrong` are sentences on records that do not count.
    """

    record: Record | None
    tag: str
    asked: str
    wrong: tuple[str, ...] = ()

    @property
    def strict_spf(self) -> bool:
        """aspf=s."""
        return self.record is not None and self.record.aspf == "s"

    @property
    def strict_dkim(self) -> bool:
        """adkim=s."""
        return self.record is not None and self.record.adkim == "s"


async def policy_of(dns: Lookup, domain: str) -> Policy:
    """The policy for mail From `domain`. Raises DmarcUnknown."""
    own, wrong = await _at(dns, domain)
    if own is not None:
        return Policy(own, "p", own.p, wrong)
    records, more = await _walk(dns, domain)
    organisation = _organisation(domain, records)
    found = next((one for one in records if one.domain == organisation), None)
    found = found or next((one for one in records if one.psd == "y"), None)
    if found is None:
        return Policy(None, "", "", tuple(dict.fromkeys((*wrong, *more))))
    tag, asked = await _for_subdomain(dns, domain, found)
    return Policy(found, tag, asked, tuple(dict.fromkeys((*wrong, *more))))


async def organisation_of(dns: Lookup, domain: str) -> str:
    """The organisational domain of a name. Raises DmarcUnknown."""
    records, _ = await _walk(dns, domain)
    return _organisation(domain, records)


async def aligned(dns: Lookup, domain: str, from_domain: str, *, strict: bool) -> bool:
    """Whether `domain` stands for `from_domain` (RFC 9989, identifier alignment). Raises DmarcUnknown."""
    if domain == from_domain:
        return True
    return not strict and await organisation_of(dns, domain) == await organisation_of(dns, from_domain)


async def _for_subdomain(dns: Lookup, domain: str, record: Record) -> tuple[str, str]:
    """Which tag counts for a name below the record's: np for one that does not exist, else sp, else p."""
    if record.np:
        found = await dns.ask(domain, "A")
        if found.known is Known.UNKNOWN:
            raise DmarcUnknown(f"whether {domain} exists is not known: {found.why}")
        if found.known is Known.NO_NAME:
            return "np", record.np
    return ("sp", record.sp) if record.sp else ("p", record.p)


async def _walk(dns: Lookup, domain: str) -> tuple[list[Record], tuple[str, ...]]:
    """Every valid record from the name itself upwards, until one with psd=n or psd=y."""
    records: list[Record] = []
    wrong: tuple[str, ...] = ()
    for name in _steps(domain):
        record, more = await _at(dns, name)
        wrong += more
        if record is not None:
            records.append(record)
            if record.psd in "ny":
                break
    return records, wrong


def _steps(domain: str) -> list[str]:
    labels = domain.split(".")
    shorter = labels[1:] if len(labels) <= _LABELS else labels[-_LABELS:]
    return [domain, *(".".join(shorter[number:]) for number in range(len(shorter)))]


def _organisation(start: str, records: list[Record]) -> str:
    for record in records:  # from the longest name to the shortest
        if record.psd == "n":
            return record.domain
        if record.psd == "y" and record.domain != start:
            labels = start.split(".")
            return ".".join(labels[-(len(record.domain.split(".")) + 1) :])
    return records[-1].domain if records else start


async def _at(dns: Lookup, domain: str) -> tuple[Record | None, tuple[str, ...]]:
    """The record at one name, and why there is none when something like one stands there."""
    name = f"_dmarc.{domain}"
    found = await dns.ask(name, "TXT")
    if found.known is Known.UNKNOWN:
        raise DmarcUnknown(f"TXT of {name} is not known: {found.why}")
    texts = [text for text in found.records if _is_dmarc(text)]
    if len(texts) > 1:
        return None, (f"{name} has {len(texts)} DMARC records, so none of them counts: keep one",)
    if not texts:
        return None, ()
    record = _record(domain, texts[0])
    return record, () if record else (f"the DMARC record at {name} has no p= that can be read, so it does not count",)


def _is_dmarc(text: str) -> bool:
    name, equals, version = text.partition(";")[0].partition("=")
    return bool(equals) and name.strip().lower() == "v" and version.strip() == "DMARC1"


def _record(domain: str, text: str) -> Record | None:
    """The record; None when it has to be ignored. One with reports but no usable policy counts as p=none."""
    tags: dict[str, str] = {}
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), value.strip())
    policies = {tag: tags.get(tag, "").lower() for tag in ("p", "sp", "np")}
    bad = policies["p"] not in POLICIES or any(policies[tag] not in ("", *POLICIES) for tag in ("sp", "np"))
    if bad:
        if "mailto:" not in tags.get("rua", "").lower():
            return None
        policies = {"p": "none", "sp": "", "np": ""}
    modes = {tag: "s" if tags.get(tag, "").lower() == "s" else "r" for tag in ("adkim", "aspf")}
    psd = tags.get("psd", "u").lower()
    return Record(
        domain,
        text,
        **policies,
        **modes,
        psd=psd if psd in ("y", "n") else "u",
        testing=tags.get("t", "").lower() == "y",
    )
