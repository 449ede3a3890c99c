"""What fails beside other tests is run once more, alone: and what that may not hide."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GREEN = "def test_green(): pass\n"
ONCE = """
from pathlib import Path

def test_{0}():
    mark = Path(__file__).with_name("{0}.ran")
    ran, _ = mark.exists(), mark.touch()
    assert ran, "the first time"
"""
NEVER = "def test_never(): assert not 'ever'\n"
RENAMED = """
from pathlib import Path
import pytest
mark = Path(__file__).with_name("collected")
name, _ = "second" if mark.exists() else "first", mark.touch()

@pytest.mark.parametrize("it", [name])
def test_renamed(it):
    assert it == "second"
"""
UNREADABLE = "import nothing_of_that_name\n"
LOUD = "FAILED BESIDE OTHERS, PASSED ALONE: LOOK INTO THESE"


def door(folder: Path, *tests: str, arguments: tuple[str, ...] = ("-n", "2")) -> tuple[int, str]:
    """The exit code and the output of a run of these tests."""
    for number, text in enumerate(tests):
        (folder / f"test_{number}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.run_tests", "-c", str(folder / "pytest.ini"), str(folder), *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def named(heading: str, output: str) -> list[str]:
    """The tests under a heading."""
    lines = output.partition(heading)[2].splitlines()[1:]
    return [line.strip() for line in lines if line.startswith("  ")]


def test_what_passes_alone_is_green_and_named(tmp_path: Path) -> None:
    code, output = door(tmp_path, GREEN, ONCE.format("once"), GREEN)
    assert code == 0, output
    assert named(LOUD, output) == ["test_1.py::test_once"]
    assert "1 failed, 2 passed" in output, "the first run is shown"


def test_what_fails_alone_is_red_and_so_is_the_run(tmp_path: Path) -> None:
    code, output = door(tmp_path, GREEN, ONCE.format("once"), NEVER)
    assert code == 1, output
    assert LOUD not in output
    assert named("FAILED BESIDE OTHERS, AND ALONE", output) == ["test_2.py::test_never"]


def test_the_arguments_hold_both_times(tmp_path: Path) -> None:
    code, output = door(tmp_path, GREEN, ONCE.format("once"), NEVER, arguments=("-n", "0", "-k", "not never"))
    assert code == 0, output
    assert named(LOUD, output) == ["test_1.py::test_once"]


def test_what_does_not_run_the_second_time_has_not_passed(tmp_path: Path) -> None:
    code, output = door(tmp_path, ONCE.format("once"), RENAMED, arguments=("-n", "0"))
    assert code == 1, output
    assert named("FAILED BESIDE OTHERS, AND ALONE", output) == ["test_1.py::test_renamed[first]"]


@pytest.mark.parametrize(
    ("tests", "arguments"),
    [
        pytest.param([ONCE.format(f"once{number}") for number in range(6)], (), id="six failures"),
        pytest.param([UNREADABLE, ONCE.format("once")], ("--continue-on-collection-errors",), id="a file not read"),
        pytest.param([ONCE.format("once"), GREEN], ("-x",), id="a run that ended early"),
        pytest.param([ONCE.format("once"), GREEN], ("--no-such-option",), id="a wrong argument"),
        pytest.param(["def test_stop(): raise KeyboardInterrupt\n", ONCE.format("once")], (), id="an interrupt"),
        pytest.param([], (), id="no tests"),
    ],
)
def test_other_ends_are_red_at_once(tmp_path: Path, tests: list[str], arguments: tuple[str, ...]) -> None:
    code, output = door(tmp_path, *tests, arguments=("-n", "0", *arguments))
    assert code != 0
    assert "BESIDE OTHERS" not in output
