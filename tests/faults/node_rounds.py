"""Several real relays on one PostgreSQL, clients at all of them, and a strike: what became of every mail.

Counts; the caller judges. Whatever got its 250 must arrive; twice only what was under way when it struck, or what a
node said it sent after it had lost its lease.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.faults.kill_rounds import NAME, Tally, client
from tests.waiting import until

LEASE = 3


@dataclass(slots=True)
class Nodes:
    """`urls` are where each relay finds the database, `direct` where the test does."""

    relays: list[RelayProcess]
    upstream: FakeSmtp
    direct: str
    tally: Tally = field(default_factory=Tally)
    under_way: int = 0

    def count(self) -> None:
        taken, self.upstream.received[:] = list(self.upstream.received), []
        for mail in taken:
            found = NAME.search(mail.content)
            assert found
            self.tally.arrived.update((found[1].decode(), address) for address in mail.recipients)

    def note_under_way(self) -> None:
        """Recipients whose mail somebody has just now."""
        query = (
            "SELECT count(*) FROM callpro_relay.waiting JOIN callpro_relay.recipient ON mail = id "
            "WHERE node IS NOT NULL AND state = 'waiting'"
        )
        with psycopg.connect(self.direct) as connection:
            row = connection.execute(query).fetchone()
            assert row
            self.under_way += row[0]

    @property
    def lost_leases(self) -> int:
        return sum(event["event"] == "spool.lease_lost" for relay in self.relays for event in relay.events)

    async def heard_by_one(self, event: str, *which: int) -> None:
        """Wait until one of these relays has logged it."""
        await until(
            lambda: any(one["event"] == event for number in which for one in self.relays[number].events), every=0.05
        )

    def events(self) -> Counter[str]:
        return Counter(str(event["event"]) for relay in self.relays for event in relay.events)


@dataclass(frozen=True)
class Place:
    """Where a relay runs: see `RelayProcess`."""

    host: str = "127.0.0.1"
    within: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


Strike = Callable[[Nodes], Awaitable[None]]


async def node_rounds(
    folder: Path,
    urls: list[str],
    strike: Strike,
    direct: str,
    *,
    buffer: bool = False,
    upstream_host: str = "127.0.0.1",
    places: Mapping[int, Place] | None = None,
) -> Nodes:
    """Load, the strike in the middle of it, load, and until the queue is empty. With `buffer` each relay has one.

    `places` are the relays that run somewhere else than here, by number.
    """
    over = asyncio.Event()
    async with FakeSmtp(host=upstream_host) as upstream:
        rules = (
            f"upstreams:\n  up: {{type: smtp, host: {upstream_host}, port: {upstream.port}, tls: none}}\n"
            "routes:\n  - {from: acme.nl, via: up}\n  - {from: globex.nl, via: up}\n"
        )
        relays = [
            RelayProcess(
                folder / f"node{number}", rules, url=url,
                spool_options=f", lease: {LEASE}s"
                + (f", buffer: 'sqlite:///{folder}/node{number}/buffer.db'" if buffer else ""),
                extra="delivery: {retry: [1s]}\n", **vars((places or {}).get(number, Place())),
            )
            for number, url in enumerate(urls)
        ]  # fmt: skip
        nodes = Nodes(relays, upstream, direct)
        try:
            await relays[0].start()
            await asyncio.gather(*(relay.start() for relay in relays[1:]))
            clients = [
                asyncio.create_task(client(relay.port, f"n{number}c{one}", over, nodes.tally, relay.host))
                for number, relay in enumerate(relays)
                for one in range(3)
            ]
            await until(lambda: len(nodes.tally.promised) > 20, "load")
            await asyncio.sleep(random.uniform(0.0, 0.5))
            await strike(nodes)
            await asyncio.sleep(1.0)
            over.set()
            await asyncio.gather(*clients)
            for _ in range(600):
                nodes.count()
                if not nodes.tally.lost:
                    break
                await asyncio.sleep(0.1)
            for relay in relays:
                if relay.running:
                    nodes.tally.exit_codes.add(await relay.stop())
            nodes.count()
        finally:
            over.set()
            for relay in relays:
                if relay.running:
                    await relay.stop(9)
    return nodes
