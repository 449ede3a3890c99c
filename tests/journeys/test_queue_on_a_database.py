"""The queue commands on a spool that two real relays share: given from one machine, heard by both."""

from __future__ import annotations

import asyncio
import json
import smtplib

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.waiting import until


def hand_over(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("info@acme.nl", ["jan@example.nl"], f"Subject: {number}\r\n\r\nDag\r\n")


def test_root_needs_no_more_than_the_units_secrets(tmp_path, database, postgres_server):
    """The password lies where systemd takes it from: commands of root find it there, those of others say what to do."""
    folder = tmp_path / "etc"
    (folder / "secrets").mkdir(parents=True, mode=0o700)
    (folder / "secrets" / "spool-db").write_text("geheim\n")
    (folder / "secrets" / "spool-db").chmod(0o600)

    async def test() -> None:
        rules = (
            f"upstreams: {{box: {{type: maildir, path: {tmp_path}/box}}}}\nroutes:\n  - {{from: acme.nl, via: box}}\n"
        )
        given = {"CREDENTIALS_DIRECTORY": str(folder / "secrets")}
        unit = RelayProcess(
            folder, rules, url=database, spool_options=", password: 'systemd:spool-db'", environment=given
        )
        outside = RelayProcess(folder, rules, url=database, spool_options=", password: 'systemd:spool-db'")
        async with unit:
            for words in (
                ("queue", "list"),
                ("queue", "holds"),
                ("nodes",),
                ("check",),
                ("check", "--diff"),
                ("expiry",),
            ):
                code, said = await outside.command(*words)
                assert (code, "cannot be read" in said) == (0, False), said
        (folder / "secrets").rename(folder / "elsewhere")
        code, said = await outside.command("queue", "list")
        assert (code, "run it as root (sudo)" in said) == (1, True), said

    asyncio.run(test())


def test_orders_count_for_every_relay(tmp_path, database):
    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none}}\n"
                "routes:\n  - {from: acme.nl, via: up}\n"
            )
            one, other = (RelayProcess(tmp_path / name, rules, url=database) for name in ("one", "other"))
            await one.start()
            await other.start()
            code, said = await one.command("queue", "hold", "--route", "acme.nl", "--reason", "they asked")
            assert code == 0, said
            for relay in (one, other):
                await asyncio.to_thread(hand_over, relay.port, 3)
            code, said = await other.command("queue", "list", "--json")
            assert said.count('"id"') == 6, said
            assert "they asked" in (await other.command("queue", "holds"))[1]
            mail = json.loads(said.splitlines()[0]) if said.startswith("{") else json.loads(said)[0]
            code, said = await one.command("queue", "drop", mail["id"], "--yes")
            assert (code, "1 mail is dropped" in said) == (0, True), said
            await asyncio.sleep(0.5)
            assert upstream.received == []
            code, said = await other.command("queue", "release", "--route", "acme.nl")
            assert code == 0, said
            await until(lambda: len(upstream.received) >= 5)
            code, said = await one.command("nodes", "--json")
            found = json.loads(said)
            assert (code, len(found["nodes"]), found["warnings"]) == (0, 2, [])
            other.write_routes(rules.replace("acme.nl, via", "globex.nl, via"))
            await other.reload()
            async with asyncio.timeout(60):
                while "The rules of the relays differ" not in (await one.command("nodes"))[1]:
                    await asyncio.sleep(0.2)
            for relay in (one, other):
                assert await relay.stop() == 0
            assert "One relay has this spool" in (await one.command("nodes"))[1]

    asyncio.run(test())
