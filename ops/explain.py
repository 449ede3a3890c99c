"""What would happen to a mail of this sender, and why: `route info@acme.nl`. Nothing is sent and nobody is asked.

Must never show a secret, nor any of the mail's content.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import asdict, dataclass, replace

from config import names
from config.fields import Mistake
from config.rules import Dkim, Route, Rules, Sender
from routing.mail import NULL_SENDER, domain_of
from routing.rewrite import rewrite
from routing.table import Table


@dataclass(frozen=True, slots=True)
class Way:
    """One upstream of `via`, in the order they are tried. `goes_to` is its host or URL where its settings have one."""

    name: str
    kind: str
    place: str
    goes_to: str | None
    source_address: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`route` is the name of the route, None when the sender is refused; `pattern` is what matched it.

    `sender` and `recipients` are the envelope as the upstream would get it. `changes` are sentences about what differs
    from the mail as it came in, `signatures` what is signed. `why_not` explains a refusal and `nearest` what may have
    been meant.
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
    why_not: str | None = None
    nearest: tuple[str, ...] = ()


def explain(rules: Rules, address: str, to: tuple[str, ...] = (), content: bytes | None = None) -> Explanation:
    """Explain one envelope sender; "" and `<>` are the null sender. `content` is the mail, for what would change."""
    sender = NULL_SENDER if address.strip() == names.NULL_PATTERN else address.strip()
    route = Table(rules.routes).match(sender)
    if route is None:
        return _refusal(rules, sender)
    leaves_as, changes = _rewriting(route.settings.sender, sender, content)
    return Explanation(
        address=sender or names.NULL_PATTERN,
        route=route.name,
        pattern=_pattern_of(route, sender),
        place=str(route.place),
        ways=tuple(_way(rules, name) for name in route.settings.via),
        sender=leaves_as or names.NULL_PATTERN,
        recipients=to,
        changes=changes,
        signatures=tuple(_signature(dkim) for dkim in route.settings.dkim),
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
    for number, way in enumerate(explanation.ways):
        lines.append(f"  {'via' if number == 0 else 'else via':10} {_way_text(way)}")
    lines.append(f"  envelope   MAIL FROM {_bracketed(explanation.sender)}")
    lines += [f"             RCPT TO {_bracketed(recipient)}" for recipient in explanation.recipients]
    lines += _told("rewritten", explanation.changes or ("no",))
    lines += _told("signed", explanation.signatures or ("no (not by us)",))
    return "\n".join(lines)


def _told(word: str, sentences: tuple[str, ...]) -> list[str]:
    return [f"  {word if number == 0 else '':10} {sentence}" for number, sentence in enumerate(sentences)]


def _bracketed(address: str | None) -> str:
    return f"<{(address or '').strip('<>')}>"


def _way_text(way: Way) -> str:
    to = f" to {way.goes_to}" if way.goes_to else ""
    source = f", from source address {way.source_address}" if way.source_address else ""
    return f"{way.name} ({way.kind}{to}{source})  {way.place}"


def _way(rules: Rules, name: str) -> Way:
    upstream = rules.upstreams[name]
    settings = upstream.settings
    goes_to = next(
        (str(value) for key in ("host", "base_url", "path") if (value := getattr(settings, key, None))), None
    )
    source = getattr(settings, "source_address", None)
    return Way(name, upstream.kind, str(upstream.place), goes_to, str(source) if source else None)


def _pattern_of(route: Route, sender: str) -> str:
    """Which of the route's patterns took the sender, by a table in which each is a route of its own."""
    alone = Table(
        Route(pattern, replace(route.settings, from_=(pattern,)), route.place) for pattern in route.settings.from_
    )
    found = alone.match(sender)
    return found.name if found is not None else route.name


def _domain(sender: str) -> str:
    try:
        return names.domain(domain_of(sender))
    except Mistake:
        return domain_of(sender)


def _rewriting(sender: Sender | None, envelope_sender: str, content: bytes | None) -> tuple[str, tuple[str, ...]]:
    """The envelope sender as it leaves, and sentences about what changes."""
    if sender is None:
        return envelope_sender, ()
    if content is not None:
        crlf = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")  # a file at hand often has LF alone
        done = rewrite(envelope_sender, crlf, sender)
        return done.sender, tuple(f"{change} changes" for change in done.changes)
    leaves_as = sender.address if envelope_sender != NULL_SENDER else NULL_SENDER
    reply_to = {"original": "the original address", "none": "nothing"}.get(sender.reply_to, sender.reply_to)
    name = f'"{sender.name}"' if sender.name else "the name it came with"
    return leaves_as, (f"From becomes {name} <{sender.address}>", f"Reply-To becomes {reply_to}")


def _signature(dkim: Dkim) -> str:
    return f"d={dkim.domain} s={dkim.selector} (record {dkim.selector}._domainkey.{dkim.domain})"


# ---- why not ---------------------------------------------------------------------------------------------------


def _refusal(rules: Rules, sender: str) -> Explanation:
    if sender == NULL_SENDER:
        why = 'no route has `from: "<>"`, and only that takes the null sender'
        return Explanation(names.NULL_PATTERN, None, why_not=why)
    domain = _domain(sender)
    if not domain:
        return Explanation(sender, None, why_not="it has no domain, and there is no `*` route")
    why = f"no route takes {domain}, none a parent of it, and there is no `*` route"
    return Explanation(sender, None, why_not=why, nearest=_nearest(rules, domain))


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
