"""New rules under load: what would change is told first, what is wrong changes nothing, and no mail notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import smtplib
import socket
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.relay_process import Event, RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import mails


def rules(port: int, others: str = "", pace: int = 1000) -> str:
    return (
        f"upstreams:\n  up: {{type: smtp, host: localhost, port: {port}}}\n"
        f"  other: {{type: smtp, host: localhost, port: {port}}}\n"
        f"routes:\n  - {{from: acme.nl, via: up}}\n"
        f"  - {{from: globex.nl, via: other, pace: {{per_minute: {pace}}}}}\n{others}"
    )


async def told(relay: RelayProcess) -> tuple[int, dict[str, object]]:
    code, text = await relay.command("check", "--diff", "--json")
    found: dict[str, object] = json.loads(text)
    return code, found


def send_on_one_connection(port: int, count: int, go_on: asyncio.Event) -> int:
    """Mails on one kept connection; the client knows nothing of reloads and would raise at any hitch."""
    sent = 0
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        while sent < count or not go_on.is_set():
            client.sendmail("info@acme.nl", [f"jan{sent}@example.nl"], mails.plain("info@acme.nl", "jan@example.nl"))
            sent += 1
    return sent


def test_mail_and_connections_do_not_notice_reloads(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", rules(server.port)) as relay,
        ):
            enough = asyncio.Event()
            loop = asyncio.get_running_loop()
            clients = [loop.run_in_executor(None, send_on_one_connection, relay.port, 20, enough) for _ in range(2)]
            opened = socket.create_connection(("127.0.0.1", relay.port), timeout=30)
            with opened, opened.makefile("rb") as replies:
                opened.sendall(b"HELO callpro\r\nMAIL FROM:<info@acme.nl>\r\nRCPT TO:<half@example.nl>\r\nDATA\r\n")
                assert [(await loop.run_in_executor(None, replies.readline))[:3] for _ in range(5)] == [
                    b"220", b"250", b"250", b"250", b"354",
                ]  # fmt: skip
                opened.sendall(b"Subject: begun under the old rules\r\n\r\nhalf of it\r\n")
                for number in range(4):
                    relay.write_routes(rules(server.port, pace=100 + number))
                    done = await relay.reload()
                    assert (done["event"], done["changed"]) == ("reloaded", 1)
                    relay.write_routes(rules(server.port, "  - {from: x.nl, via: nobody}\n"))
                    assert (await relay.reload())["event"] == "reload_refused"
                opened.sendall(b"the other half\r\n.\r\n")
                assert (await loop.run_in_executor(None, replies.readline))[:3] == b"250"
            enough.set()
            sent = sum(await asyncio.gather(*clients)) + 1
            while sum(event["event"] == "delivered" for event in relay.events) < sent:
                await relay.event("delivered", after=len(relay.events))
            assert len(server.received) == sent, "each once"
            assert server.connections <= 5, "the upstream's connections are kept over reloads"
            changed = [event for event in relay.events if event["event"] == "rules_change"]
            assert {event["route"] for event in changed} == {"globex.nl"}

    asyncio.run(journey())


def test_what_would_change_is_told_before_and_what_is_refused_after(
    authority: Authority, tmp_path: Path, url: str | None
) -> None:
    async def journey() -> None:
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(str(tmp_path / "notify"))
        notices.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        async with FakeSmtp(starttls=authority.server_context()) as server:
            relay = RelayProcess(tmp_path / "r", rules(server.port), url=url, environment=environment)
            assert (await relay.command("check", "--diff"))[0] in (1, 2)
            async with relay:
                assert await told(relay) == (0, {"good": True, "refused": None, "changes": [], "problems": []})
                relay.write_routes(rules(server.port, "  - {from: nieuw.nl, via: up}\n", pace=30))
                code, found = await told(relay)
                assert (code, found["good"]) == (0, True)
                assert found["changes"] == [
                    {"route": "globex.nl", "how": "changed", "what": ["pace.per_minute: 1000 -> 30"]},
                    {"route": "nieuw.nl", "how": "added", "what": ["via: up"]},
                ]
                _, text = await relay.command("check", "--diff")
                assert text.endswith("2 customers change\n")
                assert not [event for event in relay.events if event["event"] in ("reloaded", "rules_change")]
                assert (await relay.reload())["changed"] == 2
                assert await told(relay) == (0, {"good": True, "refused": None, "changes": [], "problems": []})

                relay.write_routes(rules(server.port, "  - {from: x.nl, via: nobody}\n"))
                code, found = await told(relay)
                assert (code, found["changes"]) == (1, [])
                assert "there is no upstream 'nobody'" in str(found["refused"])
                refused = await relay.reload()
                assert "routes.yaml:7" in str(refused["why"])
                await relay.command("check", "--diff")
                said = []
                while True:
                    try:
                        said.append(notices.recv(65536).decode())
                    except BlockingIOError:
                        break
                assert "RELOADING=1" in "\n".join(said)
                assert "refused, older rules count: " in said[-1]
                assert "there is no upstream 'nobody'" in said[-1]
                assert said[-1].startswith("READY=1")
        notices.close()

    asyncio.run(journey())


def test_files_that_changed_are_loaded_where_ops_want_it(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", rules(server.port), extra="watch: 1s\n") as relay,
        ):
            relay.write_routes(rules(server.port, "  - {from: nieuw.nl, via: up}\n"))
            await relay.event("reloaded")
            seen = len(relay.events)
            relay.write_routes(rules(server.port, "  - {from: x.nl, via: nobody}\n"))
            await relay.event("reload_refused", after=seen)
            relay.write_routes(rules(server.port))
            await relay.event("reloaded", after=seen)
            assert sum(event["event"] == "reload_refused" for event in relay.events) == 1

    asyncio.run(journey())


def test_a_file_whose_name_is_no_text_is_named_all_the_same(tmp_path: Path) -> None:
    """As one is that came from an old Windows share. systemd is told of it too, and the relay lives."""
    routes = f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"

    async def journey() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(tmp_path / "notify"))
            notices.setblocking(False)
            environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
            async with RelayProcess(tmp_path / "r", routes, environment=environment) as relay:
                (relay.folder / "routes.d").mkdir()
                named = os.fsencode(relay.folder / "routes.d") + b"/caf\xe9\n.yaml"
                with open(named, "wb") as file:
                    file.write(b"routes:\n  - {from: x.nl, via: nobody}\n")
                assert "caf\\udce9\\n.yaml:2" in str((await relay.reload())["why"])
                while b"refused" not in (said := await asyncio.get_running_loop().sock_recv(notices, 65536)):
                    pass
                assert b"caf\\udce9\\n.yaml:2" in said
                assert "caf\\udce9\\n.yaml:2" in (await relay.command("check"))[1]
                os.unlink(named)
                assert (await relay.reload())["event"] == "reloaded"

    asyncio.run(journey())


def test_a_reload_in_the_middle_of_the_start_comes_after_it(tmp_path: Path) -> None:
    """SIGHUP would end a process that does not listen to it yet, and systemd takes that for a stop in good order."""
    up = "{type: smtp, host: 127.0.0.1, port: 9, tls: none, username: a, password: plain}"
    routes = f"upstreams: {{up: {up}}}\nroutes:\n  - {{from: acme.nl, via: up}}\n"

    async def journey() -> None:
        def hang_up(event: Event) -> None:
            if event["event"] == "config":  # the warning of the password comes before anything is opened
                relay.signal(signal.SIGHUP)

        relay = RelayProcess(tmp_path / "r", routes, watch=hang_up)
        async with relay:
            await relay.event("reloaded")

    asyncio.run(journey())
