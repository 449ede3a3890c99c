"""What ops write in routes.yaml and routes.d/, as typed values (`Rules`); relay.yaml is in relay_settings.py.

Shapes only. Which kinds of upstream exist is handed in by whoever loads; this file must never name a brand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

from config import names
from config.credentials import Secret
from config.fields import Duration, Fault, Mistake, Settings, setting


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands, for messages: `file:line`. A file's name may be no text, or hold a line break: what nobody
    can print in it is escaped.
    """

    file: str
    line: int

    def __post_init__(self) -> None:
        if not self.file.isprintable():
            shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in self.file)
            object.__setattr__(self, "file", shown)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _mailbox(text: str) -> None:
    if not names.address(text).rpartition("@")[0].isascii():
        raise Mistake(f"{text!r} has letters before the @ that few servers take", "write those without accents")


def _reply_to(text: str) -> None:
    if text not in ("original", "none"):
        try:
            _mailbox(text)
        except Mistake as mistake:
            raise Mistake(mistake.wrong, "write original, none, or an address like info@acme.nl") from None


def _one_line(text: str) -> None:
    if not text.isprintable():
        raise Mistake("holds a line break or a control character", "write the name on one line")


def _selector(text: str) -> None:
    try:
        names.domain(text)
    except Mistake:
        raise Mistake(f"{text!a} is not a selector", "write letters, digits, - and . only") from None


def _plain_address(text: str) -> None:
    names.address(text)
    if not text.isascii():
        raise Mistake(f"{text!r} is not in plain letters", "write it without accents, the domain in its xn-- form")


def _sender(text: str) -> None:
    if text != names.NULL_PATTERN:
        names.address(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender(Settings):
    """Send from another mailbox: From, MAIL FROM and Sender together."""

    address: str = setting(doc="The mailbox that sends.", example="hooli@callcenter.nl", check=_mailbox)
    name: str | None = setting(
        default=None, doc="The friendly name shown; default: the one CallPro gave.", check=_one_line
    )
    reply_to: str = setting(
        default="original",
        doc="`original` (the address that was replaced), `none`, or a fixed address.",
        check=_reply_to,
    )
    original_from: bool = setting(
        default=False, doc="true: the From that was replaced stays readable in an X-Original-From field."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dkim(Settings):
    """A signature of ours on every mail of the route."""

    domain: str = setting(
        doc="The d= of the signature, the domain the From aligns with.", example="umbrella.nl", check=names.domain
    )
    selector: str = setting(
        doc="The s= of the signature: the record is SELECTOR._domainkey.DOMAIN.", example="callpro", check=_selector
    )
    key: Secret = setting(doc="The private key, PEM, by reference.", example="systemd:umbrella-dkim")
    always: bool = setting(
        default=False,
        doc="Sign also where the provider signs the mail itself; never where it makes a new mail of ours.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Settings):
    """How much may be sent in any stretch of time, as providers count it: short ones in mails, long ones in recipients.

    A transaction with an upstream is a mail: a mail that is split for its many recipients is several.
    """

    per_second: int | None = setting(default=None, doc="Most mails in any second.", minimum=1)
    per_minute: int | None = setting(default=None, doc="Most mails in any minute.", minimum=1)
    per_hour: int | None = setting(default=None, doc="Most recipients in any hour.", minimum=1)
    per_day: int | None = setting(default=None, doc="Most recipients in any 24 hours.", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace(Rate):
    """How fast mail of a route may leave."""

    concurrency: int | None = setting(default=None, doc="Most mails under way at one time.", minimum=1)


def allowed_recipient(text: str) -> str:
    """An entry of an allow-list in its normal form: `test@callcenter.nl`, or `@callcenter.nl` for a whole domain."""
    if text.startswith("@"):
        return f"@{names.domain(text[1:])}"
    try:
        return names.address(text)
    except Mistake as mistake:
        raise Mistake(mistake.wrong, 'write test@callcenter.nl, or "@callcenter.nl" for a whole domain') from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary(Settings):
    """An upstream on trial: some mails go by it first, and the route's own way as soon as it cannot take them."""

    via: str = setting(doc="The upstream on trial; not one of the route's `via`.", example="new-upstream")
    percent: int | None = setting(
        default=None, doc="How many mails of a hundred go by it, always the same ones.", minimum=1, maximum=99
    )
    recipients: tuple[str, ...] = setting(
        default=(),
        doc="Mail to none but these goes by it: addresses, or `@domain` for all of a domain.",
        example="@callcenter.nl",
        check=allowed_recipient,
    )

    def faults(self) -> Iterator[Fault]:
        if self.percent is None and not self.recipients:
            yield Fault("", "does not say which mail goes by it", "write `percent: 5`, or `recipients:`, or both")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteSettings(Settings):
    from_: tuple[str, ...] = setting(
        key="from",
        doc="Senders: an address, a domain, `*.domain`, `<>` or `*`.",
        example="acme.nl",
        check=names.pattern,
    )
    via: tuple[str, ...] = setting(doc="The upstream; more than one: the next is the fallback.", example="acme-login")
    sender: Sender | None = setting(default=None, doc="Send from another mailbox.")
    dkim: tuple[Dkim, ...] = setting(default=(), doc="Sign with DKIM.")
    pace: Pace | None = setting(default=None, doc="Limits on speed.")
    spill_after: Duration | None = setting(
        default=None,
        doc="Use the next upstream in `via` when the pace of the one before would make a mail wait longer than this; "
        "left out: never.",
        example="10m",
    )
    redirect: str | None = setting(
        default=None,
        doc="Try the route out: every mail goes to this address and to no recipient; an X-Intended-Recipients field "
        "says whom it was for.",
        example="test@callcenter.nl",
        check=_plain_address,
    )
    bounces: str | None = setting(
        default=None,
        doc="Who gets the reports of undelivered mail; left out: the envelope sender.",
        example="postmaster@callcenter.nl",
        check=_plain_address,
    )
    canary: Canary | None = setting(default=None, doc="Try another upstream with some of the mail.")
    unknown: Literal["retry_once", "retry", "stop"] = setting(
        default="retry_once", doc="What to do with a mail that may have been delivered: try once more, go on, or stop."
    )

    def faults(self) -> Iterator[Fault]:
        for number, upstream in enumerate(self.via):
            if upstream in self.via[:number]:
                yield Fault(f"via[{number}]", f"{upstream} stands here twice", "name each upstream once")
        if self.canary is not None and self.canary.via in self.via:
            wrong = f"{self.canary.via} is in the route's own `via` already"
            yield Fault("canary.via", wrong, "name another upstream, or leave the canary out")
        if self.spill_after is not None and len(self.via) == 1:
            yield Fault("spill_after", "has no upstream to spill to", "name a second one in `via`, or leave it out")
        if self.redirect is not None:
            wrong = f"sends every mail of this route to {self.redirect}, and none to its recipients"
            yield Fault("redirect", wrong, "take it out when the trial is over", warning=True)
        if self.bounces is not None and set(self.from_) == {names.NULL_PATTERN}:
            yield Fault("bounces", "is of no use: mail of the null sender is never reported on", "leave it out", True)

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Every upstream that mail of the route may leave by: those of `via` in order, then the canary."""
        return (*self.via, self.canary.via) if self.canary else self.via


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTest(Settings):
    """A sentence about the rules that `check` and every reload verify."""

    from_: str = setting(key="from", doc="An envelope sender.", example="info@acme.nl", check=_sender)
    via: tuple[str, ...] = setting(default=(), doc="The upstreams it must leave by.")
    refused: bool = setting(default=False, doc="True when it must be refused.")

    def faults(self) -> Iterator[Fault]:
        if self.refused == bool(self.via):
            yield Fault("", "must say what is expected", "write either `via: NAME` or `refused: true`")


@dataclass(frozen=True, slots=True)
class Route:
    """A route with its place. `name` is its first `from` pattern, lower-cased: it is unique over all files."""

    name: str
    settings: RouteSettings
    place: Place


@dataclass(frozen=True, slots=True)
class UpstreamRule:
    """An `upstreams:` entry: the settings are of the class that its kind brought, `pace` and `expires` (the day on
    which its secret ends) are what ops wrote beside.
    """

    name: str
    kind: str
    settings: Settings
    place: Place
    pace: Rate = Rate()
    expires: date | None = None


@dataclass(frozen=True, slots=True)
class PlacedTest:
    settings: RouteTest
    place: Place


@dataclass(frozen=True, slots=True)
class Rules:
    """All of routes.yaml and routes.d/*.yaml, merged in name order."""

    upstreams: Mapping[str, UpstreamRule]
    routes: tuple[Route, ...]
    tests: tuple[PlacedTest, ...]


def users_of(routes: Iterable[Route]) -> dict[str, list[str]]:
    """The names of the routes that may leave by each upstream, in one walk: there may be thousands of both."""
    users: dict[str, list[str]] = {}
    for route in routes:
        for name in route.settings.upstreams:
            users.setdefault(name, []).append(route.name)
    return users
