"""A second listener of the real process, for a scanner in the office: TLS, a login, limits."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.journeys import clients, mails

SCANNER = """\
import smtplib, ssl, sys
with smtplib.SMTP("localhost", int(sys.argv[1]), timeout=60) as client:
    client.starttls(context=ssl.create_default_context())
    client.login("scanner", sys.argv[2])
    for _ in range(3):
        client.sendmail("info@acme.nl", ["jan@example.nl"], sys.stdin.buffer.read() or b"Subject: leeg\\r\\n\\r\\n")
"""


def test_the_port_for_mail_serves_no_page_and_takes_no_events(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        extra = "status: {address: '127.0.0.1:0'}\nwebhooks: {address: '127.0.0.1:0'}\n"
        async with RelayProcess(tmp_path / "relay", routes, extra=extra) as relay:
            for path in (b"/", b"/healthz", b"/metrics", b"/webhooks/try"):
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\nQUIT\r\n" % path)
                heard = await asyncio.wait_for(reader.read(), 60)
                writer.close()
                assert [line[:3] for line in heard.splitlines()] == [b"220", b"502"]
                assert b"HTTP" not in heard

    asyncio.run(journey())


def test_a_scanner_logs_in_over_tls(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.server_files(tmp_path)

    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        guarded = (
            f"{{address: '127.0.0.1:0', tls: {{certificate: {chain}, key: 'file:{key}', required: true}},"
            " users: [{name: scanner, password: 'env:SCANNER'}], per_peer: {mails_per_minute: 4}}"
        )
        environment = {"SCANNER": "s3cret-word"}
        async with RelayProcess(tmp_path / "relay", routes, listen=guarded, environment=environment) as relay:
            content = mails.rich("info@acme.nl", "jan@example.nl")
            own = await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)
            assert own.code == 0, own.text
            refused = await clients.smtplib(relay.ports[1], "info@acme.nl", ["jan@example.nl"], content)
            assert "530" in refused.text
            wrong = await clients.run(sys.executable, "-c", SCANNER, str(relay.ports[1]), "guess")
            assert "535" in wrong.text
            assert (await relay.event("login_refused"))["user"] == "scanner"
            right = await clients.run(
                sys.executable, "-c", SCANNER, str(relay.ports[1]), "s3cret-word", content=content
            )
            assert right.code == 0, right.text
            again = await clients.run(sys.executable, "-c", SCANNER, str(relay.ports[1]), "s3cret-word")
            assert "450" in again.text
            while sum(event["event"] == "delivered" for event in relay.events) < 5:
                await relay.event("delivered", after=len(relay.events))
            code, shown = await relay.command("check")
            assert code == 0, shown
            assert "s3cret-word" not in relay.log() + shown
            assert "guess" not in relay.log()

    asyncio.run(journey())
