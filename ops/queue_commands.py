"""`callpro-relay queue ...`: the commands that look. They read the spool beside a running relay and need none.

Exit 0 good, 1 found a problem, 2 wrong usage. Must never show the content of a mail.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from config.loading import load_relay
from ops.buffer_view import in_buffer, story_in_buffer
from ops.order_commands import add_orders, holds_now
from ops.queue_options import add_filters, count, filter_of, length_of_time, mail_id, open_view, somebody
from spool.contract import SpoolUnusable, id_text
from spool.view import Filter, MailLine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from delivery.holds import HeldWay
    from ops.failures_view import Shape
    from ops.queue_options import Add, Commands

_IN_BUFFER: Final = "It waits in the buffer of this machine until the database takes mail again.\n"


def add_queue(commands: Commands, add: Add) -> None:
    """Give the command line its `queue` commands; `add` makes one, with the options that all commands have."""
    queue = commands.add_parser("queue", help="what waits, the story of a mail, and what to do with it").add_subparsers(
        metavar="ACTION", required=True
    )
    made = add(queue, "list", list_mails, "list mail that waits, oldest first")
    add_filters(made)
    made.add_argument("--settled", action="store_true", help="mail that is done with, as far as history goes")
    made.add_argument("--limit", type=count, default=50, metavar="COUNT", help="most lines; default: 50")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "show", show_mail, "tell the story of one mail")
    made.add_argument("id", metavar="ID", type=mail_id, help="as `queue list` shows it; small letters will do")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "find", find_mails, "find mail by its recipient, newest first: waiting or done with")
    who = "ADDRESS|@DOMAIN"
    made.add_argument("--to", type=somebody, required=True, metavar=who, help="one recipient, or all of a domain")
    made.add_argument("--from", dest="sender", type=somebody, metavar=who, help="only mail of this sender")
    made.add_argument("--limit", type=count, default=20, metavar="COUNT", help="most lines; default: 20")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "failures", show_failures, "recipients that did not get their mail, per day and customer")
    made.add_argument("--since", type=length_of_time, default=86400.0, metavar="AGE", help="how far back; default: 1d")
    made.add_argument("--each", action="store_true", help="a line for each recipient, with the upstream's last words")
    shape = made.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="print CSV, for spreadsheets")
    shape.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "forecast", forecast, "when queues will be empty at their pace, and a day's limit reached")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    add_orders(queue, add)


def list_mails(asked: argparse.Namespace) -> int:
    """`queue list`: what waits, and which of its ways do not work."""
    from ops.holds_view import holds_text
    from ops.queue_view import list_json, list_text

    here = in_buffer(load_relay(asked.config).spool)
    waits_here = here.text(time.time()) if here else ""
    try:
        view = open_view(asked.config)
    except SpoolUnusable:
        print(waits_here, end="")
        raise
    try:
        lines = view.list(filter_of(asked, asked.settled), asked.limit)
    finally:
        view.close()
    closed = _closed(asked.config, lines)
    if asked.json:
        print(list_json(lines, closed), end="")
        return 0
    print(list_text(lines, time.time(), closed, asked.limit), end="")
    print(holds_text((), closed, time.time()), end="")
    print(waits_here, end="")
    return 0


def _closed(config: Path, lines: Iterable[MailLine]) -> list[HeldWay]:
    """The ways on hold of the routes of mail that waits."""
    routes = {line.route for line in lines if line.due_at is not None}
    return [way for way in holds_now(config, patience=1.0).ways if way.route in routes] if routes else []


def find_mails(asked: argparse.Namespace) -> int:
    """`queue find`: what became of mail to somebody."""
    from ops.holds_view import holds_text
    from ops.queue_view import list_json, list_text

    with closing(open_view(asked.config)) as view:
        which = Filter(recipient=asked.to, sender=asked.sender, settled=None)
        lines = view.list(which, asked.limit, newest_first=True)
    closed = _closed(asked.config, lines)
    if asked.json:
        print(list_json(lines, closed), end="")
    else:
        print(list_text(lines, time.time(), closed, asked.limit) + holds_text((), closed, time.time()), end="")
    return 0 if lines else 1


def show_mail(asked: argparse.Namespace) -> int:
    """`queue show`: the story of one mail."""
    from ops.holds_view import holds_text
    from ops.queue_view import story_json, story_text

    here = story_in_buffer(load_relay(asked.config).spool, asked.id)
    try:
        with closing(open_view(asked.config)) as view:
            story = view.show(asked.id)
    except SpoolUnusable:
        if here is None:
            raise
        story = None
    if story is None and here is not None:
        print(story_json(here) if asked.json else f"{story_text(here, time.time())}{_IN_BUFFER}", end="")
        return 0
    if story is None:
        print(f"callpro-relay: no mail {id_text(asked.id)}; its history may be over (spool.history)", file=sys.stderr)
        return 1
    closed = _closed(asked.config, [story.mail])
    if asked.json:
        print(story_json(story, closed), end="")
    else:
        print(story_text(story, time.time(), ways=closed), end="")
        print("".join(f"\n{text}" for text in (holds_text((), closed, time.time()),) if text), end="")
    return 0


def show_failures(asked: argparse.Namespace) -> int:
    """`queue failures`: recipients that did not get their mail."""
    from ops.failures_view import write_failures

    with closing(open_view(asked.config)) as view:
        lines = list(view.failures(time.time() - asked.since))
    shape: Shape = "csv" if asked.csv else "json" if asked.json else "text"
    print(write_failures(lines, shape, each=asked.each), end="")
    return 0


def forecast(asked: argparse.Namespace) -> int:
    """`queue forecast`: what waits and what was sent, played forward."""
    from ops.queue_forecast import forecast_queue

    return forecast_queue(asked)
