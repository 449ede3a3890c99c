"""`callpro-relay check --diff`: asks the relay that runs here what a reload would change, before anybody reloads.
`systemctl reload` asks it too.

The relay compares, for it alone has the secrets that are in force. Exit 0 good, 1 it would be refused or none runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from config.loading import load_relay
from ops.control import NotRunning, ask, control_path
from ops.orders import Action, Order, OrderRefused
from ops.own_files import where_nobody_answers
from ops.rules_diff import changes_text


def check_diff(asked: argparse.Namespace) -> int:
    """Prints what the relay answers. Raises OSError when it cannot be reached."""
    url = load_relay(asked.config).spool.url
    path = control_path(url, asked.config)
    try:
        answer = ask(path, Order(Action.DIFF))
    except NotRunning:
        nobody = where_nobody_answers(path, url)
        print(f"callpro-relay: there is nothing to compare with: {nobody}", file=sys.stderr)
        return 1
    except OrderRefused as refused:
        print(f"callpro-relay: {refused}", file=sys.stderr)
        return 1
    if asked.json:
        told = [asdict(change) for change in answer.changes]
        said = {"good": answer.refusal is None, "refused": answer.refusal, "changes": told}
        print(json.dumps({**said, "problems": answer.problems}))
    elif answer.refusal is not None:
        print(*answer.problems, sep="\n", end="\n" if answer.problems else "")
        print(f"A reload would be refused, and the old rules would stay: {answer.refusal}")
    else:
        print(changes_text(answer.changes), end="")
    return 0 if answer.refusal is None else 1
