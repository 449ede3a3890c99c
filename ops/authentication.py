"""What `check` says of a route's authentication: signatures that nobody makes or needs, mail that no receiver can
authenticate, and mailboxes that are small or not the sender's.

Warnings from the rules alone, without the DNS. Must never know a brand: each upstream tells its traits.
"""

from __future__ import annotations

from collections.abc import Iterator

from config import names
from config.fields import Mistake
from config.problems import Problem
from config.rules import Dkim, Route, Rules
from ops.alignment import Relation, align, relation
from routing.mail import domain_of
from upstreams.traits import Traits, traits_of


def authentication_problems(rules: Rules, route: Route) -> Iterator[Problem]:
    """Of one route whose upstreams exist."""
    traits = {name: traits_of(rules.upstreams[name].settings) for name in route.settings.upstreams}
    yield from _small_mailbox(route, traits)
    yield from _unsigned(route, traits)
    yield from _not_aligned(route, traits)
    yield from _another_mailbox(route, traits)
    for number, dkim in enumerate(route.settings.dkim):
        where = f"dkim[{number}]" if len(route.settings.dkim) > 1 else "dkim"
        yield from _idle_signature(route, where, dkim, traits)
        yield from _foreign_signature(route, where, dkim)


def _small_mailbox(route: Route, traits: dict[str, Traits]) -> Iterator[Problem]:
    """One mailbox of ours for a customer's whole traffic, at a provider that counts."""
    for name, one in traits.items():
        if route.settings.sender is not None and one.volume:
            wrong = f"all its mail leaves as {route.settings.sender.address} by {name}, where {one.volume}"
            mend = "keep it to little mail, or send it by another upstream"
            yield _warning(route, "sender", wrong, mend)


def _unsigned(route: Route, traits: dict[str, Traits]) -> Iterator[Problem]:
    """Not for the null sender: whose From its mail carries is not known here."""
    signed = route.settings.dkim or set(route.settings.from_) == {names.NULL_PATTERN}
    for name, one in traits.items():
        if one.own_server and not signed:
            wrong = f"leaves by {name}, a server without a login, and nobody signs it: large receivers want DKIM"
            yield _warning(route, "", wrong, "add `dkim:` with a key of the From domain, unless that server signs")


def _not_aligned(route: Route, traits: dict[str, Traits]) -> Iterator[Problem]:
    """A way that signs and bounces in a domain that no From can align with: DMARC fails whatever the records say."""
    for name, one in traits.items():
        ours = tuple(dkim.domain for dkim in route.settings.dkim if one.takes_signature(always=dkim.always))
        judged = [(domain, align(name, one, domain, domain, ours)) for domain in map(_domain, _froms(route)) if domain]
        failing = [domain for domain, found in judged if found.spf is found.dkim is Relation.NONE]
        if failing:
            wrong = (
                f"leaves by {name}, where neither the return path nor a signature is in {' or '.join(failing)}: "
                "no such mail passes DMARC"
            )
            mend = "use an upstream of the From domain, or write `sender:` with an address in the upstream's"
            yield _warning(route, "", wrong, mend)


def _another_mailbox(route: Route, traits: dict[str, Traits]) -> Iterator[Problem]:
    """A way that sends as one mailbox, for mail that has another one in From."""
    for name, one in traits.items():
        others = [text for text in _froms(route) if one.mailbox and not _covers(text, one.mailbox)]
        if others:
            wrong = f"leaves by {name} as {one.mailbox}, where mail From {' or '.join(others)} is refused"
            mend = f"write `sender: {{address: {one.mailbox}}}`, unless that mailbox may send as others"
            yield _warning(route, "", wrong, mend)


def _covers(pattern: str, mailbox: str) -> bool:
    """Whether mail of these senders may be From that mailbox."""
    domain = domain_of(mailbox)
    if pattern.startswith("*."):
        return domain.endswith(pattern[1:])
    return pattern in (names.NULL_PATTERN, names.ANY_PATTERN, mailbox, domain)


def _idle_signature(route: Route, where: str, dkim: Dkim, traits: dict[str, Traits]) -> Iterator[Problem]:
    """A block that signs nothing. Where one of several upstreams takes it, it is there for that one."""
    if any(one.takes_signature(always=dkim.always) for one in traits.values()):
        return
    if all(one.signing == "rebuilt" for one in traits.values()):
        wrong = f"is never applied: {_names(traits)} makes a new mail of ours, and no signature outlives that"
        yield Problem(route.place, _path(route, where), wrong, "leave it out", warning=not dkim.always)
    else:
        wrong = f"is not applied: {_names(traits)} signs for itself"
        yield _warning(route, where, wrong, "leave it out, or write `always: true` to sign as well")


def _foreign_signature(route: Route, where: str, dkim: Dkim) -> Iterator[Problem]:
    """A d= that no From of the route can align with."""
    domains = [found for text in _froms(route) if (found := _domain(text))]
    if domains and all(relation(dkim.domain, one) is Relation.NONE for one in domains):
        wrong = f"signs as {dkim.domain}, which aligns with no From of the route ({', '.join(domains)})"
        yield _warning(route, f"{where}.domain", wrong, "write the domain of the From field")


def _froms(route: Route) -> tuple[str, ...]:
    """Patterns of the addresses in From, in normal form: `sender:`, or what From has where it is as the envelope is."""
    sender = route.settings.sender
    return route.settings.from_ if sender is None else (names.address(sender.address),)


def _domain(text: str) -> str:
    """The domain in an address or a pattern; "" for `<>`, `*` and what is none."""
    bare = text.removeprefix("*.")
    try:
        return names.domain(domain_of(bare) or bare) if bare not in (names.NULL_PATTERN, names.ANY_PATTERN) else ""
    except Mistake:
        return ""


def _names(traits: dict[str, Traits]) -> str:
    return " or ".join(traits)


def _path(route: Route, where: str) -> str:
    return f"route {route.name}, {where}" if where else f"route {route.name}"


def _warning(route: Route, where: str, wrong: str, mend: str) -> Problem:
    return Problem(route.place, _path(route, where), wrong, mend, True)
