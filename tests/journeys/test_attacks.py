"""Attacks on the real process: smuggled mails, rules that are gone, addresses in use, hostile text."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.relay_process import ROOT, RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys.ends import ENDS, said, smuggled

SMUGGLED = smuggled("acme.nl")


def route(server: FakeSmtp) -> str:
    return (
        f"upstreams:\n  acme: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
        "routes:\n  - {from: acme.nl, via: acme}\n"
    )


@pytest.mark.parametrize("place", ["header", "body"])
def test_one_mail_in_is_one_mail_out_whatever_looks_like_an_end(place: str, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, route(server)) as relay:
            for number, end in enumerate(ENDS.values()):
                opening = b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\nFrom: info@acme.nl\r\n"
                content = b"Subject: %d\r\n%sHallo" % (number, b"\r\n" if place == "body" else b"X-Text: ")
                replies = await said(relay.port, opening + content + end + SMUGGLED)
                assert sum(b"queued as" in reply for reply in replies) == 1, replies
            while len(server.received) < len(ENDS):
                await relay.event("delivered", after=len(relay.events))
            assert [mail.recipients for mail in server.received] == [("jan@example.nl",)] * len(ENDS)
            assert {mail.sender for mail in server.received} == {"info@acme.nl"}
            for mail in server.received:
                assert mail.content.count(b"\n") == mail.content.count(b"\r\n") == mail.content.count(b"\r")

    asyncio.run(journey())


def test_what_clients_and_servers_say_cannot_move_the_cursor(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b[31mrood\x07\u202e"

    async def journey() -> None:
        async with (
            FakeSmtp(replies={"RCPT": f"550 5.1.1 {evil}"}) as server,
            RelayProcess(tmp_path, route(server)) as relay,
        ):
            mail = "MAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\n"
            mail += f"Message-ID: <{evil}@x>\r\n\r\nHi\r\n.\r\n"
            replies = await said(relay.port, f"EHLO {evil}\r\n{evil}\r\nRCPT TO:<{evil}>\r\n{mail}".encode())
            (queued,) = (reply for reply in replies if b"queued as" in reply)
            await relay.event("failed")
            for command in (["queue", "show", queued.split()[-1].decode()], ["queue", "list", "--settled"]):
                _, shown = await relay.command(*command)
                assert "rood" in shown or command[1] == "list"
                assert not set(shown) & set("\x1b\x07\u202e")
            assert not {b"\x1b", b"\x07"} & {bytes((octet,)) for reply in replies for octet in reply}

    asyncio.run(journey())


def test_rules_that_are_gone_are_no_new_rules(tmp_path: Path) -> None:
    """An editor that truncates the file before it writes, or a full disk, must not turn away every mail for good."""

    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, route(server)) as relay:
            relay.write_routes("")
            assert (await relay.reload())["event"] == "reload_refused"
            replies = await said(relay.port, b"MAIL FROM:<info@acme.nl>\r\nQUIT\r\n")
            assert replies[1].startswith(b"250 ")

    asyncio.run(journey())


def test_an_address_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path / "one", route(server)) as relay:
            second = tmp_path / "two"
            second.mkdir()
            (second / "routes.yaml").write_text(route(server))
            (second / "relay.yaml").write_text(
                f"hostname: relay.test\nlisten: [{{address: '127.0.0.1:{relay.port}'}}]\n"
                f"spool: {{url: 'sqlite:///{second}/spool.db'}}\n"
            )
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, str(ROOT / "relay.py"), "serve", "--config", str(second / "relay.yaml")],
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert f"cannot listen on 127.0.0.1:{relay.port}: Address already in use; another program" in done.stderr
            assert "Traceback" not in done.stderr
            assert "Errno" not in done.stderr

    asyncio.run(journey())
