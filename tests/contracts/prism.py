"""Prism in front of a look-alike: a request that breaks the provider's API description is answered 422, not passed on.

Prism comes from the lock file beside this one, by `npm ci`, into node_modules here. Its process is ended by its own id.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_PROGRAM = HERE / "node_modules" / "@stoplight" / "prism-cli" / "dist" / "index.js"
_START_SECONDS = 60


def installed() -> Path:
    """The program, installed if need be. Without node and npm: a failure in CI, a skip elsewhere."""
    if not (shutil.which("node") and shutil.which("npm")):
        missing = "node and npm are needed for the contract tests (Debian: apt install nodejs npm)"
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(missing)
        pytest.skip(missing)
    with (HERE / "package-lock.json").open("rb") as lock:  # two test processes never install at one time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _version(_PROGRAM.parents[1] / "package.json") != _version(HERE / "package.json"):
            done = subprocess.run(["npm", "ci", "--no-progress"], cwd=HERE, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return _PROGRAM


def _version(package: Path) -> str | None:
    """The version of Prism that is installed, or that is wanted; None when there is none."""
    if not package.exists():
        return None
    read = json.loads(package.read_text("utf-8"))
    return str(read.get("version") or read["dependencies"]["@stoplight/prism-cli"])


@asynccontextmanager
async def prism(description: Path, behind: str) -> AsyncIterator[str]:
    """The URL of a Prism that checks by `description` and passes on to `behind`."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        "node", str(installed()), "proxy", str(description), behind,
        "--host", "127.0.0.1", "--port", str(port), "--errors",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said: list[str] = []
    reader = asyncio.create_task(_listen(process, said))
    try:
        await asyncio.wait_for(_listening(process, said), _START_SECONDS)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await reader


async def _listen(process: asyncio.subprocess.Process, said: list[str]) -> None:
    """Keep what it says: a pipe nobody reads would stop it."""
    assert process.stdout is not None
    async for line in process.stdout:
        said.append(line.decode("utf-8", "replace"))


async def _listening(process: asyncio.subprocess.Process, said: list[str]) -> None:
    while not any("Prism is listening on" in line for line in said):
        assert process.returncode is None, "".join(said)
        await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
