"""Command line and wiring; nobody imports it. Exit 0 good, 1 found a problem, 2 wrong usage."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from config.loading import load_relay
from config.problems import ConfigInvalid
from config.relay_settings import Delivery
from ops.check import check, secrets_beside
from ops.command_parser import AT_NIGHT, CommandParser
from ops.descriptors import open_standard
from ops.queue_options import Command, address, length_of_time, open_view
from spool.contract import SpoolUnusable
from upstreams import KINDS, SHAPES
from upstreams.tls import TrustUnusable, require_trust

_DEFAULT_CONFIG = "/etc/callpro-relay/relay.yaml"
_CONFIG_HELP = f"the relay.yaml to read; default: {_DEFAULT_CONFIG}"
if TYPE_CHECKING:
    from ops.service import Service

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is returned."""
    open_standard()
    words = sys.argv[1:] if arguments is None else arguments
    parsed = _parser(serving=words[:1] == ["serve"]).parse_args(arguments)
    command: Command = parsed.command
    if command is not serve and "config" in parsed:
        secrets_beside(parsed.config)  # the relay itself is handed them by systemd, and nothing else
    return _carried_out(lambda: command(parsed))


def _carried_out(command: Callable[[], int]) -> int:
    """Its exit code; what went wrong is a sentence for people."""
    try:
        return command()
    except BrokenPipeError:  # the reader of our output has enough, such as `head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except (SpoolUnusable, TrustUnusable, ConfigInvalid, OSError) as error:
        plain = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"callpro-relay: {plain}", file=sys.stderr)
        return 1


def serve(asked: argparse.Namespace) -> int:
    """`serve`: the relay."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until somebody hears it: nothing is read yet that could have changed
    from ops.logs import set_up
    from ops.service import Service

    set_up(asked.log_format)
    if _workers(asked.config) == 1:
        return _run(Service(asked.config, KINDS))

    from ops.seat import Seat
    from ops.workers import Parent

    def work(seat: Seat) -> int:
        set_up(asked.log_format, worker=seat.number)
        return _carried_out(lambda: _run(Service(asked.config, KINDS, seat)))

    require_trust()
    return Parent(asked.config, lambda: check(asked.config, SHAPES), work).run()


def _workers(config: Path) -> int:
    """How many processes relay.yaml asks for. Where something is wrong in it one will do, to say so."""
    try:
        return load_relay(config).workers
    except ConfigInvalid:
        return 1


def _run(service: Service) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(service.run())


def check_config(asked: argparse.Namespace) -> int:
    """`check`: everything that is wrong, at once."""
    if getattr(asked, "diff", False):
        from ops.reload_command import check_diff

        return check_diff(asked)
    from ops.check import render_json, render_text
    from ops.terminal import paint_for

    checked = check(asked.config, SHAPES, outside_unit=True)
    print(render_json(checked) if asked.json else render_text(checked, paint_for(sys.stdout)))
    return 0 if checked.good else 1


def explain_route(asked: argparse.Namespace) -> int:
    """`route`: what would happen to a mail of this sender."""
    from ops.explain import explain, look_up, render_json, render_text

    checked = check(asked.config, SHAPES, outside_unit=True)
    if checked.rules is None:
        return check_config(asked)
    content = asked.message.read_bytes() if asked.message else None
    after = (checked.relay.delivery if checked.relay else Delivery()).fallback_after
    explanation = explain(checked.rules, asked.address, tuple(asked.to), content, KINDS, after)
    if not asked.no_dns:
        explanation = look_up(explanation, checked.rules, checked.relay)
    print(render_json(explanation) if asked.json else render_text(explanation))
    return 0 if explanation.route else 1


def send_mail(asked: argparse.Namespace) -> int:
    """`send`: a test mail, followed to its outcome."""
    from ops.queue_view import story_json, story_text
    from ops.send import plain_listener, send

    relay = load_relay(asked.config)
    sent = send(plain_listener(relay), asked.sender, asked.to, lambda: open_view(asked.config), asked.wait)
    if asked.json:
        print(json.dumps({"reply": sent.reply, "mail": json.loads(story_json(sent.story)) if sent.story else None}))
    else:
        print(sent.reply)
        if sent.story:
            print(story_text(sent.story, time.time()), end="")
    return 0 if sent.delivered else 1


def print_schema(asked: argparse.Namespace) -> int:
    """`schema`: JSON Schema for editors."""
    from config.schema import relay_schema, routes_schema

    schema = relay_schema() if asked.file == "relay.yaml" else routes_schema(SHAPES)
    print(json.dumps(schema, indent=2))
    return 0


def print_example(asked: argparse.Namespace) -> int:
    """`example`: an annotated file to start from."""
    from importlib import resources

    print((resources.files("config.examples") / asked.file).read_text("utf-8"), end="")
    return 0


def _parser(*, serving: bool = False) -> argparse.ArgumentParser:
    """Of all commands; when `serving`, of that one alone, so that the others' code is not in memory for months."""
    words = "Hands each customer's mail to that customer's own way out."
    parser: argparse.ArgumentParser = CommandParser(
        prog="callpro-relay", description=words, epilog=AT_NIGHT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"callpro-relay {metadata.version('callpro-relay')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serving(commands)
    if not serving:
        _add_asking(commands)
        _add_rooms_own(commands)
    return parser


def _add_rooms_own(commands: Commands) -> None:
    """The commands that stand in a file of their own."""
    from ops.completion import add_completion
    from ops.convert_postfix import add_convert_postfix
    from ops.doctor_command import add_doctor
    from ops.expiry_command import add_expiry
    from ops.nodes_command import add_nodes
    from ops.onboard_command import add_onboard
    from ops.queue_commands import add_queue
    from ops.spool_command import add_spool

    add_queue(commands, _add)
    add_doctor(commands, _add)
    add_expiry(commands, _add)
    add_nodes(commands, _add)
    add_spool(commands, _add)
    add_convert_postfix(commands, _add)
    add_onboard(commands, _add)
    add_completion(commands, _add, _parser)


def _add(commands: Commands, name: str, command: Command, words: str) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=words, description=words)
    made.set_defaults(command=command)
    made.add_argument("--config", type=Path, default=Path(_DEFAULT_CONFIG), metavar="FILE", help=_CONFIG_HELP)
    return made


def _add_serving(commands: Commands) -> None:
    made = _add(commands, "serve", serve, "run the relay; SIGHUP reloads the rules, SIGTERM drains")
    made.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")


def _add_asking(commands: Commands) -> None:
    made = _add(commands, "check", check_config, "read every file, run its tests, print all problems at once")
    made.add_argument("--diff", action="store_true", help="ask the running relay which customers a reload would change")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")

    made = _add(commands, "route", explain_route, "explain what happens to a mail of this sender")
    made.add_argument("address", type=address, help="an envelope sender; <> is the null sender")
    to = "a recipient; may be repeated"
    made.add_argument("--to", type=address, action="append", default=[], metavar="ADDRESS", help=to)
    made.add_argument("--message", type=Path, metavar="FILE", help="the mail itself, for what would change in it")
    made.add_argument("--no-dns", action="store_true", help="say what DMARC hangs on by the rules alone")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")

    made = _add(commands, "send", send_mail, "send a test mail through the running relay and follow it")
    made.add_argument("--from", dest="sender", type=address, required=True, metavar="ADDRESS", help="the sender")
    recipient = "a recipient; may be repeated"
    made.add_argument("--to", type=address, action="append", required=True, metavar="ADDRESS", help=recipient)
    made.add_argument(
        "--wait", type=length_of_time, default=30.0, metavar="TIME", help="how long to follow it; default: 30s"
    )
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")

    files = ("relay.yaml", "routes.yaml")
    made = _add(commands, "schema", print_schema, "print the JSON Schema of a file, for completion in editors")
    made.add_argument("file", choices=files, nargs="?", default="routes.yaml", help="default: routes.yaml")
    made = _add(commands, "example", print_example, "print an annotated example file")
    more = (*files, "first-routes.yaml")
    made.add_argument("file", choices=more, nargs="?", default="routes.yaml", help="default: routes.yaml")


if __name__ == "__main__":
    sys.exit(main())
