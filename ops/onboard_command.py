"""`callpro-relay onboard acme.nl --via graph`: the customer's sheets, a DKIM key and the route, in a folder.

Nothing that is there is overwritten but the sheets, and no key ever. `--spf` prints our own SPF record and checks it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import names
from config.fields import Mistake
from config.relay_settings import CallCentre, Dns, Relay
from config.rules import Rules
from ops.check import check
from ops.onboarding import LANGUAGES, VIAS, Customer, DnsRecord, Known
from ops.resolver import zone_text
from upstreams import SHAPES

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands

_BITS: Final = 2048
_NOBODY: Final = """relay.yaml says nothing of us yet, and the sheets need it. Add, with your own facts:

call_centre:
  name: Callcenter B.V.
  contact: mail@callcenter.nl
  addresses: [203.0.113.10]     # every public IPv4 address that our mail leaves from
  spf: spf.callcenter.nl        # the name that customers include
"""


class NotPossible(Exception):
    """A sheet cannot be made. The text says why and what to do."""


def add_onboard(commands: Commands, add: Add) -> None:
    """Give the command line its `onboard`."""
    made = add(commands, "onboard", onboard, "write a new customer's sheet, key and route; or check our SPF record")
    made.add_argument("domain", nargs="?", help="the customer's domain")
    made.add_argument("--via", choices=VIAS, help="how their mail will leave")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="default: a folder with the domain's name, here")
    made.add_argument("--sender", metavar="ADDRESS", help="the mailbox that sends; default: info@ the domain")
    made.add_argument("--name", metavar="TEXT", help="mailbox: the name that recipients see; default: from the domain")
    made.add_argument("--selector", default="callpro", help="own-server: of the DKIM key; default: callpro")
    made.add_argument(
        "--upstream", metavar="NAME", help="own-server, mailbox: which; default: our own server in the rules"
    )
    made.add_argument("--no-dns", action="store_true", help="do not look at the records that the domain has now")
    made.add_argument("--spf", action="store_true", help="print the record that customers include, and check the DNS")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


@dataclass(frozen=True, slots=True)
class Made:
    """What was written into `folder`: a name and words for each file. `publish` is for our own DNS."""

    folder: str
    files: tuple[tuple[str, str], ...]
    publish: tuple[DnsRecord, ...]
    next: tuple[str, ...]


def onboard(asked: argparse.Namespace) -> int:
    """`onboard`: the files, and what to do with them."""
    checked = check(asked.config, SHAPES, outside_unit=True)
    if checked.relay is None:
        print("\n".join(str(problem) for problem in checked.errors), file=sys.stderr)
        return 1
    us = checked.relay.call_centre
    if us is None:
        print(_NOBODY, end="", file=sys.stderr)
        return 1
    if asked.spf:
        return _show_our_spf(us, checked.relay.dns, asked)
    if not asked.domain or not asked.via:
        print("callpro-relay onboard: name a domain and a way: onboard acme.nl --via graph", file=sys.stderr)
        return 2
    try:
        made = _make(asked, us, checked.relay, checked.rules)
    except (NotPossible, Mistake) as reason:
        print(f"callpro-relay: {reason}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(made), ensure_ascii=False) + "\n" if asked.json else _made_text(made), end="")
    return 0


def _make(asked: argparse.Namespace, us: CallCentre, relay: Relay, rules: Rules | None) -> Made:
    from ops.onboard_page import page
    from ops.onboarding import our_dkim, our_records, route, sheet, spf_terms

    customer = _customer(asked, us, rules)
    folder: Path = asked.out or Path(customer.domain)
    folder.mkdir(parents=True, exist_ok=True)
    customer, key_file = _with_key(customer, folder, asked.config.parent)
    known = Known() if asked.no_dns else asyncio.run(_known(customer, relay.dns))
    files = []
    for language in LANGUAGES:
        text = sheet(customer, language, known, date.today())
        for name, content in ((".html", page(text, language)), (".md", text)):
            (folder / f"{customer.domain}-{language}{name}").write_text(content, "utf-8")
            files.append((f"{customer.domain}-{language}{name}", "the sheet"))
    rule = route(customer, our_dkim(rules, _own_domain(customer)))
    files.append(_route_file(folder / f"{customer.domain}.yaml", rule))
    files += [key_file] if key_file else []
    steps = tuple(_next_steps(customer, rule, folder, asked.config.parent))
    wrong = next((one.error for one in (known.spf_then, known.spf) if one and one.error and one.record), "")
    if wrong and spf_terms(customer):
        steps = (f"mind, as the sheet says too: {customer.domain} with our SPF: {wrong}", *steps)
    return Made(str(folder), tuple(files), our_records(customer), steps)


def _made_text(made: Made) -> str:
    lines = [f"{made.folder}/", *(f"  {name}: {told}" for name, told in made.files), "", "What next:"]
    lines += [f"  publish in our own DNS: {one.name}. {one.kind} {zone_text(one.value)}" for one in made.publish]
    return "\n".join([*lines, *(f"  {step}" for step in made.next)]) + "\n"


def _own_domain(customer: Customer) -> str:
    return customer.sender.rpartition("@")[2]


def _customer(asked: argparse.Namespace, us: CallCentre, rules: Rules | None) -> Customer:
    from ops.onboarding import default_sender, own_server

    domain = names.domain(asked.domain)
    if "." not in domain:
        raise NotPossible(f"{asked.domain} is no domain of a customer; write it like acme.nl")
    names.domain(asked.selector)
    sender = names.address(asked.sender) if asked.sender else default_sender(domain, asked.via, us)
    if asked.via == "mailbox" and sender.rpartition("@")[2] == domain:
        raise NotPossible(f"{sender} is the customer's own; name a mailbox of ours with --sender")
    if not us.addresses and asked.via in ("own-server", "connector"):
        raise NotPossible("`call_centre.addresses` in relay.yaml is missing: the customer must know our IPv4 address")
    upstream = asked.upstream or own_server(rules)
    if not upstream and asked.via in ("own-server", "mailbox"):
        raise NotPossible("the rules have no server of our own; add one to `upstreams:`, or name it with --upstream")
    display = asked.name or domain.partition(".")[0].capitalize()
    return Customer(domain, asked.via, us, sender, display, asked.selector, "", upstream)


async def _known(customer: Customer, settings: Dns) -> Known:
    """What the domain's records are now; what is not known is left to the customer."""
    from ops.dmarc import DmarcUnknown, policy_of
    from ops.onboarding import spf_terms, spf_with
    from ops.resolver import LiveDns, WithTxt
    from ops.spf import cost_of

    dns = LiveDns(settings)
    spf = await cost_of(dns, customer.domain)
    record = spf_with(spf.record, spf_terms(customer))
    then = await cost_of(WithTxt(dns, customer.domain, record), customer.domain)
    try:
        policy = await policy_of(dns, customer.domain)
    except DmarcUnknown:
        policy = None
    return Known(None if spf.unknown else spf, policy, None if then.unknown else then)


# ---- files --------------------------------------------------------------------------------------------------------


def _with_key(customer: Customer, folder: Path, config: Path) -> tuple[Customer, tuple[str, str] | None]:
    """The customer with the record of its key: one that is there is used, else one is made."""
    from ops.dkim_record import record_of

    if customer.via != "own-server":
        return customer, None
    places = (config / "secrets" / customer.key_file, folder / customer.key_file)
    found = next((path for path in places if path.exists()), None)
    path = found or places[1]
    if found is None:
        _make_key(path)
    try:
        record = record_of(path.read_text("ascii"))
    except (ValueError, OSError) as error:
        raise NotPossible(f"{path} is there, and holds no key that can be read ({error}); move it away first") from None
    told = f"the private key, {f'kept as it was in {path.parent}' if found else 'new'}"
    return replace(customer, key=record), (customer.key_file, told)


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = generate_private_key(65537, _BITS).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def _route_file(path: Path, text: str) -> tuple[str, str]:
    """Write the route, unless somebody wrote something there already."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return path.name, "the route, kept as it was"
    return path.name, "the route"


def _next_steps(customer: Customer, rule: str, folder: Path, config: Path) -> Iterator[str]:
    yield f"send {customer.domain}-nl.html or -en.html to the customer (a browser prints it as PDF)"
    named = (config / "secrets" / name for name in re.findall(rf'"systemd:({re.escape(customer.domain)}-\w+)"', rule))
    secrets = [path for path in named if not os.path.exists(path)]  # so too for who may not look, all but root
    for path in secrets:
        made = folder / path.name
        yield (
            f"install -m 600 {made} {path}" if made.exists() else f"(umask 077; cat > {path})    # paste, Enter, Ctrl-D"
        )
    yield f"fill in what the customer answered in {folder / customer.domain}.yaml"
    yield f"install -m 644 {folder / customer.domain}.yaml {config / 'routes.d' / customer.domain}.yaml"
    yield f"callpro-relay check && callpro-relay doctor {customer.domain}"
    told = "restart callpro-relay    # for the new secret; the queue stays" if secrets else "reload callpro-relay"
    yield f"systemctl {told}"


# ---- our own record -----------------------------------------------------------------------------------------------


def _show_our_spf(us: CallCentre, settings: Dns, asked: argparse.Namespace) -> int:
    """Print what must stand there, and what does. 1 when the record does not let all of ours send."""
    if us.spf is None:
        print("`call_centre.spf` in relay.yaml is missing: the name that customers include", file=sys.stderr)
        return 1
    wanted = " ".join(("v=spf1", *(f"ip4:{address}" for address in us.addresses), "-all"))
    findings = [] if asked.no_dns else asyncio.run(_our_spf(us, us.spf, settings))
    if asked.json:
        said = [{"grade": grade, "what": what} for grade, what in findings]
        print(json.dumps({"name": us.spf, "record": wanted, "findings": said}, ensure_ascii=False))
    else:
        print("\n".join([f"{us.spf}. TXT {zone_text(wanted)}", *(f"  {grade:8} {what}" for grade, what in findings)]))
    return 1 if any(grade == "problem" for grade, _ in findings) else 0


async def _our_spf(us: CallCentre, name: str, settings: Dns) -> list[tuple[str, str]]:
    """Grade and sentence of each thing about the record that stands in the DNS."""
    from ops.resolver import LiveDns
    from ops.spf import cost_of
    from ops.spf_record import parse

    found = await cost_of(LiveDns(settings), name)
    if found.unknown:
        return [("warning", f"not known: {found.unknown}")]
    if found.error:
        return [("problem", found.error)]
    terms = parse(found.record)
    wanted = {ip_network(address) for address in us.addresses}
    there = {term.network for term in terms if term.network is not None}
    missing = [str(one) for one in us.addresses if not any(one in network for network in there)]
    others = sorted(str(network) for network in there - wanted)
    costly = [term.text for term in terms if term.network is None and term.name != "all"]
    told = [("problem", f"the DNS does not name {one}: mail from there fails at every customer") for one in missing]
    told += [("warning", f"the DNS also lets {one} send: leave it out, or add it to our addresses") for one in others]
    told += [("warning", f"{one} costs every customer one of their ten lookups: name addresses only") for one in costly]
    return told or [("good", "the DNS says the same; it costs a customer one lookup")]
