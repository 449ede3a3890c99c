"""Whether a mail can pass DMARC (RFC 9989) by what we do and what a provider is known to do, without asking the DNS.

Must never promise a pass: records, keys and the provider's account decide, and each answer names what it hangs on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from upstreams.traits import FROM_DOMAIN, MAIL_FROM_DOMAIN, Traits


class Relation(StrEnum):
    """How a domain stands to the domain of the From field.

    The organisational domain is found in the DNS (RFC 9989 4.10), so a name above or below the other counts as the same
    organisation's, and two names with a common parent only perhaps.
    """

    SAME = "same"
    RELAXED = "relaxed"
    PERHAPS = "perhaps"
    NONE = "none"

    @property
    def aligned(self) -> bool:
        """True when a receiver will count it, with the default `r` of aspf and adkim at least."""
        return self in (Relation.SAME, Relation.RELAXED)


@dataclass(frozen=True, slots=True)
class Alignment:
    """What to expect by one upstream, `way`. `spf` and `dkim` are the best relation there is; `told` says it in
    sentences, the summary first.
    """

    way: str
    spf: Relation
    dkim: Relation
    told: tuple[str, ...]


def relation(domain: str, from_domain: str) -> Relation:
    """How `domain` stands to `from_domain`, both in normal form (`config.names.domain`)."""
    if domain == from_domain:
        return Relation.SAME
    if domain.endswith(f".{from_domain}") or from_domain.endswith(f".{domain}"):
        return Relation.RELAXED
    return Relation.PERHAPS if "." in _common(domain, from_domain) else Relation.NONE


def align(way: str, traits: Traits, from_domain: str, mail_from_domain: str, signed_as: tuple[str, ...]) -> Alignment:
    """What to expect of a mail From `from_domain` that leaves by an upstream with these traits.

    `mail_from_domain` is that of the envelope sender after rewriting, "" for the null sender; `signed_as` are the d= of
    our own signatures on this way.
    """
    spf, spf_told = _spf(traits, from_domain, mail_from_domain)
    found = [_our_signature(domain, from_domain) for domain in signed_as]
    if traits.signer:
        signs_as = _domain(traits.signs_as, from_domain, mail_from_domain)
        found.append((relation(signs_as, from_domain), _provider(traits.signer, signs_as, from_domain)))
    dkim = min((one for one, _ in found), key=list(Relation).index, default=Relation.NONE)
    dkim_told = [told for _, told in found] or ["DKIM: none of ours; ask whether that server signs"]
    return Alignment(way, spf, dkim, (_summary(spf, dkim), spf_told, *dkim_told))


def _spf(traits: Traits, from_domain: str, mail_from_domain: str) -> tuple[Relation, str]:
    if not traits.return_path:
        return Relation.NONE, "SPF: cannot align, the return path is the provider's own"
    domain = _domain(traits.return_path, from_domain, mail_from_domain)
    if not domain:
        return Relation.NONE, "SPF: with the null sender it is about the name in EHLO, and is no help to From"
    found = relation(domain, from_domain)
    where = f"the return path is in {domain}, From in {from_domain}"
    if found.aligned:
        strict = _unless(found, from_domain, "aspf")
        return found, f"SPF: aligns{strict}, {where}; counts if the SPF record of {domain} names the sending server"
    return found, f"SPF: {_not_aligned(found, domain, from_domain)}, {where}"


def _our_signature(domain: str, from_domain: str) -> tuple[Relation, str]:
    found = relation(domain, from_domain)
    if found.aligned:
        strict = _unless(found, from_domain, "adkim")
        return found, f"DKIM: our signature d={domain} aligns{strict}; counts if its record holds our key"
    return found, f"DKIM: our signature d={domain} {_not_aligned(found, domain, from_domain)} with {from_domain}"


def _provider(signer: str, signs_as: str, from_domain: str) -> str:
    found = relation(signs_as, from_domain)
    if found.aligned:
        return f"DKIM: {signer}; d={signs_as} then aligns{_unless(found, from_domain, 'adkim')}"
    return f"DKIM: {signer}; but d={signs_as} {_not_aligned(found, signs_as, from_domain)} with {from_domain}"


def _unless(found: Relation, from_domain: str, tag: str) -> str:
    return "" if found is Relation.SAME else f" (not when DMARC of {from_domain} says {tag}=s)"


def _not_aligned(found: Relation, domain: str, from_domain: str) -> str:
    if found is Relation.PERHAPS:
        return f"aligns only if all below {_common(domain, from_domain)} is one organisation's"
    return "does not align"


def _summary(spf: Relation, dkim: Relation) -> str:
    if spf.aligned and dkim.aligned:
        return "can pass by SPF and by DKIM"
    if dkim.aligned:
        return "can pass by DKIM alone"
    if spf.aligned:
        return "can pass by SPF alone: forwarding breaks that, and large receivers want both"
    if Relation.PERHAPS in (spf, dkim):
        return "may pass: see what it hangs on"
    return "cannot pass: where DMARC says p=reject no such mail arrives"


def _domain(template: str, from_domain: str, mail_from_domain: str) -> str:
    return template.replace(FROM_DOMAIN, from_domain).replace(MAIL_FROM_DOMAIN, mail_from_domain)


def _common(one: str, other: str) -> str:
    """The labels both end in."""
    shared: list[str] = []
    for mine, theirs in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        shared.insert(0, mine)
    return ".".join(shared)
