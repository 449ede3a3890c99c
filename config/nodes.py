"""YAML text -> nodes that know their line, with duplicate keys, tabs and stray characters noted as problems.

Builds from events, so depth and size are bounded, aliases are shared instead of copied, and no object is ever made.
No problem may quote a value: it could be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from config.problems import Problems
from config.rules import Place
from config.syntax import explain

LARGEST_FILE: Final = 4 << 20
"""Octets; some 20,000 routes."""
DEEPEST: Final = 32
MOST_MERGED: Final = 100_000
"""Keys that `<<` may bring into one file, so that merges of merges stay small."""
_MERGE: Final = "<<"
_STRING_TAG: Final = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One text. `plain` means without quotes, so a `no` in it was a word that YAML gives a meaning. What is `broken`
    has its problem already and no text.
    """

    place: Place
    text: str
    plain: bool = True
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and what stands under it."""

    key: Scalar
    value: Node


@dataclass(frozen=True, slots=True)
class Block:
    """A mapping; every key once."""

    place: Place
    entries: Mapping[str, Entry]


Node = Scalar | Items | Block


class _Stop(Exception):
    """The file cannot be read further; the problem is noted."""


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    place: Place
    path: str
    anchor: str | None
    mapping: bool
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    merges: list[Entry] = field(default_factory=list)
    key: Scalar | None = None
    dropped: bool = False


def parse(octets: bytes, file: str, problems: Problems) -> Node | None:
    """The document in `octets`; an empty one is an empty block. None when it cannot be read (a problem says why)."""
    try:
        text = _decode(octets, file, problems)
        return _Builder(file, problems).build(text)
    except _Stop:
        return None


def _decode(octets: bytes, file: str, problems: Problems) -> str:
    if len(octets) > LARGEST_FILE:
        problems.add(Place(file, 1), "", f"is larger than {LARGEST_FILE >> 20} MB", "spread the routes over routes.d/")
        raise _Stop
    try:
        return octets.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        problems.add(Place(file, line), "", "is not UTF-8 text", "save the file as UTF-8")
        raise _Stop from None


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


class _Builder:
    """Takes events one by one and keeps the open lists and mappings on a stack of its own."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._anchors: dict[str, Node] = {}
        self._stack: list[_Open] = []
        self._root: Node | None = None
        self._documents = 0
        self._merged = 0

    def build(self, text: str) -> Node:
        handlers: dict[type[Any], Callable[[Any], None]] = {
            yaml.DocumentStartEvent: self._document,
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceEndEvent: self._end,
            yaml.MappingEndEvent: self._end,
        }
        for event in self._events(text):
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
        if self._root is None or (isinstance(self._root, Scalar) and is_empty(self._root)):
            return Block(Place(self._file, 1), {})
        return self._root

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            line, wrong, mend = explain(error, text)
            self._stop(line, wrong, mend)

    def _stop(self, line: int, wrong: str, mend: str) -> None:
        self._problems.add(Place(self._file, line), self._path(), wrong, mend)
        raise _Stop

    def _place(self, event: yaml.Event) -> Place:
        return Place(self._file, _line(event))

    def _path(self) -> str:
        """Where the next node will stand."""
        if not self._stack:
            return ""
        top = self._stack[-1]
        if not top.mapping:
            return f"{top.path}[{len(top.items)}]"
        return join(top.path, top.key.text) if top.key is not None else top.path

    def _document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(_line(event), "a second document starts here", "remove the --- line")

    def _refuse_tag(self, event: Any) -> None:
        if event.tag not in (None, _STRING_TAG):
            wrong = "begins with !, which YAML reads as a type"
            self._problems.add(self._place(event), self._path(), wrong, "put the value in quotes")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._refuse_tag(event)
        scalar = Scalar(self._place(event), event.value, plain=event.implicit[0])
        if event.anchor is not None:
            self._anchors[event.anchor] = scalar
        self._put(scalar)

    def _alias(self, event: yaml.AliasEvent) -> None:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            wrong = "begins with *, which YAML reads as an alias, and no anchor above has that name"
            self._problems.add(self._place(event), self._path(), wrong, "put the value in quotes")
            node = Scalar(self._place(event), "", plain=False, broken=True)
        self._put(node)

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        self._refuse_tag(event)
        if len(self._stack) >= DEEPEST:
            self._stop(_line(event), "is nested too deeply", f"use at most {DEEPEST} levels")
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._stack.append(_Open(self._place(event), self._path(), event.anchor, mapping))

    def _end(self, _event: yaml.Event) -> None:
        top = self._stack.pop()
        node: Node = Items(top.place, tuple(top.items))
        if top.mapping:
            for merge in top.merges:
                self._merge(top, merge)
            node = Block(top.place, top.entries)
        if top.anchor is not None:
            self._anchors[top.anchor] = node
        self._put(node)

    def _put(self, node: Node) -> None:
        if not self._stack:
            self._root = node
        elif not self._stack[-1].mapping:
            self._stack[-1].items.append(node)
        elif self._stack[-1].key is None:
            self._take_key(self._stack[-1], node)
        else:
            self._take_value(self._stack[-1], node)

    def _take_key(self, top: _Open, node: Node) -> None:
        if isinstance(node, Scalar):
            top.key, top.dropped = node, node.broken
            return
        wrong = "has a list or a block where a key should be"
        self._problems.add(node.place, top.path, wrong, "write `key: value`, and quote a value with brackets")
        top.key, top.dropped = Scalar(node.place, ""), True

    def _take_value(self, top: _Open, node: Node) -> None:
        key, dropped = top.key, top.dropped
        top.key, top.dropped = None, False
        if key is None or dropped:
            return
        if key.text == _MERGE and key.plain:
            top.merges.append(Entry(key, node))
        elif key.text in top.entries:
            first = top.entries[key.text].key.place.line
            wrong = f"stands here a second time (first on line {first})"
            self._problems.add(key.place, join(top.path, key.text), wrong, "keep one of the two")
        else:
            top.entries[key.text] = Entry(key, node)

    def _merge(self, top: _Open, merge: Entry) -> None:
        """`<<: *base` (or a list of them): its keys, where the block has none of its own."""
        sources = merge.value.items if isinstance(merge.value, Items) else (merge.value,)
        for source in sources:
            if not isinstance(source, Block):
                wrong = "takes a block from elsewhere, and this is not one"
                self._problems.add(merge.key.place, join(top.path, _MERGE), wrong, "write `<<: *anchor`")
                continue
            self._merged += len(source.entries)
            if self._merged > MOST_MERGED:
                self._stop(merge.key.place.line, "merges too much", "write the keys out where they are used")
            for key, entry in source.entries.items():
                top.entries.setdefault(key, entry)


def is_empty(node: Node) -> bool:
    """True where nothing was written: `key:` alone, `~` or `null`."""
    return isinstance(node, Scalar) and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def join(path: str, key: str) -> str:
    """`routes[2]` and `via` -> `routes[2].via`; a key that is not a plain word is shown in quotes."""
    shown = key if re.fullmatch(r"[\w.*@<-][\w.*@<>-]{0,79}", key) else f'"{ascii(key)[1:-1][:80]}"'
    return f"{path}.{shown}" if path else shown
