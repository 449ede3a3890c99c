"""Many customers on one mail server that is down: asked once a round for all of them, and found again."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

CUSTOMERS = 50


def rules_for(port: int) -> str:
    """An entry with a login of its own for each customer, all on one host and port."""
    entries, routes = [], []
    for number in range(CUSTOMERS):
        login = f"username: c{number}, password: geheim"
        entries.append(f"  u{number}: {{type: smtp, host: localhost, port: {port}, {login}}}\n")
        routes.append(f"  - {{from: c{number}.nl, via: u{number}}}\n")
    return f"upstreams:\n{''.join(entries)}routes:\n{''.join(routes)}"


def test_fifty_customers_on_a_refused_port(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        with socket.socket() as kept:  # bound and not listening: every connect is refused
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(("127.0.0.1", 0))
            port = kept.getsockname()[1]
            extra = "delivery: {retry: [1s]}\n"
            async with RelayProcess(tmp_path / "r", rules_for(port), extra=extra) as relay:
                for number in range(CUSTOMERS):
                    sender, to = f"info@c{number}.nl", f"jan{number}@example.nl"
                    said = await clients.smtplib(relay.port, sender, [to], mails.plain(sender, to))
                    assert said.code == 0, said.text
                seen = len(relay.events)
                for _ in range(3):
                    await relay.event("probed", after=seen)
                    seen = 1 + max(n for n, event in enumerate(relay.events) if event["event"] == "probed")
                down = [event for event in relay.events if event["event"] == "unreachable"]
                assert [event["upstreams"] for event in down] == [CUSTOMERS]
                times = [float(str(event["time"])) for event in relay.events if event["event"] == "probed"]
                assert all(later - earlier > 0.9 for earlier, later in pairwise(times)), times
                kept.close()
                users = {f"c{number}": "geheim" for number in range(1, CUSTOMERS)}
                async with FakeSmtp(starttls=authority.server_context(), users=users, port=port) as server:
                    await relay.event("held", route="c0.nl")
                    for number in range(1, CUSTOMERS):
                        await relay.event("delivered", route=f"c{number}.nl")
                    assert len(server.received) == CUSTOMERS - 1

    asyncio.run(journey())
