"""What every check of the suite asks for: a case, and where to build it."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case, Setting, all_cases
from upstreams import KINDS

CASES = all_cases(KINDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case` is every case; `remote`, `step` and `documented` are those (of the cases) that a check is about."""
    names = metafunc.fixturenames
    if "documented" in names:
        rows = [(case, row) for case in CASES for row in case.replies]
        metafunc.parametrize(("case", "documented"), rows, ids=[_id(case, row.step, row.said) for case, row in rows])
    elif "step" in names:
        steps = [(case, step) for case in CASES for step in case.steps]
        metafunc.parametrize(("case", "step"), steps, ids=[f"{case.name}-{step.name}" for case, step in steps])
    elif "remote" in names:
        metafunc.parametrize("remote", [case for case in CASES if case.remote], ids=_name)
    elif "case" in names:
        metafunc.parametrize("case", CASES, ids=_name)


def _name(case: Case) -> str:
    return case.name


def _id(case: Case, step: str, said: object) -> str:
    return f"{case.name}-{step}-{getattr(said, 'status', said)}"


@pytest.fixture
def setting(authority, tmp_path) -> Setting:
    return Setting(authority, tmp_path)
