"""The unit: what systemd thinks of it, and what the design asks of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parent.parent.parent / "systemd" / "callpro-relay.service"


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-analyze is needed in CI (Debian: systemd)")
        pytest.skip("systemd-analyze is not on this machine")
    return found


def test_systemd_verifies_the_unit(analyze: str, tmp_path: Path) -> None:
    # The program is installed by ops, not by a test: any executable stands in for it.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/callpro-relay/bin/callpro-relay", "/bin/true"))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_mistake_in_the_unit_is_found(analyze: str, tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("TimeoutStopSec", "TimeoutStopSecs"))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert "TimeoutStopSecs" in done.stderr


def test_the_service_is_hardened(analyze: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=15", "--no-pager", UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_unit_says_what_the_design_asks() -> None:
    lines = UNIT.read_text().splitlines()
    assert "Type=notify" in lines
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in lines
    for key in ("LoadCredential=", "ExecReload=", "StateDirectory="):
        assert any(line.startswith(key) for line in lines), key
