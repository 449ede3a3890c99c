"""The house's own rules that no linter knows: the length of files and functions, names, what a file says of itself."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("config", "routing", "intake", "spool", "delivery", "upstreams", "ops")
FILES = [ROOT / "relay.py", *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text("utf-8")
    limit = 250 if path.name == "relay.py" else 400
    assert text.count("\n") <= limit
    opening = ast.get_docstring(ast.parse(text))
    assert opening, "a file opens with what it does and what it must never do"
    assert opening.count("\n") < 6
    assert path.stem not in sys.stdlib_module_names
    long = [function.name for function in functions(path) if length(function) > 60]
    assert not long, f"functions over 60 lines: {long}"


def test_functions_are_short_as_a_rule() -> None:
    assert statistics.median(length(function) for path in FILES for function in functions(path)) <= 10


def test_the_project_speaks_only_of_itself() -> None:
    found = subprocess.run(
        ["git", "grep", "-nIE", r"(^|[^A-Za-z0-9_.])/(work|tmp/[a-z])|://[^ \"]*(registry\.|/simple/)", "--",
         ".", ":!tests/house", ":!tests/cases"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_possessive_group_in_a_regex(path: Path) -> None:
    """Python 3.11 before 3.11.5, Debian 12's among them, matches `(...)*+` wrongly; a possessive set is right."""
    assert not re.search(r"\)[*+?]\+", path.read_text("utf-8"))
