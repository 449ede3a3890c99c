"""`nodes`: the relays that share a spool, what each has under way, and whether they go by the same rules.

Exit 0 when all is well, 1 when something differs or is silent. Must never write to the spool.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from config.rules import Rules
from ops.queue_options import open_view
from spool.view import NodeLine

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands

_SKEW: Final = 1.0


def add_nodes(commands: Commands, add: Add) -> None:
    """Give the relay the command `nodes`."""
    made = add(commands, "nodes", show_nodes, "the relays that share the spool, and whether their rules are the same")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def show_nodes(asked: argparse.Namespace) -> int:
    """`nodes`."""
    view = open_view(asked.config)
    try:
        lines = view.nodes()
    finally:
        view.close()
    warnings = warnings_of(lines)
    if asked.json:
        print(json.dumps({"nodes": [asdict(line) for line in lines], "warnings": warnings}))
    else:
        print(nodes_text(lines), end="")
    return 1 if warnings else 0


def rules_hash(rules: Rules) -> str:
    """The same for the same rules, wherever their files are. Secrets count by their references only."""
    upstreams = sorted(repr((rule.name, rule.settings, rule.pace)) for rule in rules.upstreams.values())
    routes = [repr((route.name, route.settings)) for route in rules.routes]
    return hashlib.sha256("\n".join((*upstreams, *routes)).encode()).hexdigest()[:12]


def warnings_of(lines: Sequence[NodeLine]) -> list[str]:
    """What somebody should look at; sentences."""
    alive = [line for line in lines if line.alive and line.rules]
    found = [f"{line.name} gives no sign of life for {line.seen_ago:.0f} s" for line in lines if not line.alive]
    if len({line.rules for line in alive}) > 1:
        found.append("the rules differ: copy routes.yaml and routes.d to every node, and reload each")
    if len({line.version for line in alive}) > 1:
        found.append("the versions differ: finish the renewal, node after node")
    found += [
        f"the clock of {line.name} is {abs(line.skew):.1f} s {'behind' if line.skew > 0 else 'ahead'}: set it"
        for line in alive
        if abs(line.skew) > _SKEW
    ]
    return found


def nodes_text(lines: Sequence[NodeLine]) -> str:
    """A table for a terminal, and the warnings below it."""
    if not lines:
        return "One relay has this spool to itself, or none runs on the database.\n"
    width = max(len(line.name) for line in lines)
    rows = [f"{'NODE':{width}}  VERSION   RULES         UNDER WAY  SEEN\n"]
    rows += [
        f"{line.name:{width}}  {line.version or '?':8}  {line.rules or '?':12}  {line.leased:9}  "
        f"{line.seen_ago:.1f} s ago{'' if line.alive else '  SILENT'}\n"
        for line in lines
    ]
    return "".join([*rows, *[f"Warning: {warning}\n" for warning in warnings_of(lines)]])
