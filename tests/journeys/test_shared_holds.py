"""Real relays on one database and a server that counts logins: what one finds out, none of the others tries again."""

from __future__ import annotations

import asyncio
import json
import signal
import smtplib
from pathlib import Path

import psycopg
import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.waiting import until

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


def hand_over(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("info@acme.nl", ["jan@example.nl"], f"Subject: {number}\r\n\r\nDag\r\n")


def rules(port: int) -> str:
    return (
        f"upstreams:\n  up: {{type: smtp, host: localhost, port: {port}, tls: none,"
        " username: callpro, password: env:UP}\nroutes:\n  - {from: acme.nl, via: up}\n"
    )


def told(relays: list[RelayProcess], name: str) -> list[dict[str, object]]:
    return [event for relay in relays for event in relay.events if event["event"] == name]


def rows(database: str) -> int:
    with psycopg.connect(database, autocommit=True) as connection:
        found = connection.execute("SELECT count(*) FROM callpro_relay.closed_way").fetchone()
    return int(found[0])  # type: ignore[index]


def made(folder: Path, port: int, database: str, count: int, lease: int = 30) -> list[RelayProcess]:
    """Relays that log in at `port` with a wrong password; `lease` in seconds. None is started."""
    return [
        RelayProcess(
            folder / str(n),
            rules(port),
            url=database,
            spool_options=f", lease: {lease}s",
            environment={"UP": "wrong"},
        )
        for n in range(count)
    ]


def test_one_failed_login_for_three_relays_and_an_order_from_a_fourth_process(tmp_path, database):
    async def test() -> None:
        async with FakeSmtp(users={"callpro": "right"}) as upstream:
            all_four = made(tmp_path, upstream.port, database, 4)
            relays, machine = all_four[:3], all_four[3]
            await relays[0].start()
            await asyncio.gather(*(relay.start() for relay in relays[1:]))
            await asyncio.gather(*(asyncio.to_thread(hand_over, relay.port, 5) for relay in relays))
            await until(lambda: len(told(relays, "held")) + len(told(relays, "held_by_another")) == 3)
            await asyncio.sleep(2)
            assert upstream.logins == [("callpro", False)], "one, whatever the number of relays and of mails"
            (held,) = told(relays, "held")
            assert held["level"] == "error"
            machine._write_config()  # a machine with the config, on which no relay runs
            code, said = await machine.command("queue", "holds")
            assert code == 0
            assert "route acme.nl by up  on hold" in said
            found = json.loads((await relays[0].command("queue", "holds", "--json"))[1])
            assert [(way["route"], way["upstream"]) for way in found["ways"]] == [("acme.nl", "up")]
            upstream.users["callpro"] = "wrong"  # the customer sets the password that we have
            code, said = await machine.command("queue", "release", "--route", "acme.nl")
            assert (code, "route acme.nl by up is released" in said) == (0, True), said
            await until(lambda: len(upstream.received) == 15)
            assert [right for _, right in upstream.logins].count(False) == 1
            assert len(told(relays, "released")) == 3
            assert (await machine.command("queue", "holds"))[1] == "Nothing is on hold.\n"
            for relay in relays:
                assert await relay.stop() == 0

    asyncio.run(test())


def test_the_prober_is_killed_and_another_takes_over(tmp_path, database):
    """The time of the next probe is set forward in the database, as if it had come."""

    async def test() -> None:
        async with FakeSmtp(users={"callpro": "right"}) as upstream:
            relays = made(tmp_path, upstream.port, database, 2, lease=5)
            await relays[0].start()
            await relays[1].start()
            await asyncio.gather(*(asyncio.to_thread(hand_over, relay.port, 2) for relay in relays))
            await until(lambda: len(told(relays, "held")) == len(told(relays, "held_by_another")) == 1)
            prober = next(relay for relay in relays if told([relay], "held"))
            other = next(relay for relay in relays if relay is not prober)
            upstream.users["callpro"] = "wrong"
            await prober.stop(signal.SIGKILL)
            with psycopg.connect(database, autocommit=True, options="-c search_path=callpro_relay") as connection:
                connection.execute("UPDATE closed_way SET next_probe = extract(epoch FROM now()) + 4")
            await other.event("probes_taken_over")
            await until(lambda: len(upstream.received) == 4)
            assert [right for _, right in upstream.logins].count(False) == 1
            assert await other.stop() == 0

    asyncio.run(test())


def test_a_way_without_a_login_is_released_and_told_once(tmp_path, database):
    """What one relay found out for itself alone stands in its own holds and in the database."""

    async def test() -> None:
        async with FakeSmtp() as upstream:
            given = (
                f"upstreams:\n  up: {{type: smtp, host: localhost, port: {upstream.port}, tls: starttls}}\n"
                "routes:\n  - {from: acme.nl, via: up}\n"
            )
            async with RelayProcess(tmp_path / "r", given, url=database) as relay:
                await asyncio.to_thread(hand_over, relay.port, 1)
                await relay.event("held")
                await until(lambda: rows(database) == 1)
                code, said = await relay.command("queue", "release", "--route", "acme.nl")
                assert (code, said.count("is released")) == (0, 1), said
                assert (await relay.event("order_release"))["done"] == 1

    asyncio.run(test())
