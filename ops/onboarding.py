"""What a new customer has to do for a way out, as sheets in Dutch and English, and the route that goes with it.

Pure: what the DNS says now, keys and the date are handed in. Must never hold the private half of a key in a sheet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from config.relay_settings import CallCentre
from config.rules import Rules
from ops.dmarc import Policy
from ops.spf import LOOKUP_LIMIT, SpfCost
from routing.mail import domain_of
from upstreams.microsoft import SPF_INCLUDE
from upstreams.traits import traits_of

LANGUAGES: Final = ("nl", "en")
VIAS: Final = (
    "graph", "connector", "smtp", "smtp_oauth", "sendgrid", "mailgun", "campaign_monitor", "own-server", "mailbox",
)  # fmt: skip
"""The ways out that have a sheet."""

_MICROSOFT: Final = ("graph", "smtp_oauth", "connector")
_SPF_INCLUDE: Final = f"include:{SPF_INCLUDE}"
_PLAIN: Final = re.compile(r"[\\`*_|\[\]<]")
"""What Markdown would take for more than a letter of a name."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the DNS says of the customer's domain now; None where it was not asked or did not answer. `spf_then` is what
    receivers would say of the SPF record with ours in it.
    """

    spf: SpfCost | None = None
    dmarc: Policy | None = None
    spf_then: SpfCost | None = None


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer to be. `sender` is an address that mail leaves as, `display` the name beside it.

    `selector` and `key` (a TXT record) are for the way by our own server, which `upstream` names in the rules.
    """

    domain: str
    via: str
    us: CallCentre
    sender: str
    display: str
    selector: str = "callpro"
    key: str = ""
    upstream: str = ""

    @property
    def dkim_name(self) -> str:
        """Where receivers look for the key."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def dkim_alias(self) -> str:
        """The name of ours that the customer's record leads to; "" without a domain for that."""
        return f"{self.selector}.{self.domain.replace('.', '-')}.{self.us.dkim}" if self.us.dkim else ""

    @property
    def key_file(self) -> str:
        """The name of the private key's file, which is its credential's name too."""
        return f"{self.domain}-dkim"


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record to publish."""

    name: str
    kind: str
    value: str


def default_sender(domain: str, via: str, us: CallCentre) -> str:
    """The address to write into the sheet when nobody names one."""
    if via == "mailbox":
        return f"{domain.partition('.')[0]}@{domain_of(us.contact)}"
    return f"info@{domain}"


def spf_terms(customer: Customer) -> tuple[str, ...]:
    """What the customer's SPF record must hold for this way; empty where somebody else tells."""
    own = tuple(f"ip4:{address}" for address in customer.us.addresses)
    if customer.via == "own-server":
        return (f"include:{customer.us.spf}",) if customer.us.spf else own
    if customer.via == "connector":
        return (*own, _SPF_INCLUDE)
    return (_SPF_INCLUDE,) if customer.via in _MICROSOFT else ()


def spf_with(record: str, terms: tuple[str, ...]) -> str:
    """The record with these terms in it, before its end; a new one when there is none."""
    if not record:
        return " ".join(("v=spf1", *terms, "~all"))
    words = record.split()
    missing = [term for term in terms if term.lower() not in [word.lower().lstrip("+") for word in words]]
    ends = (number for number, word in enumerate(words) if word.lower().lstrip("+-~?") == "all" or "redirect=" in word)
    end = next(ends, len(words))
    return " ".join((*words[:end], *missing, *words[end:]))


def dkim_records(customer: Customer) -> tuple[DnsRecord, ...]:
    """What the customer publishes for our key."""
    if customer.dkim_alias:
        return (DnsRecord(customer.dkim_name, "CNAME", f"{customer.dkim_alias}."),)
    return (DnsRecord(customer.dkim_name, "TXT", customer.key),)


def our_records(customer: Customer) -> tuple[DnsRecord, ...]:
    """What we publish ourselves for this customer."""
    if customer.via != "own-server" or not customer.dkim_alias:
        return ()
    return (DnsRecord(customer.dkim_alias, "TXT", customer.key),)


def sheet(customer: Customer, language: str, known: Known, today: date) -> str:
    """The sheet as Markdown."""
    from ops.onboard_page import filled

    return filled(f"{language}/{customer.via}.md", _facts(customer, known, today, language))


def _facts(customer: Customer, known: Known, today: date, language: str) -> Mapping[str, Any]:
    terms = spf_terms(customer)
    now = known.spf.record if known.spf else ""
    wanted = spf_with(now, terms)
    then = known.spf_then
    dmarc = known.dmarc.record if known.dmarc else None
    return {
        "us": customer.us,
        "domain": customer.domain,
        "date": today.strftime("%d-%m-%Y") if language == "nl" else f"{today.day} {today:%B %Y}",
        "addresses": [str(address) for address in customer.us.addresses],
        "sender": customer.sender,
        "display": _PLAIN.sub(r"\\\g<0>", customer.display),
        "spf_terms": " ".join(terms),
        "spf_now": now,
        "spf_new": wanted,
        "spf_complete": bool(now) and wanted == now,
        "spf_several": bool(known.spf and known.spf.several),
        "spf_lookups": then.lookups if then and then.lookups > LOOKUP_LIMIT else 0,
        "spf_error": then.error if then else "",
        "dmarc_now": dmarc.text if dmarc else "",
        "dkim_records": dkim_records(customer),
        "dkim_alias": customer.dkim_alias,
    }


def own_server(rules: Rules | None) -> str:
    """The upstream in the rules that is a server of our own; "" without one."""
    if rules is None:
        return ""
    return next((name for name, one in rules.upstreams.items() if traits_of(one.settings).own_server), "")


# ---- the route ----------------------------------------------------------------------------------------------------

_ENTRA: Final = """\
    tenant: ""                  # tenant id, from the customer
    client_id: ""               # application (client) id, from the customer
    client_secret: "systemd:{domain}-secret"   # put its value into the secrets folder, mode 0600
    mailbox: {sender}
"""
_UPSTREAMS: Final[Mapping[str, str]] = {
    "graph": "  {domain}-graph:\n    type: graph\n" + _ENTRA,
    "smtp_oauth": "  {domain}-oauth:\n    type: smtp_oauth\n" + _ENTRA,
    "connector": """\
  {domain}-365:
    type: connector
    host: ""                    # the domain's MX, from the customer
    source_address: {address}
""",
    "smtp": """\
  {domain}-login:
    type: smtp
    host: ""                    # the server's name, from the customer
    port: 587                   # or 465 with `tls: implicit`
    tls: starttls
    username: ""                # from the customer
    password: "systemd:{domain}-password"      # put it into the secrets folder, mode 0600
""",
    "sendgrid": """\
  {domain}-sendgrid:
    type: sendgrid
    region: us                  # or eu, as the customer says
    api_key: "systemd:{domain}-key"            # put it into the secrets folder, mode 0600
""",
    "mailgun": """\
  {domain}-mailgun:
    type: mailgun
    domain: ""                  # the domain at Mailgun, from the customer
    region: eu                  # or us, as the customer says
    api_key: "systemd:{domain}-key"            # put it into the secrets folder, mode 0600
""",
    "campaign_monitor": """\
  {domain}-cm:
    type: campaign_monitor
    client_id: ""               # from the customer; take the line out for a key that is the client's own
    api_key: "systemd:{domain}-key"            # put it into the secrets folder, mode 0600
""",
}


def route(customer: Customer, own_dkim: str = "") -> str:
    """routes.d/DOMAIN.yaml. `own_dkim` is the `dkim:` of another route for our own domain, for the way by a mailbox."""
    values = {"domain": customer.domain, "sender": customer.sender}
    values["address"] = next((str(address) for address in customer.us.addresses), '""')
    made = _UPSTREAMS.get(customer.via, "").format(**values)
    name = made.split(":", 1)[0].strip() or customer.upstream or '""'
    lines = [
        f"# {customer.domain}, by {customer.via}: `callpro-relay doctor {customer.domain}` tells what is still open."
    ]
    lines += ["upstreams:", made.rstrip("\n")] if made else []
    lines += ["routes:", f"  - from: {customer.domain}", f"    via: {name}"]
    if customer.via == "own-server":
        key = f'"systemd:{customer.key_file}"'
        lines.append(f"    dkim: {{domain: {customer.domain}, selector: {customer.selector}, key: {key}}}")
    if customer.via == "mailbox":
        shown = customer.display.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'    sender: {{address: {customer.sender}, name: "{shown}"}}')
        lines += [f"    {own_dkim}"] if own_dkim else []
    tested = customer.sender if domain_of(customer.sender) == customer.domain else f"info@{customer.domain}"
    lines += ["tests:", f"  - {{from: {tested}, via: {name}}}"]
    return "\n".join(lines) + "\n"


def our_dkim(rules: Rules | None, domain: str) -> str:
    """How another route signs for a domain of ours, as YAML; "" when none does."""
    for one in rules.routes if rules else ():
        for dkim in one.settings.dkim:
            if dkim.domain == domain and not dkim.key.literal:
                return f'dkim: {{domain: {domain}, selector: {dkim.selector}, key: "{dkim.key.reference}"}}'
    return ""
