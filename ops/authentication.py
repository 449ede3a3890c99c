"""What `check` says of a route's authentication: signatures that nobody makes or needs, and mailboxes that are small.

Warnings from the rules alone, without the DNS. Must never know a brand: each upstream tells its traits.
"""

from __future__ import annotations

from collections.abc import Iterator

from config import names
from config.fields import Mistake
from config.problems import Problem
from config.rules import Dkim, Route, Rules
from ops.alignment import Relation, relation
from routing.mail import domain_of
from upstreams.traits import Traits, traits_of


def authentication_problems(rules: Rules, route: Route) -> Iterator[Problem]:
    """Of one route whose upstreams exist."""
    traits = {name: traits_of(rules.upstreams[name].settings) for name in route.settings.upstreams}
    yield from _small_mailbox(route, traits)
    yield from _unsigned(route, traits)
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
    sender = route.settings.sender
    senders = (sender.address,) if sender is not None else route.settings.from_
    domains = [found for text in senders if (found := _domain(text))]
    signed = _domain(dkim.domain)
    if signed and domains and all(relation(signed, one) is Relation.NONE for one in domains):
        wrong = f"signs as {dkim.domain}, which aligns with no From of the route ({', '.join(domains)})"
        yield _warning(route, f"{where}.domain", wrong, "write the domain of the From field")


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
