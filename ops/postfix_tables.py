"""Postfix's own files as values: main.cf, and lookup tables by their source text (postconf(5), postmap(1), access(5)).

Reads only; a table that has no text to read is told, never guessed. Must never print what a table answers: it may be
a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from config.rules import Place

TEXT_TYPES: Final = frozenset(("texthash", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm"))
"""Tables that are made from a text file of `key value` lines; the text is named without a suffix."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer of a table. `value` is hidden from a repr: it may be a password."""

    key: str
    value: str = field(repr=False)
    place: Place


@dataclass(frozen=True, slots=True)
class Said:
    """Something to tell: where, about what, and why. `left_out` is False for what was carried over with a change."""

    place: Place
    subject: str
    why: str
    left_out: bool = True

    def __str__(self) -> str:
        told = f"{self.place}  {self.subject}: {self.why}"
        return "".join(letter if letter.isprintable() else "?" for letter in told)


@dataclass(frozen=True, slots=True)
class Table:
    """`entries` by their keys in lower case, as Postfix folds them; `always` is a static table's one answer."""

    entries: Mapping[str, Entry]
    always: Entry | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """Several, asked one after the other; the first answer counts."""

    tables: tuple[Table, ...] = ()

    def find(self, key: str) -> Entry | None:
        """The answer for exactly this key."""
        for table in self.tables:
            found = table.entries.get(key.lower(), table.always)
            if found is not None:
                return found
        return None

    def find_sender(self, sender: str) -> Entry | None:
        """The answer for an envelope sender: its address, then `@domain`; `<>` for the null sender."""
        _, at, domain = sender.rpartition("@")
        return self.find(sender) or (self.find(f"@{domain}") if at else None)

    def entries(self) -> Iterator[Entry]:
        """All that can ever answer, in order."""
        seen: set[str] = set()
        for table in self.tables:
            for key, entry in table.entries.items():
                if key not in seen:
                    seen.add(key)
                    yield entry


@dataclass(frozen=True, slots=True)
class Main:
    """main.cf: the last value of each parameter, not expanded, and its place."""

    path: Path
    parameters: Mapping[str, tuple[str, Place]]

    def get(self, name: str, default: str = "") -> str:
        """A parameter with the `$names` in it expanded."""
        return self._expand(self.parameters[name][0], 10) if name in self.parameters else default

    def yes(self, name: str, default: bool = False) -> bool:
        found = self.get(name)
        return found.lower() == "yes" if found else default

    def place(self, name: str) -> Place:
        return self.parameters[name][1] if name in self.parameters else Place(str(self.path), 1)

    def _expand(self, text: str, depth: int) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name in ("config_directory", "meta_directory"):
                return str(self.path.parent)
            if name not in self.parameters or not depth:
                return match[0]
            return self._expand(self.parameters[name][0], depth - 1)

        return re.sub(r"\$(?:(\w+)|[{(](\w+)[)}])", value, text)


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each logical line: a line that begins with white space continues the one before, comments and
    empty lines between them do not count.
    """
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if line[0] not in " \t":
            if parts:
                yield begun, " ".join(parts)
            begun, parts = number, []
        begun = begun or number
        parts.append(stripped)
    if parts:
        yield begun, " ".join(parts)


def read_main(path: Path) -> Main:
    """main.cf. Raises OSError."""
    parameters = {}
    for number, line in logical_lines(_text(path)):
        name, equals, value = line.partition("=")
        if equals:
            parameters[name.strip()] = (value.strip(), Place(str(path), number))
    return Main(path, parameters)


def read_tables(spec: str, where: Place, beside: Path | None = None) -> tuple[Tables, list[Said]]:
    """The tables that a parameter or an option names, and what could not be read of them.

    `beside` is a folder to look in for files that are not where they are said to be, as when they were copied.
    """
    tables, said = [], []
    for name in split_names(spec):
        kind, colon, rest = name.removeprefix("proxy:").partition(":")
        if not colon or "/" in kind:
            kind, rest = "texthash", name
        if kind in TEXT_TYPES:
            table, found = _text_table(Path(rest), where, beside)
            said += found
            tables += [table] if table else []
        elif kind == "static":
            entry = Entry("*", _unbraced(rest), where)
            tables.append(Table({}, entry))
        elif kind == "inline":
            tables.append(_inline_table(rest, where))
        else:
            why = f"a table of type {kind} has no list of keys to read; write routes for what it answers"
            said.append(Said(where, _shortened(kind, rest), why))
    return Tables(tuple(tables)), said


def split_names(spec: str) -> Iterator[str]:
    """Names with spaces or commas between; what stands in braces stays together."""
    depth, name = 0, ""
    for character in spec:
        depth += (character == "{") - (character == "}")
        if depth == 0 and character in " \t,":
            if name:
                yield name
            name = ""
        else:
            name += character
    if name:
        yield name


def _text_table(path: Path, where: Place, beside: Path | None) -> tuple[Table | None, list[Said]]:
    if not path.exists() and beside is not None and (beside / path.name).exists():
        path = beside / path.name
    try:
        text = _text(path)
    except OSError as error:
        return None, [Said(where, str(path), f"cannot be read: {error.strerror}; give the text that postmap reads")]
    entries: dict[str, Entry] = {}
    said = []
    for number, line in logical_lines(text):
        place = Place(str(path), number)
        key, _, value = line.replace("\t", " ").partition(" ")
        if line.startswith('"') or not value.strip():
            why = "a key in quotes is nothing the relay knows" if line.startswith('"') else "has no value"
            said.append(Said(place, "this line", why))  # a key without a value may be a password gone astray
        elif key.lower() in entries:
            said.append(Said(place, key, f"stands at {entries[key.lower()].place} already, which is what Postfix uses"))
        else:
            entries[key.lower()] = Entry(key, line[len(key) :].strip(), place)
    return Table(entries), said


def _inline_table(rest: str, where: Place) -> Table:
    entries: dict[str, Entry] = {}
    for pair in split_names(_unbraced(rest)):
        key, _, value = _unbraced(pair).partition("=")
        entries.setdefault(key.strip().lower(), Entry(key.strip(), value.strip(), where))
    return Table(entries)


def _unbraced(text: str) -> str:
    stripped = text.strip()
    return stripped[1:-1].strip() if stripped.startswith("{") and stripped.endswith("}") else stripped


def _shortened(kind: str, rest: str) -> str:
    """A table's name; what stands in it may be a secret, so only a path is shown."""
    return f"{kind}:{rest}" if rest.startswith("/") else kind


def _text(path: Path) -> str:
    """Octets that are no UTF-8 come through as they are."""
    return path.read_text("utf-8", "surrogateescape")
