"""`convert-postfix`: Postfix's sender tables as files for routes.d, a customer each, with secrets in their own files.

Must never overwrite a file, never print a password, and write nothing before everything could be read.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config import names
from config.rules import Place
from ops.postfix_rules import Carried, Login, Postfix, Way, carry_over
from ops.postfix_tables import Said, Tables, read_main, read_tables

if TYPE_CHECKING:
    from ops.queue_options import Add, Commands

_PARAMETERS = {
    "maps": "sender_dependent_relayhost_maps",
    "passwords": "smtp_sasl_password_maps",
    "transports": "sender_dependent_default_transport_maps",
}


@dataclass(frozen=True, slots=True)
class Files:
    """What is to be written: name -> text for `routes` and for `secrets`."""

    routes: Mapping[str, str]
    secrets: Mapping[str, str]


def add_convert_postfix(commands: Commands, add: Add) -> None:
    """Give the command line its `convert-postfix`."""
    made = add(
        commands, "convert-postfix", convert_postfix, "make routes.d files from Postfix's sender-dependent tables"
    )
    for option, parameter in _PARAMETERS.items():
        words = f"the text of {parameter}; may be repeated"
        made.add_argument(f"--{option}", action="append", default=[], metavar="FILE", help=words)
    made.add_argument("--main", type=Path, metavar="FILE", help="main.cf: names the tables, TLS and relayhost")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the files go, such as routes.d")
    made.add_argument(
        "--secrets", type=Path, metavar="FOLDER", help="where passwords go; default: secrets beside --out"
    )
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")


def convert_postfix(asked: argparse.Namespace) -> int:
    """The command. Exit 1 when something could not be carried over, 2 when there is nothing to read."""
    if not (asked.main or asked.maps or asked.transports):
        print(
            "callpro-relay: name the tables (--maps, --passwords), or --main main.cf, which names them", file=sys.stderr
        )
        return 2
    postfix, said = read(asked)
    carried, more = carry_over(postfix)
    files = files_of(carried, secrets_of(carried))
    secrets = asked.secrets or asked.out.absolute().parent / "secrets"
    written = write(files, asked.out, secrets)
    said += more
    print(report_json(written, said) if asked.json else report_text(written, carried, said), end="")
    return 1 if any(one.left_out for one in said) else 0


def read(asked: argparse.Namespace) -> tuple[Postfix, list[Said]]:
    """Everything that the options name, or main.cf for those that name nothing. Raises OSError."""
    main = read_main(asked.main) if asked.main else None
    tables, said = dict[str, Tables](), list[Said]()
    for option, parameter in _PARAMETERS.items():
        spec, place = " ".join(getattr(asked, option)), Place(f"--{option}", 1)
        if not spec and main is not None:
            spec, place = main.get(parameter), main.place(parameter)
        tables[option], found = read_tables(spec, place, asked.main.parent if asked.main else None)
        said += found
    return Postfix(tables["maps"], tables["passwords"], tables["transports"], main), said


def secrets_of(carried: Sequence[Carried]) -> dict[Login, str]:
    """A name for each login's password: after what it was found by, so that one login of many customers is one file."""
    found: dict[Login, str] = {}
    for one in carried:
        login = one.way.login
        if login is not None and login not in found:
            plain = re.sub(r"[^A-Za-z0-9._-]+", "-", login.key.replace("@", "-at-").removeprefix("-at-")).strip("-.")
            name, number = plain or "postfix", 1
            while name in found.values():
                number += 1
                name = f"{plain}-{number}"
            found[login] = name
    return found


def files_of(carried: Sequence[Carried], secrets: Mapping[Login, str]) -> Files:
    """A file for each customer, which is a domain of senders."""
    customers: dict[str, list[Carried]] = defaultdict(list)
    for one in carried:
        customers[one.pattern.rpartition("@")[2]].append(one)
    routes = {
        f"{'null-sender' if domain == names.NULL_PATTERN else _name(domain)}.yaml": _customer(domain, ones, secrets)
        for domain, ones in sorted(customers.items())
    }
    return Files(routes, {name: login.password for login, name in secrets.items()})


def _customer(domain: str, carried: Sequence[Carried], secrets: Mapping[Login, str]) -> str:
    ways = list(dict.fromkeys(one.way for one in carried))
    first = "null-sender" if domain == names.NULL_PATTERN else _name(domain)
    called = {way: first if number == 1 else f"{first}-{number}" for number, way in enumerate(ways, 1)}
    lines = [f"# {domain}, carried over from Postfix.", "upstreams:"]
    lines += [f"  {name}: {{{_upstream(way, secrets)}}}" for way, name in called.items()]
    lines.append("routes:")
    for one in carried:
        places = ", ".join(f"{Path(place.file).name}:{place.line}" for place in one.places)
        lines.append(f"  - {{from: {_quoted(one.pattern)}, via: {called[one.way]}}}   # {places}")
    lines.append("tests:")
    addresses = {one.pattern for one in carried if "@" in one.pattern}
    for one in carried:
        sender = one.pattern if "@" in one.pattern or one.pattern == names.NULL_PATTERN else _nobody(domain, addresses)
        lines.append(f"  - {{from: {_quoted(sender)}, via: {called[one.way]}}}")
    return "\n".join(lines) + "\n"


def _nobody(domain: str, taken: set[str]) -> str:
    """An address in `domain` that has no rule of its own."""
    return next(
        sender for local in ("info", "anybody", "somebody-else") if (sender := f"{local}@{domain}") not in taken
    )


def _name(domain: str) -> str:
    """A name for an upstream, and for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", domain).strip("-")[:90]


def _upstream(way: Way, secrets: Mapping[Login, str]) -> str:
    parts = [f"type: {'connector' if way.connector else 'smtp'}", f"host: {_quoted(way.host)}"]
    parts += [f"port: {way.port}"] if way.port and not (way.connector and way.port == 25) else []
    parts += [] if way.connector else [f"tls: {way.tls}"]
    if way.login is not None:
        reference = f"systemd:{secrets[way.login]}"
        parts += [f"username: {_quoted(way.login.username)}", f"password: {json.dumps(reference)}"]
    return ", ".join(parts)


def _quoted(text: str) -> str:
    """A text as YAML reads it back: in quotes unless it is plain. JSON's strings are YAML's too."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*[.@][A-Za-z0-9.@_-]*[A-Za-z]", text)
    return text if plain else json.dumps(text)


def write(files: Files, out: Path, secrets: Path) -> list[Path]:
    """Write them all, or nothing where one is there already. Raises FileExistsError and other OSError."""
    wanted = [(out / name, text, 0o644) for name, text in files.routes.items()]
    wanted += [(secrets / name, f"{text}\n", 0o600) for name, text in files.secrets.items()]
    there = [path for path, _, _ in wanted if path.exists()]
    if there:
        shown = ", ".join(str(path) for path in there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise FileExistsError(f"nothing was written, for {shown} is there already; move it, or take another --out")
    out.mkdir(parents=True, exist_ok=True)
    if files.secrets:
        secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, text, mode in wanted:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8", errors="surrogateescape"
        ) as file:
            file.write(text)
    return [path for path, _, _ in wanted]


def report_text(written: Sequence[Path], carried: Sequence[Carried], said: Sequence[Said]) -> str:
    """What was written, then what was not carried over, then what to look at."""
    told = [f"wrote {path}" for path in written]
    for title, left_out in (("Not carried over:", True), ("Carried over with a change; look at it:", False)):
        some = [str(one) for one in said if one.left_out == left_out]
        told += ["", title, *dict.fromkeys(some)] if some else []
    senders = f"{len(carried)} {'sender' if len(carried) == 1 else 'senders'}"
    told += [
        "",
        f"{senders} carried over. Next: callpro-relay check, then callpro-relay route ADDRESS for some of them.",
    ]
    return "\n".join(told).lstrip("\n") + "\n"


def report_json(written: Sequence[Path], said: Sequence[Said]) -> str:
    """`{"written": [path], "notes": [{"file", "line", "subject", "why", "left_out"}]}`."""
    notes = [
        {
            "file": one.place.file,
            "line": one.place.line,
            "subject": one.subject,
            "why": one.why,
            "left_out": one.left_out,
        }
        for one in said
    ]
    return json.dumps({"written": [str(path) for path in written], "notes": notes}, indent=2) + "\n"
