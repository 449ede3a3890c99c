"""Three real relays on one database keep one limit together, also while one of them is killed."""

from __future__ import annotations

import asyncio
import signal
import smtplib
from pathlib import Path

import psycopg
import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import STALL, FakeSmtp
from tests.waiting import until

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


def hand_over(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("info@acme.nl", ["jan@example.nl"], f"Subject: {number}\r\n\r\nDag\r\n")


async def started(folder: Path, rules: str, database: str) -> list[RelayProcess]:
    """Three relays with the same rules on one database; the first makes its tables."""
    relays = [RelayProcess(folder / str(n), rules, url=database, spool_options=", lease: 5s") for n in range(3)]
    await relays[0].start()
    await asyncio.gather(*(relay.start() for relay in relays[1:]))
    return relays


def test_three_relays_keep_one_limit(tmp_path, database):
    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none,"
                " pace: {per_minute: 9}}\nroutes:\n  - {from: acme.nl, via: up}\n"
            )
            relays = await started(tmp_path, rules, database)
            await asyncio.gather(*(asyncio.to_thread(hand_over, relay.port, 8) for relay in relays))
            while len(upstream.received) < 9:
                await asyncio.sleep(0.05)
            await relays[0].stop(signal.SIGKILL)
            await until(lambda: any(e["event"] == "spool.node_dead" for relay in relays[1:] for e in relay.events))
            await asyncio.sleep(1)  # the others have its mail by now
            assert len(upstream.received) == 9
            for relay in relays[1:]:
                assert await relay.stop() == 0

    asyncio.run(test())


def test_three_relays_keep_one_limit_on_sends_at_one_time_and_the_last_has_all_of_it(tmp_path, database):
    """Every send hangs, so each that begins stays under way: killed relays leave their part to the one that lives."""

    def held() -> list[tuple[int]]:
        with psycopg.connect(database, options="-c search_path=callpro_relay") as connection:
            return connection.execute("SELECT held FROM slots WHERE name = 'route acme.nl'").fetchall()

    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none, connections: 9}}\n"
                "routes:\n  - {from: acme.nl, via: up, pace: {concurrency: 3}}\n"
            )
            relays = await started(tmp_path, rules, database)
            for relay in relays:  # a way carries more than one mail at a time once it has shown that it works
                while not any(event["event"] == "delivered" for event in relay.events):
                    await asyncio.to_thread(hand_over, relay.port, 1)
                    await asyncio.sleep(0.1)
            upstream.script({".": STALL})
            await asyncio.gather(*(asyncio.to_thread(hand_over, relay.port, 4) for relay in relays))
            await until(lambda: upstream.stalled >= 3)
            await asyncio.sleep(2)
            assert upstream.stalled == 3
            assert sum(count for (count,) in held()) == 3
            for relay in relays[:2]:
                await relay.stop(signal.SIGKILL)
            await until(lambda: (3,) in held(), every=0.1)
            assert len(held()) == 1
            await asyncio.sleep(1)
            assert upstream.stalled <= 6, "three more at the most: those whose relay is gone"
            await relays[2].stop(signal.SIGKILL)  # nothing that is under way can end

    asyncio.run(test())
