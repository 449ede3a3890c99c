"""What people order: hold, release, retry, drop, find. The real relay, and the real commands beside it."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.control import control_path
from spool.contract import Arrival
from spool.holding import Hold, Scope
from spool.sqlite import SqliteSpool
from tests.fakes.authority import Authority
from tests.fakes.relay_process import ROOT, RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails


def routes(server: FakeSmtp) -> str:
    return (
        f"upstreams:\n  up: {{type: smtp, host: localhost, port: {server.port}}}\n"
        "routes:\n  - {from: acme.nl, via: up}\n  - {from: globex.nl, via: up}\n"
    )


async def send(relay: RelayProcess, sender: str = "info@acme.nl", to: str = "jan@example.nl") -> str:
    """A mail; its id."""
    seen = len(relay.events)
    said = await clients.smtplib(relay.port, sender, [to], mails.plain(sender, to))
    assert said.code == 0, said.text
    return str((await relay.event("accepted", after=seen))["mail"])


async def listed(relay: RelayProcess, *options: str) -> list[dict[str, object]]:
    code, text = await relay.command("queue", "list", "--json", *options)
    assert code == 0, text
    found: list[dict[str, object]] = json.loads(text)
    return found


def test_a_held_route_keeps_its_mail_over_a_restart_until_it_is_released(
    authority: Authority, tmp_path: Path, url: str | None
) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", routes(server), url=url) as relay,
        ):
            code, text = await relay.command("queue", "hold", "--route", "acme.nl", "--reason", "verkeerde bijlage")
            assert (code, "queue release --route acme.nl" in text) == (0, True), text
            ids = [await send(relay) for _ in range(3)]
            await send(relay, "info@globex.nl")
            await relay.event("delivered", route="globex.nl")
            assert [mail["id"] for mail in await listed(relay)] == ids
            _, text = await relay.command("queue", "list")
            assert "verkeerde bijlage (route acme.nl)" in text
            await relay.stop(signal.SIGKILL)
            await relay.start()
            ids.append(await send(relay))
            _, text = await relay.command("queue", "holds")
            assert text.startswith("route acme.nl  on hold for ")
            assert [mail.sender for mail in server.received] == ["info@globex.nl"]
            code, text = await relay.command("queue", "release", "--route", "acme.nl")
            assert (code, "verkeerde bijlage" in text) == (0, True), text
            for number in ids:
                await relay.event("delivered", mail=number)
            assert await listed(relay) == []
            assert await relay.command("queue", "holds") == (0, "Nothing is on hold.\n")
            code, text = await relay.command("queue", "release", "--route", "acme.nl")
            assert (code, text) == (1, "Nothing was on hold there.\n")

    asyncio.run(journey())


def test_a_held_customer_and_a_held_mail_wait_for_their_own_release(
    authority: Authority, tmp_path: Path, url: str | None
) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", routes(server), url=url) as relay,
        ):
            assert (await relay.command("queue", "hold", "--sender", "@Acme.NL"))[0] == 0
            one, other = await send(relay), await send(relay)
            assert (await relay.command("queue", "hold", one))[0] == 0
            code, text = await relay.command("queue", "release", other)
            assert (code, "release --sender @acme.nl" in text) == (1, True), text
            assert (await relay.command("queue", "release", "--sender", "@acme.nl"))[0] == 0
            await relay.event("delivered", mail=other)
            _, text = await relay.command("queue", "show", one)
            assert f"(mail {one})" in text
            assert (await relay.command("queue", "release", one))[0] == 0
            await relay.event("delivered", mail=one)
            _, text = await relay.command("queue", "show", one)
            assert "note      on hold by " in text
            assert "note      released by " in text
            code, text = await relay.command("queue", "hold", one)
            assert (code, "do not wait" in text) == (1, True), text

    asyncio.run(journey())


def test_retry_now_and_drop_and_find_and_failures(authority: Authority, tmp_path: Path, url: str | None) -> None:
    async def journey() -> None:
        replies = {"RCPT jan@example.nl": "451 4.3.0 later", "RCPT weg@example.nl": "550 5.1.1 no such user"}
        async with (
            FakeSmtp(starttls=authority.server_context(), replies=replies) as server,
            RelayProcess(tmp_path / "r", routes(server), url=url, extra="delivery: {retry: [1h]}\n") as relay,
        ):
            one, other = await send(relay), await send(relay)
            await relay.event("deferred", mail=one)
            await relay.event("deferred", mail=other)
            seen = len(relay.events)
            code, text = await relay.command("queue", "retry", one)
            assert (code, text) == (0, "1 mail is due now.\n")
            again = await relay.event("deferred", after=seen)
            assert (again["mail"], again["attempts"]) == (one, 2)
            code, text = await relay.command("queue", "drop", "--recipient", "jan@example.nl")
            assert (code, text) == (2, "2 mails are to be dropped, and nobody would be told. Add --yes to do it.\n")
            assert (await relay.command("queue", "drop", "--yes"))[0] == 2
            code, text = await relay.command("queue", "drop", other, "--yes", "--reason", "dubbel")
            assert (code, text) == (0, "1 mail is dropped.\n")
            code, text = await relay.command("queue", "find", "--to", "JAN@example.nl", "--json")
            found = [(mail["id"], mail["recipients"][0]["state"]) for mail in json.loads(text)]
            assert (code, found) == (0, [(other, "dropped"), (one, "waiting")])
            assert (await relay.command("queue", "find", "--to", "nobody@example.nl"))[0] == 1
            refused = await send(relay, to="weg@example.nl")
            await relay.event("failed", mail=refused)
            _, text = await relay.command("queue", "failures", "--csv")
            (row,) = csv.DictReader(io.StringIO(text))
            assert (row["customer"], row["failed"], row["expired"], row["dropped"]) == ("acme.nl", "1", "0", "1")
            _, text = await relay.command("queue", "failures", "--each", "--csv")
            rows = {row["recipient"]: row for row in csv.DictReader(io.StringIO(text))}
            assert rows["weg@example.nl"]["reply"] == "550 5.1.1 no such user"
            assert [mail for mail in server.received if mail.sender] == []

    asyncio.run(journey())


def test_a_hold_that_the_relay_made_is_seen_and_released(authority: Authority, tmp_path: Path, url: str | None) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context(), replies={"MAIL": ["530 5.7.0 login first"]}) as server,
            RelayProcess(tmp_path / "r", routes(server), url=url) as relay,
        ):
            number = await send(relay)
            await relay.event("held", route="acme.nl")
            for command in ("list", "holds"):
                _, text = await relay.command("queue", command)
                assert "route acme.nl by up  on hold" in text
                assert "530 5.7.0 login first" in text
                assert "next probe in" in text
            assert "waits for its way, which is probed in " in (await relay.command("queue", "list"))[1]
            assert "waits for its way, which is probed in " in (await relay.command("queue", "show", number))[1]
            code, text = await relay.command("queue", "release", "--route", "acme.nl")
            assert (code, "route acme.nl by up is released" in text) == (0, True), text
            await relay.event("order_release", left=0)
            await relay.event("delivered", mail=number)

    asyncio.run(journey())


def test_without_a_relay_orders_go_to_the_spool_itself(authority: Authority, tmp_path: Path, url: str | None) -> None:
    async def journey() -> None:
        async with FakeSmtp(starttls=authority.server_context()) as server:
            relay = RelayProcess(tmp_path / "r", routes(server), url=url)
            async with relay:
                assert (await relay.command("queue", "hold", "--route", "acme.nl"))[0] == 0
                one, other = await send(relay), await send(relay)
            code, text = await relay.command("queue", "hold", "--route", "globex.nl")
            assert code == 0, text
            code, text = await relay.command("queue", "hold", "--route", "umbrella.nl")
            assert (code, "there is no route umbrella.nl" in text) == (1, True), text
            code, text = await relay.command("queue", "release", "--route", "umbrella.nl")
            assert (code, "there is no route umbrella.nl" in text) == (1, True), text
            if url is None:  # of a database it is the relays of other machines that send
                assert "no relay runs on this spool" in (await relay.command("queue", "list"))[1]
            assert (await relay.command("queue", "drop", one, "--yes"))[0] == 0
            code, text = await relay.command("queue", "release", "--route", "acme.nl")
            assert code == 0, text
            async with relay:
                await relay.event("delivered", mail=other)
                _, text = await relay.command("queue", "holds")
                assert text.startswith("route globex.nl")

    asyncio.run(journey())


_ASK = """\
import os, sys
from pathlib import Path
from ops.control import ask
from ops.orders import Action, Order
os.setgid(65534); os.setuid(65534)
try:
    print(ask(Path(sys.argv[1]), Order(Action.HOLDS)))
except Exception as error:
    print(type(error).__name__, error)
"""


def test_another_user_gives_no_orders(
    authority: Authority, open_folder: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")

    folder = open_folder / "r"
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))

    def asked_by_nobody(socket: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", _ASK, socket], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(folder, routes(server), url=url) as relay,
        ):
            socket = control_path(relay.url, relay.config)
            assert socket.parent == folder
            assert socket.stat().st_mode & 0o777 == 0o600
            folder.chmod(0o755)
            assert "PermissionError" in await asyncio.to_thread(asked_by_nobody, socket)
            socket.chmod(0o666)  # even when somebody opens the door
            assert "only root and the relay's own user" in await asyncio.to_thread(asked_by_nobody, socket)
            await relay.event("control_refused", user=65534)

    asyncio.run(journey())


def test_a_long_order_shows_on_a_terminal_how_far_it_is(authority: Authority, tmp_path: Path) -> None:
    async def fill(url: str) -> None:
        spool = await SqliteSpool.open(url, size_limit=1 << 40)
        for start in range(0, 3500, 500):
            mails_now = [
                Arrival(spool.next_id(), "info@acme.nl", (f"jan{number}@example.nl",), b"\r\n.\r\n", "acme.nl",
                        1.0, "127.0.0.1", "callpro")
                for number in range(start, start + 500)
            ]  # fmt: skip
            await asyncio.gather(*(spool.put(mail) for mail in mails_now))
        await spool.hold(Hold(Scope.ROUTE, "acme.nl", 1.0, "a test", ""))
        await spool.close()

    def drop(config: Path) -> tuple[int, str]:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, ROOT / "relay.py", "queue", "drop", "--route", "acme.nl", "--yes", "--config", config],
            stdin=slave, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):
            while part := os.read(master, 65536):
                shown += part
        assert process.stdout
        said = process.stdout.read().decode()
        process.stdout.close()
        os.close(master)
        assert said == "3500 mails are dropped.\n"
        return process.wait(), shown.decode()

    async def journey() -> None:
        async with FakeSmtp(starttls=authority.server_context()) as server:
            relay = RelayProcess(tmp_path / "r", routes(server))
            await fill(f"sqlite:///{tmp_path}/r/spool.db")
            async with relay:
                code, shown = await asyncio.to_thread(drop, relay.config)
            assert code == 0
            assert re.search(r"\[#+-*\]  [1-3],\d00 of 3,500 mails", shown), shown
            assert shown.endswith("\r\x1b[K")

    asyncio.run(journey())
