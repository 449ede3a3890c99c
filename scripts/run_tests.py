"""Runs pytest on all processors, and what failed there once more, alone: a busy machine must not stop good work.

It hides nothing: a test that needed its second chance is named at the end, and many failures get none. Arguments go to
pytest, both times. The exit code is pytest's.
"""

from __future__ import annotations

import sys

import pytest

MOST = 5
"""More failures than this in the first run are no coincidence."""


class Watched:
    """A plugin that notes how a run went. `only` are the tests that may run, by their ids; None: all."""

    def __init__(self, only: dict[str, None] | None = None) -> None:
        self._only = only
        self.failed: dict[str, None] = {}
        self.passed: set[str] = set()
        self.whole = True
        """False when something could not be collected, or the run ended early."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._only is not None:
            items[:] = [item for item in items if item.nodeid in self._only]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.whole = self.whole and not report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:  # also before and after the test itself
            self.failed[report.nodeid] = None
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.whole = self.whole and not (session.shouldfail or session.shouldstop)


def main(arguments: list[str]) -> int:
    first = Watched()
    code = pytest.main(["-n", "auto", *arguments], plugins=[first])
    if code != pytest.ExitCode.TESTS_FAILED or not first.whole or not 0 < len(first.failed) <= MOST:
        return code
    say(f"{len(first.failed)} failed beside others: once more, alone")
    second = Watched(only=first.failed)
    code = pytest.main([*arguments, "-n", "0"], plugins=[second])
    if code == pytest.ExitCode.OK and second.whole and first.failed.keys() <= second.passed:
        say("failed beside others, passed alone: look into these", *first.failed)
        return pytest.ExitCode.OK
    say("failed beside others, and alone", *(name for name in first.failed if name not in second.passed))
    return code or pytest.ExitCode.TESTS_FAILED


def say(heading: str, *names: str) -> None:
    print("", f" {heading.upper()} ".center(100, "!"), *(f"  {name}" for name in names), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
