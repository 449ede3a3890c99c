"""Three real relays on one database keep one limit together, also while one of them is killed."""

from __future__ import annotations

import asyncio
import signal
import smtplib

import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


def hand_over(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(count):
            client.sendmail("info@acme.nl", ["jan@example.nl"], f"Subject: {number}\r\n\r\nDag\r\n")


def test_three_relays_keep_one_limit(tmp_path, database):
    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none,"
                " pace: {per_minute: 9}}\nroutes:\n  - {from: acme.nl, via: up}\n"
            )
            relays = [
                RelayProcess(tmp_path / str(n), rules, url=database, spool_options=", lease: 2s") for n in range(3)
            ]
            await relays[0].start()
            await asyncio.gather(*(relay.start() for relay in relays[1:]))
            await asyncio.gather(*(asyncio.to_thread(hand_over, relay.port, 8) for relay in relays))
            while len(upstream.received) < 9:
                await asyncio.sleep(0.05)
            await relays[0].stop(signal.SIGKILL)
            await asyncio.sleep(5)  # for longer than its lease: the others have its mail by now
            assert len(upstream.received) == 9
            for relay in relays[1:]:
                assert await relay.stop() == 0

    asyncio.run(test())
