"""YAML text -> nodes: lines, duplicates, aliases, merges, bounds, and every text that is not YAML."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from config import nodes
from config.nodes import Block, Items, Node, Scalar, parse
from config.problems import Problems


def parsed(text: str | bytes) -> tuple[Node | None, list[str]]:
    problems = Problems()
    node = parse(text.encode() if isinstance(text, str) else text, "f.yaml", problems)
    return node, [str(problem) for problem in problems.found()]


def value(node: Node | None) -> object:
    """The texts of a node, without places."""
    if isinstance(node, Block):
        return {key: value(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, Items):
        return [value(item) for item in node.items]
    return node.text if isinstance(node, Scalar) else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("---\n", {}),
        ("a: 1\nb: [x, 'y', \"z\"]\n", {"a": "1", "b": ["x", "y", "z"]}),
        ("a: 0123\nb: 1e3\nc: 12:30", {"a": "0123", "b": "1e3", "c": "12:30"}),
        ("from: <>", {"from": "<>"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": "1"}, "c": {"b": "1"}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": "1", "c": "2"}, "d": {"c": "3", "b": "1"}}),
        (
            "a: &x {b: 1}\nc: &y {b: 2, e: 3}\nd: {<<: [*x, *y]}",
            {"a": {"b": "1"}, "c": {"b": "2", "e": "3"}, "d": {"b": "1", "e": "3"}},
        ),
        ("a: !!str 5", {"a": "5"}),
        ("\ufeffa: 1", {"a": "1"}),
        ("a: 1\r\nb: 2\r\n", {"a": "1", "b": "2"}),
    ],
)
def test_reads(text, expected):
    node, problems = parsed(text)
    assert problems == []
    assert value(node) == expected


def test_every_node_knows_its_line():
    node, _ = parsed("# first\na: 1\nb:\n  - x\n  - {c: y}\n")
    assert isinstance(node, Block)
    listed = node.entries["b"].value
    assert isinstance(listed, Items)
    assert [node.entries["a"].key.place.line, *(item.place.line for item in listed.items)] == [2, 4, 5]


_ALIAS = "begins with *, which YAML reads as an alias, and no anchor above has that name; put the value in quotes"
_TAG = "begins with !, which YAML reads as a type; put the value in quotes"
_KEPT = "a value begins with a character that YAML keeps for itself; put it in quotes"
_BRACKET = 'a bracket is not closed, or a value in brackets needs quotes; check [ ] { }, and quote: "::1"'
_ESCAPE = "a backslash in double quotes begins an escape that YAML does not know; use single quotes"
_NO_KEY = "has a list or a block where a key should be; write `key: value`, and quote a value with brackets"
_COLON = "`: ` stands where no key can be; put the value in quotes, or mend the indentation"
_MERGE = "takes a block from elsewhere, and this is not one; write `<<: *anchor`"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a: stands here a second time (first on line 1); keep one of the two"),
        ("a:\n  - {b: 1,\n     b: 2}", 3, "a[0].b: stands here a second time (first on line 2); keep one of the two"),
        ("a:\n\tb: 1", 2, "a: is indented with a tab; use spaces"),
        ("a: *.acme.nl", 1, 'a: a value begins with *; put it in quotes: "*.acme.nl"'),
        ("a: &.x", 1, "a: a value begins with &; put it in quotes"),
        ("a: @acme.nl", 1, f"a: {_KEPT}"),
        ("x: 1\na: b: c", 2, _COLON),
        ('a: "\\q"', 1, f"a: {_ESCAPE}"),
        ("a: 'x", 1, "a: a quote is opened and not closed; close it"),
        ("a: [::1]", 1, f"a[0]: {_BRACKET}"),
        ("a: *secret", 1, f"a: {_ALIAS}"),
        ("a: &x [*x]", 1, f"a[0]: {_ALIAS}"),
        ("a: !secret x", 1, f"a: {_TAG}"),
        ("a: !!python/object:os.system x", 1, f"a: {_TAG}"),
        ("? [a]\n: b", 1, _NO_KEY),
        ("a: 1\n---\nb: 2", 2, "a second document starts here; remove the --- line"),
        ("a: 1\nb: \x01", 2, "holds a control character; remove it, or retype the line"),
        ("a: {<<: 5}", 1, f"a.<<: {_MERGE}"),
        (b"a: 1\nb: \xff", 2, "is not UTF-8 text; save the file as UTF-8"),
        ("a: " + "[" * 5000, 1, "a" + "[0]" * 31 + ": is nested too deeply; use at most 32 levels"),
        ("#" * (nodes.LARGEST_FILE + 1), 1, "is larger than 4 MB; spread the routes over routes.d/"),
    ],
)
def test_says_what_is_wrong_and_what_to_write(text, line, problem):
    assert f"f.yaml:{line}  {problem}" in parsed(text)[1]


def test_no_problem_quotes_a_value():
    for text in (
        "p: *hunter2",
        "p: &hunter2",
        "p: !hunter2 x",
        "p: @hunter2",
        "p: 'hunter2",
        "p: hunter2: x",
        "p: %hunter2",
    ):
        assert "hunter2" not in "".join(parsed(text)[1])


def test_aliases_are_shared_not_copied():
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 25))
    node, problems = parsed(bomb)
    assert problems == []
    assert isinstance(node, Block)
    last = node.entries["a24"].value
    assert isinstance(last, Items)
    assert all(item is last.items[0] for item in last.items)


def test_merges_of_large_blocks_are_bounded():
    large = "{" + ", ".join(f"k{n}: 1" for n in range(2000)) + "}"
    _, problems = parsed(f"a: &a {large}\n" + "".join(f"b{n}: {{<<: *a}}\n" for n in range(100)))
    assert [problem.partition("  ")[2] for problem in problems] == [
        "b50: merges too much; write the keys out where they are used"
    ]


_YAML_LIKE = st.text(st.sampled_from("ab:-[]{},&*!|>'\"#%@`?~<> \n\t0\\"), max_size=80)


@given(_YAML_LIKE | st.text(max_size=80))
@example("{a: 1")
def test_any_text_gives_a_node_or_a_problem(text):
    node, problems = parsed(text.encode("utf-8", "replace"))
    assert node is not None or problems


@given(st.binary(max_size=60))
def test_any_octets_give_a_node_or_a_problem(octets):
    node, problems = parsed(octets)
    assert node is not None or problems
