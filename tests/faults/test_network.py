"""One of three relays loses the database over a real network, without a word: in network namespaces of their own.

Root alone may make them, and not in every container: there these are skipped by name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import ROOT
from tests.faults.far_machine import SCENES

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")

ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A network and processes that end with the command, whatever becomes of it."""


@pytest.fixture(autouse=True)
def may_make_networks() -> None:
    """Makes one that is gone at once."""
    try:
        command = [*ALONE, "ip", "link", "add", "near", "type", "veth", "peer", "name", "far"]
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root that may make networks, and iproute2: {getattr(error, 'stderr', error)}")


@pytest.mark.parametrize("scene", SCENES)
def test_a_node_is_cut_off_from_the_database(tmp_path: Path, scene: str) -> None:
    """Others take its mail when its lease is over, it sends nothing from then on, and comes back by itself."""
    command = [*ALONE, sys.executable, "-m", "tests.faults.far_machine", scene, str(tmp_path)]
    before = sorted(os.listdir("/sys/class/net"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-12_000:]
    assert sorted(os.listdir("/sys/class/net")) == before, "the host's network is as it was"
