"""The watchdog: quiet as soon as the spool's writer or the delivery stands still, and not because a disk is full."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ops.watchdog import Watchdog, seconds_allowed
from spool.contract import SpoolFull, SpoolUnavailable
from tests.fakes.relay_process import RelayProcess
from tests.waiting import LONG


async def well() -> None: ...


async def none_stuck() -> tuple[str, ...]:
    return ()


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def probe() -> None:
        raise error

    return probe


async def hanging() -> None:
    await asyncio.Event().wait()


async def some_stuck() -> tuple[str, ...]:
    return ("acme.nl", "globex.nl")


@pytest.mark.parametrize(
    ("probe", "stuck", "wrong"),
    [
        (well, none_stuck, None),
        (raising(SpoolFull()), none_stuck, None),
        (raising(SpoolUnavailable("disk I/O error")), none_stuck, None),
        (hanging, none_stuck, "the spool's writer did not answer"),
        (well, some_stuck, "due mail of acme.nl, globex.nl is not tried"),
        (raising(SpoolFull()), some_stuck, "due mail of acme.nl"),
        (raising(KeyError("x")), none_stuck, "a bug of ours (KeyError)"),
    ],
)
def test_it_tells_only_of_progress(probe, stuck, wrong: str | None) -> None:
    told: list[None] = []

    async def run() -> str | None:
        dog = Watchdog(0.06, probe, stuck, lambda: told.append(None))
        running = asyncio.create_task(dog.run())
        await asyncio.sleep(0.3)
        running.cancel()
        return await dog.look()

    found = asyncio.run(run())
    assert (found is None) == (wrong is None)
    assert wrong is None or wrong in str(found)
    assert bool(told) == (wrong is None)


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_systemd_asks_in_the_environment(environment: dict[str, str], seconds: float | None) -> None:
    assert seconds_allowed(environment) == seconds


def test_the_real_process_goes_quiet_while_its_writer_cannot_write(tmp_path: Path) -> None:
    """Somebody holds the database: the writer waits, the loop turns and clients are answered, and no word goes out."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.setblocking(False)

    async def word(seconds: float) -> bool:
        """Whether it tells of progress within so long."""
        try:
            async with asyncio.timeout(seconds):
                while b"WATCHDOG=1" not in await asyncio.get_running_loop().sock_recv(heard, 4096):
                    pass
        except TimeoutError:
            return False
        return True

    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "900000"}
        async with RelayProcess(tmp_path / "relay", routes, environment=environment) as relay:
            assert await word(LONG)
            other = sqlite3.connect(relay.spool, isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            await relay.event("no_progress", after=len(relay.events))  # one before was the machine's
            while await word(0.01):
                pass
            assert not await word(1.5)
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            assert (await reader.readline()).startswith(b"220 ")
            writer.close()
            other.execute("COMMIT")
            other.close()
            assert await word(LONG), "the database is free again"

    asyncio.run(journey())
    heard.close()
