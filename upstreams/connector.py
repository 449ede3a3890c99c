"""The kind `connector`: Exchange Online as a smart host that knows us by our IPv4 address, without a login.

It must never connect over IPv6 (the connector holds an IPv4 address), never without TLS, and never log in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from config import network
from config.fields import Fault, setting
from routing.addresses import ascii_domain
from routing.mail import NULL_SENDER, Outgoing, domain_of
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from upstreams.base import Host, Kind, Upstream
from upstreams.connector_replies import CONNECTOR_REPLIES
from upstreams.microsoft import TENANT_TRAITS
from upstreams.smtp import SmtpCommon, SmtpUpstream
from upstreams.smtp_session import SmtpWay
from upstreams.traits import Traits

_SUFFIX: Final = ".mail.protection.outlook.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorSettings(SmtpCommon):
    """`type: connector`."""

    host: str | None = setting(
        default=None,
        doc="The domain's MX in the Microsoft 365 admin centre; absent: derived from the sender's domain.",
        example="globex-nl.mail.protection.outlook.com",
        check=network.server,
    )
    port: int = setting(default=25, doc="Exchange Online listens on 25 only.", minimum=1, maximum=65535)
    source_address: IPv4Address | None = setting(
        default=None,
        doc="Our IPv4 address that the connector names; absent: the system chooses.",
        example="203.0.113.10",
    )

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if self.host is None:
            yield Fault(
                "host",
                "the host is derived from the sender's domain, which is a guess for newer tenants",
                "copy the domain's MX from the Microsoft 365 admin centre (Settings > Domains)",
                warning=True,
            )
        elif "office365.com" in self.host.lower():
            yield Fault("host", f"{self.host} wants a login", "write the domain's MX, or use `type: smtp_oauth`")
        elif self.host.replace(".", "").isdigit():
            yield Fault("host", "an IP address of the service changes", "write the domain's MX")

    def traits(self) -> Traits:
        """See `HasTraits.traits`."""
        return TENANT_TRAITS


class Connector(SmtpUpstream):
    """An SMTP upstream that knows why Exchange Online does not relay mail with the null sender."""

    async def send(self, mail: Outgoing) -> Results:
        """See `Upstream.send`."""
        results = await super().send(mail)
        if mail.sender != NULL_SENDER:
            return results
        return {recipient: _with_null_sender(outcome) for recipient, outcome in results.items()}


def _with_null_sender(outcome: Outcome) -> Outcome:
    if outcome.word is not Word.CONFIG or outcome.stage not in (Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT):
        return outcome
    return replace(
        outcome,
        hint=Hint(
            Who.US,
            "A connector relays only mail from an accepted domain, so never with the null sender: we "
            "must give bounces a route of their own.",
            "Een connector geeft alleen mail van een geaccepteerd domein door, dus nooit met een lege "
            "afzender: wij moeten bounces een eigen route geven.",
        ),
    )


def derived_host(domain: str) -> str:
    """The host that Exchange Online gives a domain: dots become dashes, dashes stay (microsoft-365-connector.md 1)."""
    return ascii_domain(domain).decode().replace(".", "-") + _SUFFIX


def _underivable(sender: str) -> Outcome:
    what = "the null sender" if sender == NULL_SENDER else repr(sender)
    return Outcome(
        Word.CONFIG,
        f"{what} has no domain to derive the host from",
        Stage.PREPARE,
        hint=Hint(
            Who.US,
            "Write `host:` of this connector; bounces with the null sender need a route of their own.",
            "Vul `host:` van deze connector in; bounces met een lege afzender hebben een eigen route nodig.",
        ),
    )


def _way_for(settings: ConnectorSettings, sender: str) -> SmtpWay | Outcome:
    domain = domain_of(sender)
    if settings.host is None and not domain:
        return _underivable(sender)
    host = settings.host or derived_host(domain)
    source = str(settings.source_address) if settings.source_address is not None else None
    return SmtpWay(host, settings.port, "starttls", ipv4_only=True, source_address=source)


def _build(name: str, settings: ConnectorSettings, host: Host) -> Upstream:
    one_way = _way_for(settings, NULL_SENDER) if settings.host is not None else None
    way = one_way if isinstance(one_way, SmtpWay) else partial(_way_for, settings)
    return Connector(name, host, way, settings.limits(), CONNECTOR_REPLIES)


KIND: Final = Kind("connector", ConnectorSettings, _build)
