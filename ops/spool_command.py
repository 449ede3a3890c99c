"""`spool move`: from the embedded spool to a database, with the relay stopped.

Can be broken off and begun again: nothing is lost and nothing goes twice.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from config.loading import load_relay
from ops.progress import Progress
from ops.queue_options import spool_password
from spool.contract import SpoolUnusable
from spool.opening import is_shared
from spool.schema import path_of

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands


def add_spool(commands: Commands, add: Add) -> None:
    """Give the relay the command `spool`."""
    made = commands.add_parser("spool", help="the place where mail lives", description="the place where mail lives")
    actions = made.add_subparsers(metavar="ACTION", required=True)
    made = add(
        actions, "move", move_spool, "move all mail and its history from a file to a database; stop the relay first"
    )
    made.add_argument("source", metavar="sqlite:////PATH", help="the file, whose relay is stopped")
    made.add_argument("target", metavar="postgresql://USER@HOST/DATABASE", help="the database, empty or not")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def move_spool(asked: argparse.Namespace) -> int:
    """`spool move`."""
    if is_shared(asked.source) or not is_shared(asked.target):
        raise SpoolUnusable("a spool moves from sqlite:////path to postgresql://user@host/database only")
    source = path_of(asked.source)
    if not source.exists():
        raise SpoolUnusable(f"there is no spool at {source}")
    from spool import postgres_schema
    from spool.moving import move

    settings = load_relay(asked.config).spool if asked.config.exists() else None
    password = spool_password(settings) if settings and settings.url == asked.target else None
    with Progress("mails moved") as progress:

        def tell(done: int, of: int) -> None:
            progress.total = of
            progress.to(done)

        try:
            moved = move(source, postgres_schema.options_of(asked.target, password), tell)
        except SpoolUnusable as error:
            if settings is None or settings.url == asked.target:
                raise
            where = f"its password is read from {asked.config}, once `spool:` there has this url and a `password:`"
            raise SpoolUnusable(f"{error}; {where}") from error
    if asked.json:
        print(json.dumps({"moved": moved}))
        return 0
    print(
        f"{moved} mails moved; {source} is empty. Write `url: {postgres_schema.shown(asked.target)}` into relay.yaml."
    )
    return 0
