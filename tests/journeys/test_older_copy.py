"""A spool that comes back from a backup: what the page about another machine tells people to do with it."""

from __future__ import annotations

import asyncio
import shutil

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys.test_queue_orders import send
from tests.waiting import until


def test_an_older_copy_sends_nothing_before_people_have_said_what_has_left(tmp_path):
    async def journey() -> None:
        async with FakeSmtp(replies={"MAIL": "451 4.3.0 later"}) as server:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
                "routes: {from: acme.nl, via: up}\n"
            )
            async with RelayProcess(tmp_path / "r", rules) as relay:
                gone, left = await send(relay, to="piet@example.nl"), await send(relay, to="jan@example.nl")
                await relay.stop()
                kept = shutil.copy(relay.spool, tmp_path / "monday.db")
                server.script({"MAIL": []})
                await relay.start()
                await relay.command("queue", "retry", gone, left)
                await until(lambda: len(server.received) == 2)

            again = RelayProcess(tmp_path / "new", rules, spool=kept)
            again._write_config()
            _, waiting = await again.command("queue", "list")
            assert 0 < waiting.index(gone) < waiting.index(left)
            code, text = await again.command("queue", "hold", "--route", "acme.nl", "--reason", "restored")
            assert code == 0, text
            async with again:
                await again.command("queue", "retry", gone, left)
                code, text = await again.command("queue", "drop", gone, "--yes", "--reason", "had left already")
                assert (code, text) == (0, "1 mail is dropped.\n")
                assert len(server.received) == 2
                code, text = await again.command("queue", "release", "--route", "acme.nl")
                assert code == 0, text
                await until(lambda: len(server.received) == 3)
                assert server.received[2].recipients == ("jan@example.nl",)
                await again.event("delivered", seconds=60)

    asyncio.run(journey())
