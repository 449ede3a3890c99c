"""The vote of several workers on new rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from config.loading import load_rules
from ops.check import Checked
from ops.nodes import rules_hash
from ops.rounds import Round
from upstreams import KINDS


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    (tmp_path / "routes.yaml").write_text(
        f"upstreams: {{box: {{type: maildir, path: {tmp_path}/m}}}}\nroutes: [{{from: acme.nl, via: box}}]\n"
    )
    rules = load_rules(tmp_path, {name: kind.settings for name, kind in KINDS.items()})
    return Checked(None, rules, ())


def begun(checked: Checked, workers: int = 3) -> tuple[Round, str | None]:
    made = Round(1, 10.0, checked, 1, set(range(1, workers + 1)))
    return made, rules_hash(checked.rules) if checked.rules else None


def test_all_can_so_all_do(checked: Checked) -> None:
    round_, same = begun(checked)
    for worker in (2, 1, 3):
        assert not round_.over(9.0)
        round_.vote(worker, None, same)
    assert round_.over(0.0)
    assert (round_.end(), round_.silent) == (None, False)


def test_one_cannot_so_nobody_does(checked: Checked) -> None:
    round_, same = begun(checked)
    round_.vote(1, None, same)
    round_.vote(2, "a key cannot be read", same)
    round_.vote(2, None, same)  # too late
    round_.vote(3, "another reason", None)
    assert round_.end() == "a key cannot be read"


def test_whoever_does_not_answer_cannot(checked: Checked) -> None:
    round_, same = begun(checked)
    round_.vote(2, None, same)
    assert not round_.over(9.9)
    assert round_.over(10.0)
    assert round_.end() == "worker 1 does not answer"
    assert round_.silent, "the first was to say it"


def test_whoever_dies_is_not_waited_for(checked: Checked) -> None:
    round_, same = begun(checked)
    round_.vote(2, None, same)
    round_.vote(3, None, same)
    round_.gone(1)
    assert round_.over(0.0)
    assert (round_.end(), round_.silent) == (None, True)


@pytest.mark.parametrize("read", [None, "other"])
def test_all_must_have_read_the_same(checked: Checked, read: str | None) -> None:
    round_, same = begun(checked, 2)
    round_.vote(1, None, same)
    round_.vote(2, None, read)
    assert round_.end() == "the files changed while they were read; reload again"


def test_what_the_parent_cannot_read_no_worker_goes_by(checked: Checked) -> None:
    broken = replace(checked, rules=None)
    round_, _ = begun(broken, 1)
    round_.vote(1, None, rules_hash(checked.rules) if checked.rules else None)
    assert round_.end() == "the files changed while they were read; reload again"
    nobody, _ = begun(broken, 0)
    assert "there are errors in them" in str(nobody.end())
