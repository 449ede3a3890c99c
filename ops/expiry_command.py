"""`callpro-relay expiry`: what ends and when, from the running relay, or by the files where none runs.

Exit 1 when something ends within a week or has ended, for scripts.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from config.loading import load_relay
from ops.control import NotRunning, ask, control_path
from ops.expiry import Expiry, calendar, calendar_json, calendar_text, step_of
from ops.orders import Action, Order, OrderRefused
from ops.own_files import where_nobody_answers

if TYPE_CHECKING:
    from pathlib import Path

    from ops.queue_options import Add, Commands

_SOON: Final = 7


def add_expiry(commands: Commands, add: Add) -> None:
    """Give the command line its `expiry`."""
    made = add(commands, "expiry", expiry, "when certificates, secrets and keys end, what ends first at the top")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def expiry(asked: argparse.Namespace) -> int:
    """`expiry`: the calendar."""
    now, found = time.time(), _found(asked.config)
    print(calendar_json(found, now) if asked.json else calendar_text(found, now), end="")
    return 1 if any((step := step_of(one, now)) is not None and step <= _SOON for one in found) else 0


def _found(config: Path) -> tuple[Expiry, ...]:
    relay = load_relay(config)
    path = control_path(relay.spool.url, config)
    try:
        return ask(path, Order(Action.EXPIRY)).expiries
    except NotRunning:
        nobody = where_nobody_answers(path, relay.spool.url)
        print(f"By the files alone, without the certificates that upstreams show: {nobody}.", file=sys.stderr)
    except (OrderRefused, OSError) as error:
        print(f"By the files alone, as the relay could not be asked: {error}", file=sys.stderr)
    from config.loading import load_rules
    from upstreams import SHAPES

    rules = load_rules(config.parent, SHAPES, outside_unit=True)
    return calendar(relay, rules.routes, rules.upstreams, {})
