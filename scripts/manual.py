"""Man pages, from the parser and from the classes that read the YAML files: callpro-relay(1), callpro-relay.yaml(5).

Prose that no code knows stands here. It must never say by hand what can be read from code.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import relay
from config.schema import relay_schema, routes_schema
from ops.command_parser import AT_NIGHT
from upstreams import SHAPES

ENVIRONMENT = (
    ("CREDENTIALS_DIRECTORY", "Where systemd put the secrets that systemd:NAME refers to."),
    ("SSL_CERT_FILE", "Authorities to trust instead of the system's own."),
    ("NO_COLOR", "Set to anything: no colour, also on a terminal."),
)
FILES = (
    ("/etc/callpro-relay/relay.yaml", "How the relay runs; see callpro-relay.yaml(5)."),
    ("/etc/callpro-relay/routes.yaml, /etc/callpro-relay/routes.d/*.yaml", "Which sender leaves by which upstream."),
    ("/etc/callpro-relay/secrets/NAME", "The secret that systemd:NAME refers to; only root reads this folder."),
    ("/var/lib/callpro-relay/spool.db", "Mail until it is settled, and its history."),
)
EXITS = (("0", "Good."), ("1", "A problem was found; it is told on standard output or error."), ("2", "Wrong usage."))


def main() -> int:
    """Write both pages into the folder that is named."""
    parser = argparse.ArgumentParser(description="Write the man pages.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("callpro-relay.1", command_page(relay._parser())), ("callpro-relay.yaml.5", file_page())):
        (folder / name).write_text(text, "utf-8")
    return 0


def command_page(parser: argparse.ArgumentParser) -> str:
    """callpro-relay(1): every command with its options."""
    name = parser.prog
    lines = [_head(name, "1"), ".SH NAME", f"{_plain(name)} \\- a smart host that hands each customer's mail to that "
             "customer's own way out", ".SH SYNOPSIS", f".B {_plain(name)}", ".I COMMAND", "[options]"]  # fmt: skip
    lines += [".SH DESCRIPTION", _plain(parser.description or "")]
    lines += [
        "It listens on loopback for mail without a login, keeps each mail on disk before it says 250, picks a route by "
        "the domain of the envelope sender, and hands the mail to that customer's upstream.",
        ".SH COMMANDS",
    ]
    for words, command in leaves(parser):
        lines += [f'.SS "{_plain(words)}"', _plain(_sentence(command.description or ""))]
        lines += [".P", *_usage(command)]
        for action in command._actions:
            if action.dest != "help":
                lines += _option(action)
    lines += [".SH EXAMPLES", ".nf", *(_plain(line) for line in AT_NIGHT.splitlines()[:-2]), ".fi"]
    lines += [".SH EXIT STATUS", *_listed(EXITS), ".SH ENVIRONMENT", *_listed(ENVIRONMENT), ".SH FILES"]
    lines += [*_listed(FILES), ".SH SEE ALSO", ".BR callpro-relay.yaml (5),", ".BR systemctl (1),"]
    lines += [".BR journalctl (1)", ".br", "Pages on every subject: /usr/share/doc/callpro-relay/"]
    return "\n".join(lines) + "\n"


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command that does something, by its words."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for word, deeper in action.choices.items():
            yield from leaves(deeper, f"{name} {word}".strip())
    if not below:
        yield name, parser


def _usage(command: argparse.ArgumentParser) -> list[str]:
    formatter = argparse.HelpFormatter(prog=command.prog, width=100_000)
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups, prefix="")
    return [".nf", ".RS 4", _plain(formatter.format_help().strip()), ".RE", ".fi"]


def _option(action: argparse.Action) -> list[str]:
    name = ", ".join(f"\\fB{_plain(option)}\\fR" for option in action.option_strings)
    value = ""
    if action.nargs != 0:
        words = "|".join(map(str, action.choices)) if action.choices else str(action.metavar or action.dest.upper())
        value = f"\\fI{_plain(words)}\\fR"
    return [".TP", f"{name} {value}".strip(), _plain(_sentence(str(action.help or "")))]


def file_page() -> str:
    """callpro-relay.yaml(5): every key of both files."""
    lines = [_head("callpro-relay.yaml", "5"), ".SH NAME", "callpro-relay.yaml \\- what the relay reads: relay.yaml, "
             "routes.yaml and routes.d/*.yaml", ".SH DESCRIPTION"]  # fmt: skip
    lines += [
        _plain("relay.yaml is read at start. routes.yaml and routes.d/*.yaml beside it are read at start and at every "
               "reload; all are read as one. On any error the old rules stay, and every error is told at once."),
        ".P",
        _plain("Times are a number and a unit (90s, 5m, 2h, 3d), sizes too (64KB, 35MB, 10GB). A secret is a "
               "reference: systemd:NAME, file:/PATH or env:NAME. A sender is found by its full address, its domain, "
               'then the nearest "*.domain", then "*".'),
        ".P",
        _plain("`callpro-relay example routes.yaml` prints a file with comments; `callpro-relay check` reads all."),
    ]  # fmt: skip
    lines += [".SH RELAY.YAML", *_keys(relay_schema())]
    rules = routes_schema(SHAPES)
    lines += [".SH ROUTES.YAML", *_keys(rules)]
    for name, upstream in rules["$defs"].items():
        lines += [f'.SH "TYPE: {_plain(name)}"', _plain(f"Under upstreams: NAME: {{type: {name}, ...}}.")]
        lines += _keys({**upstream, "properties": {k: v for k, v in upstream["properties"].items() if k != "type"}})
    lines += [".SH SEE ALSO", ".BR callpro-relay (1)"]
    return "\n".join(lines) + "\n"


def _keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """A paragraph for each key, those of the blocks below it too."""
    required = schema.get("required", ())
    for key, said in schema["properties"].items():
        block = _block(said)
        name = f"{path}{key}"
        yield ".TP"
        yield f"\\fB{_plain(name)}\\fR" + (" (required)" if key in required else "")
        yield _plain(" ".join(_told(said, block)))
        if block is not None:
            yield from _keys(block, f"{name}{'[]' if _many(said) else ''}.")


def _told(said: dict[str, Any], block: dict[str, Any] | None) -> Iterator[str]:
    yield said.get("description", "A block:" if block else "")
    if block is None:
        words = _choices(said)
        if words:
            yield f"One of: {', '.join(words)}."
        if "default" in said:
            yield f"Default: {_value(said['default'], _units(said))}."
        elif "examples" in said:
            yield f"Like: {said['examples'][0]}."


def _value(value: object, units: tuple[tuple[str, int], ...]) -> str:
    if isinstance(value, list):
        return ", ".join(_value(one, units) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return next((f"{value // size}{unit}" for unit, size in units if value and value % size == 0), str(value))
    return str(value)


def _units(said: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """In which units people write such a value, the largest first."""
    patterns = " ".join(str(part.get("pattern", "")) for shape in _shapes(said) for part in _shapes(shape))
    if "smhdw" in patterns:
        return (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    return (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)) if "[Bb]" in patterns else ()


def _shapes(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The shapes that a value may have, lists by their items."""
    found = said.get("anyOf", [said])
    return [shape.get("items", shape) for shape in found]


def _many(said: dict[str, Any]) -> bool:
    return any(shape.get("type") == "array" for shape in said.get("anyOf", [said]))


def _block(said: dict[str, Any]) -> dict[str, Any] | None:
    return next((shape for shape in _shapes(said) if "properties" in shape), None)


def _choices(said: dict[str, Any]) -> list[str]:
    return next((list(map(str, shape["enum"])) for shape in _shapes(said) if "enum" in shape), [])


def _head(name: str, section: str) -> str:
    version = metadata.version("callpro-relay")
    return f'.TH "{_plain(name.upper())}" "{section}" "" "callpro-relay {version}" "CallPro mail relay"'


def _listed(rows: tuple[tuple[str, str], ...]) -> list[str]:
    return [line for name, text in rows for line in (".TP", f"\\fB{_plain(name)}\\fR", _plain(text))]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") or not text else ".")


def _plain(text: str) -> str:
    """`text` so that the formatter takes nothing in it for an order (groff(7))."""
    told = text.replace("\\", "\\e").replace("-", "\\-").replace("%%", "%")
    return f"\\&{told}" if told[:1] in (".", "'") else told


if __name__ == "__main__":
    sys.exit(main())
