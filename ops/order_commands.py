"""`queue retry, hold, release, drop, holds`: orders to the running relay, or to the spool where none runs.

Exit 0 when something was done, 1 when nothing could be, 2 wrong usage. Must never drop on a filter that says nothing,
nor without `--yes`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from config.loading import load_relay, load_rules
from config.relay_settings import SpoolSettings
from ops.control import NotRunning, ask, control_path
from ops.holds_view import hold_reason, holds_text, release_command
from ops.orders import Action, Answer, Hands, Order, OrderRefused, answer_text, subjects
from ops.progress import Progress
from ops.queue_options import add_filters, add_ids, filter_of, open_view, route_name, somebody, spool_password
from spool.contract import SpoolFull, SpoolInUse, SpoolUnavailable, SpoolUnusable, Steps, id_text, unheard
from spool.opening import is_shared, open_for_orders
from spool.schema import path_of
from spool.view import Filter

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands


def add_orders(queue: Commands, add: Add) -> None:
    """Give `queue` the commands that change something, and `holds`."""
    made = add(queue, "retry", _told(retry), "try waiting mail now")
    add_ids(made)
    add_filters(made)
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "hold", _told(hold), "keep mail here: one mail, a route, or what a customer sends")
    _add_subjects(made)
    made.add_argument("--reason", default="", metavar="TEXT", help="shown wherever the hold is")
    made = add(queue, "release", _told(release), "end a hold, also one that the relay made itself")
    _add_subjects(made)
    made = add(queue, "drop", _told(drop), "delete waiting mail; nobody is told")
    add_ids(made)
    add_filters(made)
    made.add_argument("--reason", default="", metavar="TEXT", help="shown on the mail's timeline")
    made.add_argument("--yes", action="store_true", help="do it; without it you are told how many it would be")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    made = add(queue, "holds", _told(show_holds), "what is on hold, since when, by whom and why")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def retry(asked: argparse.Namespace) -> int:
    """`queue retry`: try waiting mail now."""
    which = _which(asked)
    answer = give(asked.config, Order(Action.RETRY, which, _who()))
    if asked.json:
        print(answer_text(answer))
    else:
        print(f"{_mails(answer.done)} due now.{_left(answer)}")
        routes = {which.route} if which.route else _routes_of(asked.config, which)
        ways = [way for way in holds_now(asked.config).ways if way.route in routes]
        print(holds_text((), ways, time.time()), end="")
    return 0 if answer.done else 1


def hold(asked: argparse.Namespace) -> int:
    """`queue hold`: keep mail here."""
    which = _which(asked)
    answer = give(asked.config, Order(Action.HOLD, which, _who(), asked.reason))
    if asked.json:
        print(answer_text(answer))
        return 0 if answer.done else 1
    for kept in holds_now(asked.config).holds:
        if kept.key in subjects(which):
            print(f"{kept.scope} {kept.subject} is on hold. End it: {release_command(kept)}")
    if answer.left:
        print(f"{answer.left} of the mails named do not wait, and were left alone.")
    if not which.ids:
        print(f"{_mails(_count(asked.config, which))} waiting; new mail is taken and waits too.")
    return 0 if answer.done else 1


def release(asked: argparse.Namespace) -> int:
    """`queue release`: end a hold."""
    which = _which(asked)
    answer = give(asked.config, Order(Action.RELEASE, which, _who()))
    if asked.json:
        print(answer_text(answer))
        return 0 if answer.done else 1
    for ended in answer.holds:
        print(f"{ended.scope} {ended.subject} is released; it was on hold by {hold_reason(ended)}.")
    for way in answer.ways:
        print(f"route {way.route} by {way.upstream} is released; it is closed again if it still does not work.")
    if not answer.done:
        print("Nothing was on hold there." + _held_otherwise(asked.config, which))
    return 0 if answer.done else 1


def drop(asked: argparse.Namespace) -> int:
    """`queue drop`: delete waiting mail."""
    which = _which(asked)
    if not asked.yes:
        count = _count(asked.config, which)
        if asked.json:
            print(json.dumps({"to_be_dropped": count}))
        else:
            print(f"{_mails(count)} to be dropped, and nobody would be told. Add --yes to do it.")
        return 2
    answer = give(asked.config, Order(Action.DROP, which, _who(), asked.reason))
    print(answer_text(answer) if asked.json else f"{_mails(answer.done)} dropped.{_left(answer)}")
    return 0 if answer.done else 1


def show_holds(asked: argparse.Namespace) -> int:
    """`queue holds`: what is on hold."""
    answer = holds_now(asked.config)
    if asked.json:
        print(answer_text(answer))
    else:
        print(holds_text(answer.holds, answer.ways, time.time()) or "Nothing is on hold.\n", end="")
    return 0


def give(config: Path, order: Order) -> Answer:
    """Have an order carried out: by the relay that runs here, or on its spool where none does. Of a spool that several
    share they all hear of it there.

    Raises OrderRefused, SpoolUnusable.
    """
    settings = load_relay(config).spool
    with _progress(config, order) as progress:
        asked = replace(order, progress=progress.shown)
        try:
            return ask(control_path(settings.url, config), asked, told=progress.to)
        except NotRunning:
            return asyncio.run(_alone(config, settings, asked, progress.to))
        except PermissionError:
            if not is_shared(settings.url):
                raise
            return asyncio.run(_alone(config, settings, asked, progress.to))  # the database knows who may


def _progress(config: Path, order: Order) -> Progress:
    """A bar for an order that walks over mail; its length is counted only where it is drawn."""
    progress = Progress("mails")
    which = order.which
    if progress.shown and not which.ids and order.action is not Action.HOLDS:
        # A sender's hold is compared with all mail that waits.
        held = order.action in (Action.HOLD, Action.RELEASE)
        with suppress(SpoolUnusable, OSError):
            progress.total = _count(config, Filter() if held else which)
    return progress


def holds_now(config: Path, patience: float = 5.0) -> Answer:
    """What is on hold: as the relay knows it, or as it stands in the spool where none answers."""
    settings = load_relay(config).spool
    try:
        return ask(control_path(settings.url, config), Order(Action.HOLDS), patience)
    except (NotRunning, OrderRefused, OSError) as error:
        if is_shared(settings.url):  # what the relays of other machines found out is told in the database
            return asyncio.run(_alone(config, settings, Order(Action.HOLDS)))
        if isinstance(error, NotRunning):
            print("callpro-relay: no relay runs on this spool: nothing leaves until it is started", file=sys.stderr)
        with closing(open_view(config)) as view:
            return Answer(holds=tuple(view.holds()))


async def _alone(config: Path, settings: SpoolSettings, order: Order, told: Steps = unheard) -> Answer:
    """On the spool itself."""
    url = settings.url
    if not is_shared(url) and not path_of(url).exists():
        raise SpoolUnusable(f"there is no spool at {path_of(url)} yet, and no relay runs on it")
    try:
        spool = await open_for_orders(url, spool_password(settings))
    except SpoolInUse as error:
        where = control_path(url, config)
        raise OrderRefused(
            f"a relay has the spool open but nobody answers at {where}: it starts or stops just now (try again), "
            "or could not make that socket (its log says why)"
        ) from error
    try:
        return await Hands(spool, None, lambda: _route_names(config), time.time).carry_out(order, told)
    finally:
        await spool.close()


def _route_names(config: Path) -> set[str]:
    from upstreams import SHAPES

    rules = load_rules(config.parent, SHAPES, outside_unit=True)
    return {route.name for route in rules.routes}


def _told(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same command; what refuses the order is told in a line."""

    def run(asked: argparse.Namespace) -> int:
        try:
            return command(asked)
        except (OrderRefused, SpoolFull, SpoolUnavailable) as error:
            print(f"callpro-relay: {error}", file=sys.stderr)
            return 2 if isinstance(error, _SaysNothingError) else 1

    return run


class _SaysNothingError(OrderRefused):
    """An order without its mail."""


def _which(asked: argparse.Namespace) -> Filter:
    which = filter_of(asked)
    if not which.says_something:
        raise _SaysNothingError("say which mail: an ID, or one of the options that `--help` shows")
    return which


def _add_subjects(made: argparse.ArgumentParser) -> None:
    add_ids(made)
    made.add_argument("--route", type=route_name, metavar="ROUTE", help="the route's name: its first `from`")
    made.add_argument(
        "--sender", type=somebody, metavar="ADDRESS|@DOMAIN", help="a customer's domain, or one of its senders"
    )
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _who() -> str:
    """Who types: `jan (as root)` behind sudo."""
    try:
        login = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        login = f"user {os.getuid()}"
    person = os.environ.get("SUDO_USER")
    return f"{person} (as {login})" if person and person != login else login


def _count(config: Path, which: Filter) -> int:
    with closing(open_view(config)) as view:
        return view.count(which)


def _routes_of(config: Path, which: Filter) -> set[str]:
    with closing(open_view(config)) as view:
        return {line.route for line in view.list(which, 50)}


def _held_otherwise(config: Path, which: Filter) -> str:
    """What holds the mails that were named, when it is not a hold of their own."""
    with closing(open_view(config)) as view:
        lines = view.list(Filter(ids=which.ids), 50) if which.ids else ()
    held = [f"\nMail {id_text(line.id)} waits with others: {release_command(line.hold)}" for line in lines if line.hold]
    return "".join(held)


def _mails(count: int) -> str:
    return "1 mail is" if count == 1 else f"{count} mails are"


def _left(answer: Answer) -> str:
    return f" {answer.left} left alone: under way, or on hold." if answer.left else ""
