"""A Debian 12 with systemd as its first process, thrown away at the end, without a network of its own but loopback."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BOOT_SECONDS = 120


class Debian:
    """A booted container on top of `root`, which is never written to. `shared` is seen inside as /shared, and this
    folder of sources where it is.
    """

    def __init__(self, root: Path, shared: Path) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the container
        self._process = subprocess.Popen(
            ["systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--volatile=overlay", "--private-network",
             "--register=no", "--keep-unit", f"--machine=relay-{os.getpid()}", f"--bind-ro={shared}:/shared",
             f"--bind-ro={ROOT}", "--console=pipe"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._first = self._wait_for_first()

    def __enter__(self) -> Debian:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, command: str, *, code: int | None = 0) -> str:
        """A shell command inside; what it printed on both outputs. `code` None takes any exit code."""
        done = subprocess.run(
            [*self._enter(), "/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=120, cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}\n{self.journal()}"
        return done.stdout

    def journal(self) -> str:
        """What the relay and systemd said of it."""
        return subprocess.run(
            [*self._enter(), "journalctl", "--no-pager", "-n", "60", "-u", "callpro-relay*"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._first}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]

    def _wait_for_first(self) -> int:
        """The container's first process, once it has booted."""
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            first = next((pid for pid in _below(self._process.pid) if _number_inside(pid) == 1), None)
            if first is not None:
                self._first = first
                state = subprocess.run(
                    [*self._enter(), "systemctl", "is-system-running"], capture_output=True, text=True, check=False
                ).stdout.strip()
                if state in ("running", "degraded"):
                    return first
            time.sleep(0.3)
        self._log.seek(0)
        text = self._log.read().decode("utf-8", "replace")
        self.__exit__()
        raise RuntimeError(f"no Debian came up in {_BOOT_SECONDS} s:\n{text}")


def _below(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(deeper for child in children for deeper in _below(child))]


def _number_inside(pid: int) -> int:
    """The process's number as its own namespace counts, 0 when it is in ours."""
    try:
        found = re.search(r"^NSpid:\t\d+\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
