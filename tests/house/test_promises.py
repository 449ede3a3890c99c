"""docs/promises.md names tests that exist, and at least one for each promise."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[str]:
    text = (ROOT / "docs" / "promises.md").read_text("utf-8").partition("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("|")]
    return table[2:]


def test_every_promise_names_the_test_that_shows_it() -> None:
    assert len(rows()) > 20
    assert [row for row in rows() if not _NAMED.search(row)] == []


def test_every_test_that_is_named_exists() -> None:
    named = [found for row in rows() for found in _NAMED.findall(row)]
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert missing == []
