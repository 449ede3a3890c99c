"""What several workers say of the relay together: each state that one of them can be in, beside one that is well."""

from __future__ import annotations

import pytest

from ops.status.all_workers import together
from ops.status.health import Check, Report, State

GOOD = (Check("phase"), Check("spool"), Check("delivery"), Check("intake"))


def state(*wrong: Check, **in_flight: int) -> State:
    names = {check.name for check in wrong}
    return State(Report((*(check for check in GOOD if check.name not in names), *wrong)), in_flight)


STARTS = state(Check("phase", "starting", ill=False), Check("intake", "does not listen", ill=False))
DRAINS = state(Check("phase", "draining", ill=False), Check("intake", "does not listen", ill=False))
NO_DATABASE = state(Check("spool", "cannot commit: away"))
FULL = state(Check("intake", "all 5 connections are taken", ill=False))


@pytest.mark.parametrize(
    ("other", "alive", "ready", "name", "said"),
    [
        (state(), True, True, "workers", None),
        (None, False, True, "workers", "no answer from 2"),
        (STARTS, True, True, "phase", "worker 2: starting"),
        (DRAINS, True, True, "phase", "worker 2: draining"),
        (NO_DATABASE, False, False, "spool", "worker 2: cannot commit: away"),
        (FULL, True, False, "intake", "worker 2: all 5 connections are taken"),
    ],
    ids=["well", "hangs", "starts", "drains", "no database", "full"],
)
def test_one_is_well_and_the_other(other: State | None, alive: bool, ready: bool, name: str, said: str | None) -> None:
    report = together({1: state(), 2: other}).report
    assert (report.alive, report.ready) == (alive, ready)
    assert {check.name: check.wrong for check in report.checks}[name] == said


def test_where_nobody_takes_mail_the_relay_is_not_ready_and_alive() -> None:
    """At the start, and while all drain; one that has drained is gone."""
    for workers in ({1: STARTS, 2: STARTS}, {1: DRAINS, 2: DRAINS}, {1: None, 2: DRAINS}):
        report = together(workers).report
        assert (report.alive, report.ready) == (True, False)


def test_what_is_wrong_with_several_is_one_line_and_what_is_under_way_is_added_up() -> None:
    found = together({2: NO_DATABASE, 1: NO_DATABASE, 3: state(acme=2, globex=1), 4: state(acme=1)})
    said = {check.name: check.wrong for check in found.report.checks}
    assert said["spool"] == "worker 1: cannot commit: away; worker 2: cannot commit: away"
    assert list(said) == ["phase", "delivery", "intake", "spool", "workers"]
    assert found.in_flight == {"acme": 3, "globex": 1}
