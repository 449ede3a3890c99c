"""relay.yaml -> `Relay`; routes.yaml and routes.d/*.yaml -> `Rules`: everything is read before anything is refused.

Which kinds of upstream exist is handed in. Must never change what it reads, and never half-load: a value or
`ConfigInvalid` with all problems.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Final

from config import names, network
from config.fields import Mistake, Settings
from config.nodes import Block, Entry, Node, Scalar, join, parse
from config.permissions import loose_rules
from config.problems import Problem, Problems
from config.reading import Reader, mend_word
from config.relay_settings import Relay
from config.rules import Place, PlacedTest, Rate, Route, RouteSettings, RouteTest, Rules, UpstreamRule
from config.values import is_yes_no

ROUTES_FILE: Final = "routes.yaml"
ROUTES_FOLDER: Final = "routes.d"
_NAME_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_GUESSED: Final = 20
"""Unknown upstreams for which the nearest name is looked for: with thousands of each that would take minutes."""

Kinds = Mapping[str, type[Settings]]
"""What may stand behind `type:` -> the class of its settings."""


def load_relay(path: Path, warnings: list[Problem] | None = None, *, outside_unit: bool = True) -> Relay:
    """relay.yaml. Raises ConfigInvalid with all problems; what is only a warning goes into `warnings`.

    `outside_unit` as for `load_rules`: only the relay itself needs the secrets in it.
    """
    problems = Problems()
    relay = _read_relay(path, problems, outside_unit)
    _settle(problems, warnings)
    assert relay is not None, "a relay that cannot be read has a problem"  # noqa: S101
    return relay


def load_rules(
    folder: Path, kinds: Kinds, warnings: list[Problem] | None = None, *, outside_unit: bool = False
) -> Rules:
    """All rules beside relay.yaml, merged. Raises ConfigInvalid with all problems of all files.

    `outside_unit` is for commands that look and never send: a secret that perhaps only the running unit can read is a
    warning then, and has no value.
    """
    problems = Problems()
    rules = _RulesReader(Reader(problems, outside_unit), kinds).read(folder)
    _settle(problems, warnings)
    return rules


def _settle(problems: Problems, warnings: list[Problem] | None) -> None:
    found = problems.settle()
    if warnings is not None:
        warnings.extend(found)


def _read_file(path: Path, problems: Problems) -> Node | None:
    try:
        if path.exists() and not path.is_file():  # a FIFO or a device would hold up every reload for ever
            problems.add(Place(str(path), 1), "", "is not a regular file", "put a file there")
            return None
        with path.open("rb") as file:
            loose = loose_rules(path, os.fstat(file.fileno()))
            octets = file.read((4 << 20) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        mend = "check the path and its permissions"
        if isinstance(error, FileNotFoundError):
            mend = f"check the path, or begin with what `callpro-relay example {path.name}` prints"
        problems.add(Place(str(path), 1), "", f"cannot be read: {reason}", mend)
        return None
    if loose is not None:
        problems.add(Place(str(path), 1), "", *loose)
    return parse(octets, str(path), problems)


# ---- relay.yaml ------------------------------------------------------------------------------------------------


def _read_relay(path: Path, problems: Problems, outside_unit: bool) -> Relay | None:
    node = _read_file(path, problems)
    if node is None:
        return None
    reader = Reader(problems, outside_unit)
    relay = reader.block(Relay, node, "")
    if isinstance(node, Block) and "listen" in node.entries:
        for number, item in enumerate(reader.listed(node.entries["listen"].value)):
            _open_to_others(item, f"listen[{number}]", problems)
    return relay


def _open_to_others(item: Node, path: str, problems: Problems) -> None:
    """A listener that others can reach must say who may use it: the default of `allow` would hide that."""
    if not isinstance(item, Block) or "allow" in item.entries or "address" not in item.entries:
        return
    address = item.entries["address"].value
    try:
        if not isinstance(address, Scalar) or address.broken or network.listens_on_loopback(address.text):
            return
    except Mistake:
        return  # noted where the field was read
    wrong = f"is missing, and {address.text} can be reached from other machines"
    problems.add(
        address.place, join(path, "allow"), wrong, "add the networks that may send, like allow: [192.0.2.0/24]"
    )


# ---- routes.yaml and routes.d ----------------------------------------------------------------------------------


class _RulesReader:
    """Reads file after file into one set of rules."""

    def __init__(self, reader: Reader, kinds: Kinds) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._kinds = kinds
        self._named: dict[str, Place] = {}
        self._upstreams: dict[str, UpstreamRule] = {}
        self._routes: list[Route] = []
        self._tests: list[PlacedTest] = []
        self._patterns: dict[str, Place] = {}
        self._vias: list[tuple[Scalar, str]] = []

    def read(self, folder: Path) -> Rules:
        for file in self._files(folder):
            node = _read_file(file, self._problems)
            if node is not None:
                self._file(node)
        unknown = [(via, path) for via, path in self._vias if via.text not in self._named]
        for number, (via, path) in enumerate(unknown):
            mend = mend_word(via.text, self._named) if number < _GUESSED else "see the upstreams named before"
            self._problems.add(via.place, path, f"there is no upstream {via.text[:100]!a}", mend)
        return Rules(self._upstreams, tuple(self._routes), tuple(self._tests))

    def _files(self, folder: Path) -> list[Path]:
        beside = folder / ROUTES_FOLDER
        for each in (folder, beside):
            if os.path.isdir(each) and (loose := loose_rules(each, each.stat())):
                self._problems.add(Place(str(each), 1), "", *loose)
        found = self._listed(beside)
        for path in found:
            if path.suffix in (".yml", ".YAML", ".YML"):
                mend = f"rename it to {path.stem}.yaml"
                self._problems.add(Place(str(path), 1), "", "is not read, for its name", mend)
        files = [path for path in found if path.suffix == ".yaml"]
        if os.path.lexists(folder / ROUTES_FILE) or not files:
            files.insert(0, folder / ROUTES_FILE)
        return files

    def _listed(self, beside: Path) -> list[Path]:
        """One that is there and cannot be looked into never passes for an empty one: all customers in it would be
        refused.
        """
        try:
            return sorted(path for path in beside.iterdir() if not path.name.startswith((".", "#")))
        except OSError as error:
            if os.path.lexists(beside):
                wrong = f"cannot be read: {error.strerror}"
                self._problems.add(Place(str(beside), 1), "", wrong, "check the folder and its permissions")
            return []

    def _file(self, node: Node) -> None:
        block = self._reader.keys(node, "")
        if block is None:
            return
        self._reader.unknown_keys(block, "", ("upstreams", "routes", "tests"))
        if "upstreams" in block.entries:
            self._read_upstreams(block.entries["upstreams"].value)
        for key, read in (("routes", self._route), ("tests", self._test)):
            if key in block.entries:
                for number, item in enumerate(self._reader.listed(block.entries[key].value)):
                    read(item, f"{key}[{number}]")

    # upstreams

    def _read_upstreams(self, node: Node) -> None:
        block = self._reader.keys(node, "upstreams")
        for name, entry in (block.entries if block is not None else {}).items():
            path = join("upstreams", name)
            if name in self._named:
                wrong = f"is named at {self._named[name]} already"
                self._problems.add(entry.key.place, path, wrong, "give it another name")
                continue
            self._named[name] = entry.key.place
            if self._good_name(entry.key, path):
                self._upstream(name, entry, path)

    def _good_name(self, key: Scalar, path: str) -> bool:
        if is_yes_no(key):
            self._problems.add(
                key.place, path, f"{key.text} without quotes means yes or no in YAML", f'write "{key.text}"'
            )
        elif not key.text or len(key.text) > 100 or not _NAME_LETTERS.issuperset(key.text):
            self._problems.add(key.place, path, "is not a name for an upstream", "use letters, digits, - _ and . only")
        else:
            return True
        return False

    def _upstream(self, name: str, entry: Entry, path: str) -> None:
        block = self._reader.keys(entry.value, path)
        if block is None:
            return
        kind = self._kind(block, entry.key.place, path)
        if kind is None:
            return
        settings = self._reader.block(self._kinds[kind], block, path, frozenset(("type", "pace", "expires")))
        entered = block.entries.get("pace")
        pace = self._reader.block(Rate, entered.value, join(path, "pace")) if entered else Rate()
        if settings is not None and pace is not None:
            expires = self._day(block, path)
            self._upstreams[name] = UpstreamRule(name, kind, settings, entry.key.place, pace, expires)

    def _day(self, block: Block, path: str) -> date | None:
        """The day that `expires` states."""
        entry = block.entries.get("expires")
        if entry is None:
            return None
        try:
            return date.fromisoformat(entry.value.text if isinstance(entry.value, Scalar) else "")
        except ValueError:
            wrong, mend = "is not a day", "write the day on which the secret ends, like 2027-03-31"
            self._problems.add(entry.value.place, join(path, "expires"), wrong, mend)
            return None

    def _kind(self, block: Block, place: Place, path: str) -> str | None:
        where = join(path, "type")
        kinds = ", ".join(sorted(self._kinds))
        if "type" not in block.entries:
            self._problems.add(place, where, "is missing", f"add one of: {kinds}")
            return None
        node = block.entries["type"].value
        if isinstance(node, Scalar) and node.text in self._kinds:
            return node.text
        if isinstance(node, Scalar) and node.broken:
            return None
        mend = mend_word(node.text, self._kinds) if isinstance(node, Scalar) else f"write one of: {kinds}"
        self._problems.add(node.place, where, "is not a type of upstream", mend)
        return None

    # routes and tests

    def _route(self, node: Node, path: str) -> None:
        settings = self._reader.block(RouteSettings, node, path)
        patterns = self._own_patterns(node, path)
        self._note_via(node, path)
        canary = node.entries.get("canary") if isinstance(node, Block) else None
        if canary is not None:
            self._note_via(canary.value, join(path, "canary"))
        if settings is not None and patterns:
            self._routes.append(Route(patterns[0], replace(settings, from_=patterns), node.place))

    def _own_patterns(self, node: Node, path: str) -> tuple[str, ...]:
        """The `from` patterns of a route in their normal form; one that is taken already is noted."""
        patterns = []
        for item in self._texts(node, "from"):
            try:
                pattern = names.pattern(item.text)
            except Mistake:
                continue  # noted where the field was read
            if pattern in self._patterns:
                wrong = f"{pattern} has a route at {self._patterns[pattern]} already"
                self._problems.add(item.place, join(path, "from"), wrong, "keep one of the two")
            self._patterns.setdefault(pattern, item.place)
            patterns.append(pattern)
        return tuple(patterns)

    def _test(self, node: Node, path: str) -> None:
        settings = self._reader.block(RouteTest, node, path)
        self._note_via(node, path)
        if settings is not None:
            self._tests.append(PlacedTest(settings, node.place))

    def _note_via(self, node: Node, path: str) -> None:
        """Keep the names in `via` until all files are read."""
        self._vias += ((item, join(path, "via")) for item in self._texts(node, "via") if not is_yes_no(item))

    def _texts(self, node: Node, key: str) -> list[Scalar]:
        entry = node.entries.get(key) if isinstance(node, Block) else None
        items = self._reader.listed(entry.value) if entry is not None else ()
        return [item for item in items if isinstance(item, Scalar) and not item.broken]
