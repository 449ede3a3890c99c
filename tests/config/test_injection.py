"""No config value can put a line of its own into a mail or a command: every text of every block is tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.fields import Settings
from config.nodes import parse
from config.problems import Problems
from config.reading import Reader
from config.relay_settings import Relay
from config.rules import RouteSettings
from config.shapes import Shape, shapes_of
from upstreams import KINDS

EVIL = '"hooli\\r\\nBcc: evil@example.net"'
ROOTS: tuple[type[Settings], ...] = (Relay, RouteSettings, *(kind.settings for kind in KINDS.values()))


def texts(block: type[Settings], seen: tuple[type[Settings], ...] = ()) -> Iterator[tuple[type[Settings], Shape]]:
    """Every field that takes text, in this block and those inside it."""
    for shape in shapes_of(block):
        if shape.block is not None and shape.block not in seen:
            yield from texts(shape.block, (*seen, block))
        elif shape.item in (str, Path) and not shape.choices:
            yield block, shape


FIELDS = sorted({(block.__name__, shape.key): (block, shape) for root in ROOTS for block, shape in texts(root)}.items())


@pytest.mark.parametrize("found", [found for _, found in FIELDS], ids=[".".join(name) for name, _ in FIELDS])
def test_a_line_break_in_a_value_is_an_error(found: tuple[type[Settings], Shape]) -> None:
    block, shape = found
    value = f"[{EVIL}]" if shape.many else EVIL
    problems = Problems()
    node = parse(f"{shape.key}: {value}\n".encode(), "x.yaml", problems)
    assert node is not None
    Reader(problems).block(block, node, "")
    said = [problem for problem in problems.found() if problem.path.partition("[")[0] == shape.key]
    assert said
    assert not said[0].warning
    assert not any(set("\r\n") & set(str(problem)) for problem in said)


def test_the_fields_that_reach_a_header_are_among_them() -> None:
    names = {name for name, _ in FIELDS}
    assert {("Sender", "name"), ("Sender", "address"), ("Dkim", "selector"), ("Relay", "hostname")} <= names
