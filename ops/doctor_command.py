"""`callpro-relay doctor [acme.nl]`: every verdict on a line, with what to do below it. Exit 1 when there is a problem.

Must never show a secret, nor send a mail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from config.relay_settings import Relay
from ops.check import Checked, check
from ops.doctor import Grade, Patient, Verdict, chosen, domains_of, examine, from_check, from_rules, sender_of
from ops.terminal import Paint, paint_for, plain
from routing.table import Table
from upstreams import KINDS, SHAPES
from upstreams.base import Host
from upstreams.tls import require_trust

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands


def add_doctor(commands: Commands, add: Add) -> None:
    """Give the command line its `doctor`."""
    made = add(commands, "doctor", doctor, "look at DNS, ways out and quota of a route, or of all; sends nothing")
    made.add_argument("which", nargs="?", metavar="DOMAIN", help="a domain, address or route; default: every route")
    made.add_argument("--from", dest="sender", metavar="ADDRESS", help="a sender to try it with, such as info@acme.nl")
    made.add_argument("--no-probes", action="store_true", help="ask the DNS only, and connect to nobody")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def doctor(asked: argparse.Namespace) -> int:
    """`doctor`: the verdicts."""
    checked = check(asked.config, SHAPES, outside_unit=True)
    verdicts = _verdicts(asked, checked)
    if verdicts is None:
        print(f"callpro-relay: no route takes {asked.which}; `callpro-relay route` tells why", file=sys.stderr)
        return 1
    print(verdicts_json(verdicts) if asked.json else verdicts_text(verdicts, paint_for(sys.stdout)), end="")
    return 1 if any(verdict.grade is Grade.PROBLEM for verdict in verdicts) else 0


def _verdicts(asked: argparse.Namespace, checked: Checked) -> list[Verdict] | None:
    """None when nobody takes what was asked for."""
    if checked.rules is None or checked.relay is None:
        return [from_check(problem, "") for problem in checked.problems]
    routes = chosen(checked.rules, asked.which)
    if not routes:
        return None
    found = from_rules(checked.problems, routes)
    found += asyncio.run(_examined(asked, checked, checked.relay))
    if not asked.no_probes and asked.which is None:
        from ops.open_relay import open_relay

        table = Table(checked.rules.routes)
        found += open_relay(checked.relay, lambda sender: table.match(sender) is not None)
    from ops.doctor_quota import quota

    found += quota(checked.relay, checked.rules, frozenset(route.name for route in routes))
    order = {route.name: number for number, route in enumerate(routes)}
    return sorted(found, key=lambda verdict: order.get(verdict.route, -1))


async def _examined(asked: argparse.Namespace, checked: Checked, relay: Relay) -> list[Verdict]:
    from ops import doctor_dns, doctor_ways
    from ops.resolver import LiveDns

    assert checked.rules is not None  # noqa: S101 - the caller looked
    dns, rules = LiveDns(relay.dns), checked.rules
    own_name: str = "" if relay.hostname else await asyncio.to_thread(socket.getfqdn)
    host = Host(hostname=relay.hostname or own_name)
    patients = []
    for route in chosen(rules, asked.which):
        sender, invented = sender_of(route, rules, asked.sender)
        domains = domains_of(route)
        patients.append(Patient(route, rules, relay.call_centre, dns, KINDS, host, domains, sender, invented))
    checks = [doctor_dns.spf, doctor_dns.incoming_hop, doctor_dns.dkim, doctor_dns.dmarc, doctor_dns.dmarc_records]
    checks.append(doctor_dns.reverse)
    if not asked.no_probes:
        await asyncio.to_thread(require_trust)
        checks.append(doctor_ways.ways)
    return await examine(patients, checks)


def verdicts_json(verdicts: Iterable[Verdict]) -> str:
    """A list of objects with the fields of `Verdict`."""
    return json.dumps([asdict(verdict) for verdict in verdicts], ensure_ascii=False, indent=2) + "\n"


def verdicts_text(verdicts: Iterable[Verdict], paint: Paint = plain) -> str:
    """By route; what to do stands below what is not good."""
    lines: list[str] = []
    shown: str | None = None
    kept = list(verdicts)
    for verdict in kept:
        if verdict.route != shown:
            shown = verdict.route
            lines.append(shown or "all routes")
        lines.append(f"  {_painted(verdict.grade, paint)} {verdict.check:14} {verdict.where}: {verdict.what}")
        if verdict.mend:
            lines.append(f"  {'':8} {'':14} -> {verdict.mend}")
    return "\n".join([*lines, _sum(kept)]) + "\n"


def _painted(grade: Grade, paint: Paint) -> str:
    return paint(f"{grade:8}", "green" if grade is Grade.GOOD else "red" if grade is Grade.PROBLEM else "yellow")


def _sum(verdicts: list[Verdict]) -> str:
    counts = {grade: sum(verdict.grade is grade for verdict in verdicts) for grade in Grade}
    words = [
        f"{counts[grade]} {grade}{'s' if counts[grade] != 1 and grade is not Grade.GOOD else ''}" for grade in Grade
    ]
    return ", ".join(words)
