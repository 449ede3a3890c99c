"""The corpus again, and a little fuzzing at each run; `scripts/fuzz` goes on for as long as it is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, TOKENS

CORPUS = Path(__file__).parents[1] / "cases" / "fuzz"
KEPT = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS) == set(TOKENS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_little_more_of_each(name: str) -> None:
    pieces = st.lists(st.sampled_from(TOKENS[name]) | st.binary(max_size=8), max_size=30).map(b"".join)

    @settings(
        max_examples=40 if name in ("dialogue", "login", "config") else 100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(pieces)
    def more(octets: bytes) -> None:
        TARGETS[name](octets)

    more()
