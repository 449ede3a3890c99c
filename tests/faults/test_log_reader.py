"""Whoever reads the log of a real relay stands still, or was never there: mail goes on, and a stop stops."""

from __future__ import annotations

import asyncio
import os
import smtplib
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.relay_process import ROOT
from tests.waiting import LONG, answers, until


def write_config(folder: Path) -> int:
    """relay.yaml and routes.yaml; the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (folder / "relay.yaml").write_text(
        f"hostname: relay.test\nlisten: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: 'sqlite:///{folder}/s.db'}}\n"
    )
    (folder / "routes.yaml").write_text(
        f"upstreams:\n  try: {{type: maildir, path: {folder}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
    )
    return port


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while os.write(pipe, b"\n" * 4096):
            pass
    os.set_blocking(pipe, True)


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail("info@acme.nl", ["a@x.nl"], "Subject: hello\r\n\r\nhi\r\n")


def test_a_log_that_nobody_reads_stops_neither_mail_nor_the_stop(tmp_path: Path) -> None:
    port = write_config(tmp_path)
    reading, writing = os.pipe()
    fill(writing)

    async def journey() -> str:
        relay = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "relay.py"), "serve", "--config", str(tmp_path / "relay.yaml"), stderr=writing
        )
        os.close(writing)
        try:
            await until(lambda: answers(port), "an answer")
            for number in (1, 2):
                await asyncio.to_thread(send, port)
                await until(lambda: len(list(tmp_path.glob("mail/**/new/*"))) == number, "the mail")  # noqa: B023
                await asyncio.sleep(0.2)  # its lines are to be written by now
        finally:
            relay.terminate()
            reader = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            pipe = os.fdopen(reading, "rb")
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
            log = (await asyncio.wait_for(reader.read(), LONG)).decode()
            assert await asyncio.wait_for(relay.wait(), LONG) == 0
        return log

    said = [line.split()[1] for line in asyncio.run(journey()).splitlines() if line]
    assert {event: said.count(event) for event in ("started", "accepted", "delivered", "stopped")} == {
        "started": 1, "accepted": 2, "delivered": 2, "stopped": 1,
    }  # fmt: skip


@pytest.mark.parametrize("closed", ["0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_a_relay_without_standard_files_puts_nothing_in_their_place(closed: str, tmp_path: Path) -> None:
    """As old init scripts start programs. A client in the place of one ended the relay at its stop, with SIGABRT."""
    port = write_config(tmp_path)
    started = ("sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, str(ROOT / "relay.py"))

    async def journey() -> None:
        relay = await asyncio.create_subprocess_exec(*started, "serve", "--config", str(tmp_path / "relay.yaml"))
        try:
            await until(lambda: relay.returncode is not None or answers(port), "an answer")
            await asyncio.to_thread(send, port)
            standard = {os.readlink(f"/proc/{relay.pid}/fd/{number}") for number in range(len(closed.split()))}
            assert standard == {os.devnull}
        finally:
            if relay.returncode is None:
                relay.terminate()
            assert await asyncio.wait_for(relay.wait(), LONG) == 0
        command = await asyncio.create_subprocess_exec(*started, "check", "--config", str(tmp_path / "relay.yaml"))
        assert await command.wait() == 0

    asyncio.run(journey())
