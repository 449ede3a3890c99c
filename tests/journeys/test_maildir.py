"""A journey into a folder: the embedded default, for trying things out."""

from __future__ import annotations

import asyncio
import mailbox
from pathlib import Path

from tests.fakes.relay_process import RelayProcess
from tests.journeys import clients, mails


def test_a_mail_lands_in_a_maildir_that_other_programs_read(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n"
            "  - {from: acme.nl, via: try, sender: {address: acme@callcenter.nl, name: Acmé}}\n"
        )
        async with RelayProcess(tmp_path / "relay", routes) as relay:
            content = mails.rich("info@acme.nl", "jan@example.nl")
            said = await clients.msmtp(relay.port, "info@acme.nl", ["jan@example.nl"], content)
            assert said.code == 0, said.text
            await relay.event("delivered")
            (message,) = mailbox.Maildir(tmp_path / "mail", create=False)
            found = message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            assert mails.header(found, "From") == "Acmé <acme@callcenter.nl>"
            assert "info@acme.nl" in mails.header(found, "Reply-To")
            assert mails.parts(found) == mails.parts(content)
            code, text = await relay.command("queue", "list", "--settled", "--json")
            assert code == 0
            assert "delivered" in text

    asyncio.run(journey())


def test_send_follows_a_mail_to_its_outcome(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        async with RelayProcess(tmp_path / "relay", routes) as relay:
            code, text = await relay.command("send", "--from", "info@acme.nl", "--to", "jan@example.nl")
            assert (code, "delivered" in text) == (0, True), text
            code, text = await relay.command("send", "--from", "info@other.nl", "--to", "jan@example.nl")
            assert (code, "550 5.7.1" in text) == (1, True), text

    asyncio.run(journey())
