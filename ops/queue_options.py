"""What the `queue` commands share: the options that say which mail, and the spool for reading."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from config import names
from config.fields import Mistake
from config.loading import load_relay
from config.relay_settings import SpoolSettings
from config.values import parse_duration
from ops.control import NotRunning, ask, control_path
from ops.orders import Action, Order, OrderRefused
from spool.contract import SpoolUnusable, id_number
from spool.view import Filter, SpoolView

_PATIENCE: Final = 1.0
"""Seconds that a relay may take to show its newest mail. One whose disk is full or slow is looked at all the same."""

Command = Callable[[argparse.Namespace], int]
if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    Add = Callable[[Commands, str, Command, str], argparse.ArgumentParser]


def open_view(config: Path) -> SpoolView:
    """The spool of the relay with that config, for reading. A relay that runs shows there what it took a moment ago."""
    settings = load_relay(config).spool
    with suppress(NotRunning, OrderRefused, OSError):  # then it is what it is
        ask(control_path(settings.url, config), Order(Action.SHOW), _PATIENCE)
    return view_of(settings)


def view_of(settings: SpoolSettings) -> SpoolView:
    """The spool with these settings, for reading."""
    from spool.opening import open_for_reading

    return open_for_reading(settings.url, spool_password(settings))


def spool_password(settings: SpoolSettings) -> str | None:
    """The password of the spool's database. Raises SpoolUnusable when only root and the relay can read it."""
    if settings.password is None:
        return None
    if not settings.password.reveal():
        kind, _, name = settings.password.reference.partition(":")
        do = "run it as root (sudo), who reads it in the folder `secrets` beside relay.yaml"
        raise SpoolUnusable(
            f"the database's password, {settings.password.reference}, cannot be read here: "
            + (f"set {name} here as in the unit" if kind == "env" else do)
        )
    return settings.password.reveal()


def length_of_time(text: str) -> float:
    """`2h` and the like, in seconds."""
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} {error}") from error


def mail_id(text: str) -> int:
    """A mail's number, from its id."""
    try:
        return id_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def address(text: str) -> str:
    """An address for the wire: a domain beyond ASCII in its xn-- form."""
    local, at, domain = text.rpartition("@")
    said = f"{local}{at}{names.normal(domain)}" if at else text
    if not said.isascii() or not said.isprintable():
        raise argparse.ArgumentTypeError(f"{text!a} cannot be said in SMTP: write it without accents, on one line")
    return said


def somebody(text: str) -> str:
    """An address, or all of a domain, whose @ may be left out; `<>` is the null sender, that of reports."""
    if text == "<>":
        return ""
    wanted = text if "@" in text else f"@{text}"
    if not wanted.rpartition("@")[2].strip(".") or ("@" not in text and "." not in text):
        raise argparse.ArgumentTypeError(f"{text!a} is nobody: write info@acme.nl, or @acme.nl for all of a domain")
    return address(wanted)


def route_name(text: str) -> str:
    """A route's name from a pattern as rules write it (`München.DE`); what is none stays as it is."""
    try:
        return names.pattern(text)
    except Mistake:
        return text


def count(text: str) -> int:
    """A number of lines."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!a} is no number of lines; write one from 1 on")
    return int(text)


def add_ids(made: argparse.ArgumentParser) -> None:
    made.add_argument("ids", metavar="ID", nargs="*", type=mail_id, help="as `queue list` shows it")


def add_filters(made: argparse.ArgumentParser) -> None:
    made.add_argument("--route", type=route_name, metavar="ROUTE", help="the route's name: its first `from`")
    who = "ADDRESS|@DOMAIN"
    made.add_argument("--sender", type=somebody, metavar=who, help="one envelope sender, or all of a domain")
    made.add_argument("--recipient", type=somebody, metavar=who, help="one recipient, or all of a domain")
    made.add_argument(
        "--older-than", type=length_of_time, metavar="AGE", help="received longer ago than this, such as 2h"
    )


def filter_of(asked: argparse.Namespace, settled: bool = False) -> Filter:
    """The mail that the options stand for; those that a command does not have say nothing."""
    options = vars(asked)
    age = options.get("older_than")
    return Filter(
        route=options.get("route"),
        sender=options.get("sender"),
        recipient=options.get("recipient"),
        older_than=None if age is None else time.time() - age,
        settled=settled,
        ids=tuple(options.get("ids") or ()),
    )
