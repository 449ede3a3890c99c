"""The demo leaves nothing behind, however somebody ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.waiting import LONG

ROOT = Path(__file__).parents[2]


def test_a_demo_whose_terminal_is_closed_takes_relay_and_files_away(tmp_path: Path) -> None:
    async def journey() -> None:
        demo = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts.demo", cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert demo.stdout
        told = b""
        async with asyncio.timeout(LONG):
            while b"Ctrl-C ends" not in told:
                told += (line := await demo.stdout.readline())
                assert line, told.decode()
            assert any(tmp_path.iterdir())
            os.killpg(demo.pid, signal.SIGHUP)  # what a closed terminal sends to all that it ran
            await demo.stdout.read()
            await demo.wait()
        left_over = True
        try:
            os.killpg(demo.pid, signal.SIGKILL)
        except ProcessLookupError:
            left_over = False
        assert not left_over
        assert list(tmp_path.iterdir()) == []

    asyncio.run(journey())
