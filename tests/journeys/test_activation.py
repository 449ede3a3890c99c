"""systemd holds the port: mail flows while the relay is restarted again and again, and no connection is refused.

systemd-socket-activate opens the port and starts a shell that keeps it and starts the relay each time it has ended, as
systemd would.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from ops.activation import inherited
from tests.fakes.relay_process import ROOT
from tests.waiting import until

KEEPER = 'while :; do ( LISTEN_PID=$BASHPID exec "$@" ); done'
MAIL = b"EHLO x\r\nMAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\n"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def write(folder: Path, port: int) -> list[str]:
    """The config, and the command that serves it."""
    (folder / "routes.yaml").write_text(
        f"upstreams:\n  try: {{type: maildir, path: {folder}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
    )
    (folder / "relay.yaml").write_text(
        f"hostname: relay.test\nlisten: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: 'sqlite:///{folder}/spool.db'}}\n"
    )
    serve = [sys.executable, str(ROOT / "relay.py"), "serve", "--config", str(folder / "relay.yaml")]
    return [*serve, "--log-format", "json"]


def activate() -> str:
    found = shutil.which("systemd-socket-activate")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("systemd-socket-activate is needed in CI (Debian: systemd)")
        pytest.skip("systemd-socket-activate is not on this machine")
    return found


async def one_mail(port: int) -> str:
    """The last reply of one client, or the name of what went wrong before it."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return type(error).__name__
    try:
        if not (greeting := await asyncio.wait_for(reader.readline(), 60)).startswith(b"220"):
            return greeting.decode()[:9] or "cut"
        writer.write(MAIL)
        while not (line := await asyncio.wait_for(reader.readline(), 60)).startswith(b"354"):
            if not line or line.startswith(b"4"):
                return line.decode()[:9] or "cut"
        writer.write(b"Subject: hoi\r\n\r\nHallo\r\n.\r\n")
        return (await asyncio.wait_for(reader.readline(), 60)).decode()[:9] or "cut"
    except ConnectionError as error:
        return type(error).__name__
    finally:
        writer.close()


class Kept:
    """A relay whose port systemd-socket-activate opened. Leaving it ends all of its processes."""

    def __init__(self, port: int, serve: list[str]) -> None:
        self.events: list[dict[str, object]] = []
        self.lines: list[str] = []
        self._command = (activate(), "-l", f"127.0.0.1:{port}", shutil.which("bash") or "bash", "-c", KEEPER, "keeper")
        self._serve = serve

    async def __aenter__(self) -> Kept:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, *self._serve,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        await until(lambda: any("Listening on" in line for line in self.lines))
        return self

    async def __aexit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stderr
        async for line in self._process.stderr:
            self.lines.append(line.decode())
            if line.startswith(b"{"):
                self.events.append(json.loads(line))

    def starts(self) -> int:
        return sum(event["event"] == "started" for event in self.events)

    def relay(self) -> int:
        """The relay's process: the one child of the shell that keeps the port."""
        keeper = self._process.pid
        (child,) = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        return int(child)


def test_restarts_under_load_refuse_no_connection(tmp_path: Path) -> None:
    port = free_port()
    serve = write(tmp_path, port)

    async def journey() -> None:
        answers: Counter[str] = Counter()
        going = True

        async def load() -> None:
            while going:
                answers[await one_mail(port)] += 1

        async def work(mails: int) -> None:
            enough = answers["250 2.0.0"] + mails
            await until(lambda: answers["250 2.0.0"] >= enough)

        async with Kept(port, serve) as kept:
            loads = [asyncio.create_task(load()) for _ in range(20)]
            for round_ in range(3):
                await until(lambda expected=round_ + 1: kept.starts() == expected)
                await work(100)
                os.kill(kept.relay(), signal.SIGTERM)
            await until(lambda: kept.starts() == 4)
            await work(100)
            going = False
            await asyncio.gather(*loads)
        # 421 is what a client hears that is under way at the stop; a failed connection would be an error's name.
        assert set(answers) <= {"250 2.0.0", "421 4.3.2"}, answers

    asyncio.run(journey())


def test_a_port_that_no_listener_names_is_an_error(tmp_path: Path) -> None:
    serve = write(tmp_path, free_port())
    port = free_port()

    async def journey() -> None:
        async with Kept(port, serve) as kept:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            says = f"systemd hands over 127.0.0.1:{port}, which no `listen` in relay.yaml names"
            await until(lambda: any(says in line for line in kept.lines))
            writer.close()

    asyncio.run(journey())


def test_only_listening_tcp_sockets_are_taken() -> None:
    assert inherited({}) == []
    assert inherited({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", "LISTEN_FDNAMES": "x"}
    assert (inherited(environment), environment) == ([], {})
