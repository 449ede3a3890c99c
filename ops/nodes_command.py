"""`nodes`: the relays that share a spool, what each has under way, and whether they go by the same rules.

Exit 0 when all is well, 1 when something differs or is silent. Must never write to the spool.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

from ops.nodes import warnings_of
from ops.queue_options import open_view
from spool.view import NodeLine, Taken

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands


def add_nodes(commands: Commands, add: Add) -> None:
    """Give the relay the command `nodes`."""
    made = add(commands, "nodes", show_nodes, "the relays that share the spool, and whether their rules are the same")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def show_nodes(asked: argparse.Namespace) -> int:
    """`nodes`."""
    with closing(open_view(asked.config)) as view:
        lines, taken = view.nodes(), view.taken()
    print(nodes_json(lines, taken) if asked.json else nodes_text(lines, taken), end="")
    return 1 if warnings_of(lines) else 0


def nodes_json(lines: Sequence[NodeLine], taken: Sequence[Taken]) -> str:
    """`{"nodes": [{..., "under_way": [{"route", "mails", "oldest"}]}], "warnings": [sentence]}`."""
    nodes = [
        {
            **asdict(line),
            "alive": line.alive,
            "under_way": [
                {"route": one.route, "mails": one.mails, "oldest": one.oldest}
                for one in taken
                if one.node == line.number
            ],
        }
        for line in lines
    ]
    return json.dumps({"nodes": nodes, "warnings": [one.text for one in warnings_of(lines)]}) + "\n"


def nodes_text(lines: Sequence[NodeLine], taken: Sequence[Taken]) -> str:
    """A table for a terminal, and the warnings below it."""
    if not lines:
        return "One relay has this spool to itself, or none runs on the database.\n"
    width = max(len(line.name) for line in lines)
    rows = [f"{'NODE':{width}}  VERSION   RULES         UNDER WAY  SEEN\n"]
    for line in lines:
        mails = sum(one.mails for one in taken if one.node == line.number)
        rows.append(
            f"{line.name:{width}}  {line.version or '?':8}  {line.rules or '?':12}  {mails:9}  "
            f"{line.seen_ago:.1f} s ago{'' if line.alive else '  SILENT'}\n"
        )
    return "".join([*rows, *[f"Warning: {warning.text}\n" for warning in warnings_of(lines)]])
