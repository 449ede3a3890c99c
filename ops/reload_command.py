"""`callpro-relay check --diff`: asks the running relay what a reload would change, before anybody reloads.

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
from ops.rules_diff import changes_text
from spool.opening import is_shared


def check_diff(asked: argparse.Namespace) -> int:
    """Prints what the relay answers. Raises OSError when it cannot be reached."""
    url = load_relay(asked.config).spool.url
    if is_shared(url):
        print("callpro-relay: several relays may run on this spool, each with rules of its own", file=sys.stderr)
        return 1
    try:
        answer = ask(control_path(url), Order(Action.DIFF))
    except NotRunning:
        print("callpro-relay: no relay runs on this spool, so there is nothing to compare with", file=sys.stderr)
        return 1
    except OrderRefused as refused:
        print(f"callpro-relay: {refused}", file=sys.stderr)
        return 1
    if asked.json:
        told = [asdict(change) for change in answer.changes]
        print(json.dumps({"good": answer.refusal is None, "refused": answer.refusal, "changes": told}))
    elif answer.refusal is not None:
        print(f"A reload would be refused, and the old rules would stay: {answer.refusal}")
    else:
        print(changes_text(answer.changes), end="")
    return 0 if answer.refusal is None else 1
