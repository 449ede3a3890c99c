"""What would happen to a mail of this sender, and why: `route info@acme.nl`. Nothing is sent.

Only the DNS is asked, where `expected` is called. Must never show a secret, nor any of the mail's content.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Final

from config import names
from config.fields import Duration
from config.relay_settings import Delivery, Dns, Relay
from config.rules import Dkim, Route, Rules, Sender
from ops.alignment import Alignment, align
from ops.expectation import Expectation, departure, expect
from ops.order_of_ways import role_of, used_when
from ops.resolver import LiveDns, Lookup
from routing.headers import mailboxes
from routing.mail import NULL_SENDER, domain_of
from routing.rewrite import rewrite
from routing.table import Table
from upstreams.base import Kinds
from upstreams.traits import traits_of

_DNS_SECONDS: Final = 2.0
"""For one question; all together may take twice as long."""


@dataclass(frozen=True, slots=True)
class Way:
    """One upstream of the route. `role` is `via`, `else via` or `canary`, `used` sentences about when mail takes it,
    `goes_to` its host or URL where its settings have one, `losses` what the mail at hand would lose there.
    """

    name: str
    kind: str
    place: str
    goes_to: str | None
    source_address: str | None
    losses: tuple[str, ...] = ()
    role: str = "via"
    used: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """`route` is the name of the route, None when the sender is refused; `pattern` is what matched it.

    `sender` and `recipients` are the envelope as the upstream would get it: with `redirect` that address alone.
    `bounces` is who gets the reports, None for the envelope sender. `changes` are sentences about what differs
    from the mail as it came in, `signatures` what is signed. `alignments` say for each way what to expect of DMARC, for
    a From in `from_domain` (None when the mail at hand has not exactly one address there). `why_not` explains a refusal
    and `nearest` what may have been meant. `expected` replaces `alignments` where the DNS was asked,
    and `dns_silent` is True where it did not answer.
    """

    address: str
    route: str | None
    pattern: str | None = None
    place: str | None = None
    ways: tuple[Way, ...] = ()
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    from_domain: str | None = None
    alignments: tuple[Alignment, ...] = ()
    why_not: str | None = None
    nearest: tuple[str, ...] = ()
    redirect: str | None = None
    bounces: str | None = None
    expected: tuple[Expectation, ...] = ()
    dns_silent: bool = False


async def expected(explanation: Explanation, rules: Rules, dns: Lookup, ours: tuple[IPv4Address, ...]) -> Explanation:
    """The explanation with what the DNS says of it; `ours` are the addresses we send from."""
    route = next((route for route in rules.routes if route.name == explanation.route), None)
    if route is None or not explanation.from_domain:
        return explanation
    mail_from = _domain((explanation.sender or "").strip("<>"))
    found = [
        await expect(dns, departure(rules, name, explanation.from_domain, mail_from, route.settings.dkim, ours))
        for name in route.settings.upstreams
    ]
    offline = {alignment.way: alignment.told for alignment in explanation.alignments}
    told = [one if one.policy or len(one.told) > 1 else replace(one, told=one.told + offline[one.way]) for one in found]
    return replace(explanation, expected=tuple(told))


def look_up(explanation: Explanation, rules: Rules, relay: Relay | None) -> Explanation:
    """The explanation with what the DNS says of it, or as it was when the DNS is not heard within seconds."""
    settings = relay.dns if relay else Dns()
    ours = relay.call_centre.addresses if relay and relay.call_centre else ()
    dns = LiveDns(replace(settings, timeout=Duration(min(settings.timeout, _DNS_SECONDS))))

    async def asking() -> Explanation:
        async with asyncio.timeout(_DNS_SECONDS * 2):
            return await expected(explanation, rules, dns, ours)

    try:
        return asyncio.run(asking())
    except TimeoutError:
        return replace(explanation, dns_silent=True)


def explain(
    rules: Rules,
    address: str,
    to: tuple[str, ...] = (),
    content: bytes | None = None,
    kinds: Kinds = MappingProxyType({}),
    fallback_after: float = Delivery().fallback_after,
) -> Explanation:
    """Explain one envelope sender; "" and `<>` are the null sender.

    `content` is the mail, for what would change, and what the upstreams of `kinds` would lose of it;
    `fallback_after` as in `Delivery`, in seconds.
    """
    sender = NULL_SENDER if address.strip() == names.NULL_PATTERN else address.strip()
    route = Table(rules.routes).match(sender)
    if route is None:
        return _refusal(rules, sender)
    content = None if content is None else content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # files have LF
    leaves_as, changes, content = _rewriting(route.settings.sender, sender, content)
    from_domain = _from_domain(route.settings.sender, leaves_as, content)
    return Explanation(
        address=sender or names.NULL_PATTERN,
        route=route.name,
        pattern=_pattern_of(route, sender),
        place=str(route.place),
        ways=tuple(_ways(rules, route, kinds, content, fallback_after)),
        sender=leaves_as or names.NULL_PATTERN,
        recipients=to if route.settings.redirect is None else (route.settings.redirect,),
        changes=changes,
        signatures=tuple(_signatures(rules, route)),
        from_domain=from_domain,
        alignments=_alignments(rules, route, from_domain, leaves_as),
        redirect=route.settings.redirect,
        bounces=route.settings.bounces,
    )


def render_json(explanation: Explanation) -> str:
    """The fields of `Explanation`, in one object."""
    return json.dumps(asdict(explanation), ensure_ascii=False)


def render_text(explanation: Explanation) -> str:
    """A few lines for a terminal."""
    if explanation.route is None:
        lines = [f"{explanation.address} is refused: 550 5.7.1", f"  why        {explanation.why_not}"]
        lines += [f"  nearest    {nearest}" for nearest in explanation.nearest]
        return "\n".join(lines)
    lines = [f"{explanation.address} takes route {explanation.route}"]
    lines += [f"  rule       {explanation.place}, from: {explanation.pattern}"]
    for way in explanation.ways:
        lines.append(f"  {way.role:10} {_way_text(way)}")
        lines += [f"               {used}" for used in way.used]
    lines.append(f"  envelope   MAIL FROM {_bracketed(explanation.sender)}")
    lines += [f"             RCPT TO {_bracketed(recipient)}" for recipient in explanation.recipients]
    if explanation.redirect is not None:
        lines += _told("redirected", ("yes: every mail goes to this address, and to no recipient",))
    if explanation.bounces is not None:
        lines += _told("reports", (f"of undelivered mail go to {explanation.bounces}",))
    lines += _told("rewritten", explanation.changes or ("no",))
    lines += _told("signed", explanation.signatures or ("no (not by us)",))
    for way in explanation.ways:
        lines += _told("loses", tuple(f"by {way.name}: {loss}" for loss in way.losses))
    lines += _told("DMARC", tuple(_dmarc(explanation)))
    return "\n".join(lines)


def _told(word: str, sentences: tuple[str, ...]) -> list[str]:
    return [f"  {word if number == 0 else '':10} {sentence}" for number, sentence in enumerate(sentences)]


def _dmarc(explanation: Explanation) -> Iterator[str]:
    if explanation.from_domain is None:
        yield "cannot pass: there must be one From field, with one address"
    if explanation.dns_silent:
        yield "the DNS did not answer, so this is by the rules alone"
    for alignment in explanation.expected or explanation.alignments:
        summary, *rest = alignment.told
        yield f"by {alignment.way}: {summary}"
        yield from (f"  {told}" for told in rest)


def _bracketed(address: str | None) -> str:
    return f"<{(address or '').strip('<>')}>"


def _way_text(way: Way) -> str:
    to = f" to {way.goes_to}" if way.goes_to else ""
    source = f", from source address {way.source_address}" if way.source_address else ""
    return f"{way.name} ({way.kind}{to}{source})  {way.place}"


def _ways(rules: Rules, route: Route, kinds: Kinds, content: bytes | None, fallback_after: float) -> Iterator[Way]:
    for name in route.settings.upstreams:
        used = tuple(used_when(route.settings, name, fallback_after))
        yield replace(_way(rules, name, kinds, content), role=role_of(route.settings, name), used=used)


def _way(rules: Rules, name: str, kinds: Kinds, content: bytes | None) -> Way:
    upstream = rules.upstreams[name]
    settings = upstream.settings
    goes_to = next(
        (str(value) for key in ("host", "base_url", "path") if (value := getattr(settings, key, None))), None
    )
    source = getattr(settings, "source_address", None)
    losses = kinds[upstream.kind].losses if upstream.kind in kinds else None
    lost = losses(settings, content) if losses is not None and content is not None else ()
    return Way(name, upstream.kind, str(upstream.place), goes_to, str(source) if source else None, lost)


def _pattern_of(route: Route, sender: str) -> str:
    """Which of the route's patterns took the sender, by a table in which each is a route of its own."""
    alone = Table(
        Route(pattern, replace(route.settings, from_=(pattern,)), route.place) for pattern in route.settings.from_
    )
    found = alone.match(sender)
    return found.name if found is not None else route.name


def _domain(sender: str) -> str:
    return names.normal(domain_of(sender))


def _rewriting(
    sender: Sender | None, envelope_sender: str, content: bytes | None
) -> tuple[str, tuple[str, ...], bytes | None]:
    """The envelope sender as it leaves, sentences about what changes, and the mail after it."""
    if sender is None or envelope_sender == NULL_SENDER:  # reports of ours leave as they are
        return envelope_sender, (), content
    if content is not None:
        done = rewrite(envelope_sender, content, sender)
        return done.sender, tuple(f"{change} changes" for change in done.changes), done.content
    reply_to = {"original": "the original address", "none": "nothing"}.get(sender.reply_to, sender.reply_to)
    name = f'"{sender.name}"' if sender.name else "the name it came with"
    changes = [f"From becomes {name} <{sender.address}>", f"Reply-To becomes {reply_to}"]
    if sender.original_from:
        changes.append("X-Original-From keeps the From that was replaced")
    return sender.address, tuple(changes), None


def _from_domain(sender: Sender | None, leaves_as: str, content: bytes | None) -> str | None:
    """Of the mail as it leaves; without one, what the route makes of it, or else the envelope sender's. None when a
    mail has no single address there.
    """
    if content is not None:
        found = mailboxes(content, "From")
        return _domain(found[0].address) if len(found) == 1 else None
    return _domain(sender.address if sender is not None and leaves_as else leaves_as)


def _signatures(rules: Rules, route: Route) -> Iterator[str]:
    for dkim in route.settings.dkim:
        takers = [name for name in route.settings.upstreams if _signed_by_us(rules, name, dkim)]
        only = "" if len(takers) == len(route.settings.upstreams) else f", only by {', '.join(takers)}"
        if takers:
            yield f"d={dkim.domain} s={dkim.selector} (record {dkim.selector}._domainkey.{dkim.domain}){only}"


def _signed_by_us(rules: Rules, name: str, dkim: Dkim) -> bool:
    return traits_of(rules.upstreams[name].settings).takes_signature(always=dkim.always)


def _alignments(rules: Rules, route: Route, from_domain: str | None, leaves_as: str) -> tuple[Alignment, ...]:
    if not from_domain:
        return ()
    found = []
    for name in route.settings.upstreams:
        traits = traits_of(rules.upstreams[name].settings)
        ours = {dkim.domain for dkim in route.settings.dkim if traits.takes_signature(always=dkim.always)}
        found.append(align(name, traits, from_domain, _domain(leaves_as), tuple(sorted(ours))))
    return tuple(found)


# ---- why not ---------------------------------------------------------------------------------------------------


def _refusal(rules: Rules, sender: str) -> Explanation:
    if sender == NULL_SENDER:
        why = 'no route has `from: "<>"`, and only that takes the null sender'
        return Explanation(names.NULL_PATTERN, None, why_not=why)
    domain = _domain(sender)
    if not domain:
        why = "it has no domain, and there is no `*` route"
        return Explanation(sender, None, why_not=why, nearest=_senders_of(rules, sender.lower()))
    why = f"no route takes {domain}, none a parent of it, and there is no `*` route"
    return Explanation(sender, None, why_not=why, nearest=_nearest(rules, domain))


def _senders_of(rules: Rules, domain: str) -> tuple[str, ...]:
    """What to ask for when a domain was typed where an address belongs."""
    taken = any(domain in route.settings.from_ for route in rules.routes)
    return (f"{domain} is a domain with a route: ask for a sender of it, such as info@{domain}",) if taken else ()


def _nearest(rules: Rules, domain: str) -> tuple[str, ...]:
    places = {pattern: route for route in rules.routes for pattern in route.settings.from_}
    told = [_nearly(pattern, domain) for pattern in places if _is_relative(pattern, domain)]
    candidates = {
        pattern.removeprefix("*."): pattern for pattern in reversed(places) if not _is_relative(pattern, domain)
    }
    close = difflib.get_close_matches(domain, [text for text in candidates if "@" not in text], n=3, cutoff=0.75)
    told += [f"did you mean {candidates[text]}? ({places[candidates[text]].place})" for text in close]
    return tuple(dict.fromkeys(told))


def _is_relative(pattern: str, domain: str) -> bool:
    bare = pattern.removeprefix("*.").rpartition("@")[2]
    return bare == domain or ("@" not in pattern and domain.endswith(f".{bare}"))


def _nearly(pattern: str, domain: str) -> str:
    if "@" in pattern:
        return f"{pattern} has a route, for that address alone: write {domain} to take the whole domain"
    if pattern.startswith("*."):
        return f"{pattern} takes only what is below it: add {domain} to that route"
    return f'{pattern} does not take what is below it: add "*.{pattern}" to that route'
