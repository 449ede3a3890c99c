"""The unit: what systemd thinks of it, and what the design asks of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "systemd"
UNIT = FOLDER / "callpro-relay.service"
SOCKET = FOLDER / "callpro-relay.socket"
DROP_IN = FOLDER / "callpro-relay.service.d" / "socket.conf"


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


@pytest.mark.parametrize("with_socket", [False, True])
def test_the_service_is_hardened(analyze: str, with_socket: bool, tmp_path: Path) -> None:
    """Exposure at most 1.5 of 10, with the socket unit beside it at most 1.2: then it has no capability at all."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text() + (DROP_IN.read_text() if with_socket else ""))
    done = subprocess.run(
        [analyze, "security", "--offline=yes", f"--threshold={12 if with_socket else 15}", "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert ("✗ AmbientCapabilities" not in done.stdout) == with_socket


def test_systemd_verifies_the_socket_unit_and_its_drop_in(analyze: str, tmp_path: Path) -> None:
    (tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/opt/callpro-relay/bin/callpro-relay", "/bin/true"))
    (tmp_path / SOCKET.name).write_text(SOCKET.read_text())
    beside = tmp_path / DROP_IN.parent.name
    beside.mkdir()
    (beside / DROP_IN.name).write_text(DROP_IN.read_text())
    done = subprocess.run(
        [analyze, "verify", "--man=no", tmp_path / SOCKET.name, tmp_path / UNIT.name],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_says_what_the_design_asks() -> None:
    lines = UNIT.read_text().splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=60s" in lines
    assert "Environment=BOOT_ID=%b" in lines
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in lines
    for key in ("LoadCredential=", "ExecReload=", "StateDirectory="):
        assert any(line.startswith(key) for line in lines), key
