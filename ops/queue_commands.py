"""`callpro-relay queue ...`: options and bodies. It looks into the spool beside a running relay and needs none.

Exit 0 good, 1 found a problem, 2 wrong usage. Must never show the content of a mail.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from config.loading import load_relay
from config.values import parse_duration
from spool.contract import id_number
from spool.view import Filter, SpoolView

Command = Callable[[argparse.Namespace], int]
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Add = Callable[[Commands, str, Command, str], argparse.ArgumentParser]


def add_queue(commands: Commands, add: Add) -> None:
    """Give the command line its `queue` commands; `add` makes one, with the options that all commands have."""
    queue = commands.add_parser("queue", help="what waits, and the story of a mail").add_subparsers(
        metavar="ACTION", required=True
    )
    made = add(queue, "list", list_mails, "list mail that waits, oldest first")
    _add_filters(made)
    made.add_argument("--settled", action="store_true", help="mail that is done with, as far as history goes")
    made.add_argument("--limit", type=int, default=50, help="default: 50")
    made.add_argument("--json", action="store_true")
    made = add(queue, "show", show_mail, "tell the story of one mail")
    made.add_argument("id", metavar="ID")
    made.add_argument("--json", action="store_true")
    made = add(queue, "forecast", forecast, "when queues will be empty at their pace, and a day's limit reached")
    made.add_argument("--json", action="store_true")


def list_mails(asked: argparse.Namespace) -> int:
    """`queue list`: what waits."""
    from ops.queue_view import list_json, list_text

    view = open_view(asked)
    try:
        lines = view.list(_filter(asked, asked.settled), asked.limit)
    finally:
        view.close()
    print(list_json(lines) if asked.json else list_text(lines, time.time()), end="")
    return 0


def show_mail(asked: argparse.Namespace) -> int:
    """`queue show`: the story of one mail."""
    from ops.queue_view import story_json, story_text

    try:
        number = id_number(asked.id)
    except ValueError as error:
        print(f"callpro-relay: {error}", file=sys.stderr)
        return 2
    view = open_view(asked)
    try:
        story = view.show(number)
    finally:
        view.close()
    if story is None:
        print(f"callpro-relay: no mail {asked.id}; its history may be over (spool.history)", file=sys.stderr)
        return 1
    print(story_json(story) if asked.json else story_text(story, time.time()), end="")
    return 0


def forecast(asked: argparse.Namespace) -> int:
    """`queue forecast`: what waits and what was sent, played forward."""
    from ops.queue_forecast import forecast_queue

    return forecast_queue(asked)


def open_view(asked: argparse.Namespace) -> SpoolView:
    """The spool of the relay whose config was named, for reading."""
    from spool.sqlite_view import SqliteView

    return SqliteView(load_relay(asked.config).spool.url)


def _add_filters(made: argparse.ArgumentParser) -> None:
    made.add_argument("--route", help="the route's name: its first `from`")
    made.add_argument("--sender", metavar="ADDRESS|@DOMAIN")
    made.add_argument("--recipient", metavar="ADDRESS|@DOMAIN")
    made.add_argument("--older-than", type=parse_duration, metavar="AGE", help="such as 2h")


def _filter(asked: argparse.Namespace, settled: bool) -> Filter:
    older = time.time() - asked.older_than if asked.older_than else None
    return Filter(asked.route, asked.sender, asked.recipient, older, settled)
