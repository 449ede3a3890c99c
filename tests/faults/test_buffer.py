"""Real relays with a buffer, under load, while their database goes away and they are killed.

Nothing that got its 250 is lost, nobody hears 451, and what arrives twice was under way when it happened.
"""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.faults.node_rounds import LEASE, Nodes, node_rounds
from tests.faults.test_nodes import hand_over, judge
from tests.waiting import until

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


@pytest.fixture
def server():
    made = postgres.Server().start()
    yield made
    made.remove()


async def stop_database(nodes: Nodes, server: postgres.Server) -> None:
    nodes.note_under_way()
    await asyncio.to_thread(server.stop)
    for relay in nodes.relays:
        await relay.event("spool.buffering")


async def take_mail(nodes: Nodes, seconds: float = 0.7) -> None:
    """Clients go on: they get 250s, and get them from the buffer."""
    before = len(nodes.tally.promised)
    await asyncio.sleep(seconds)
    await until(lambda: len(nodes.tally.promised) > before, "mail that is taken")


async def all_drained(nodes: Nodes, seen: list[int]) -> None:
    for relay, after in zip(nodes.relays, seen, strict=True):
        await relay.event("spool.buffer_drained", after=after, seconds=60)


def so_far(nodes: Nodes) -> list[int]:
    return [len(relay.events) for relay in nodes.relays]


def test_the_database_is_away_and_clients_notice_nothing(tmp_path, server):
    async def strike(nodes: Nodes) -> None:
        await stop_database(nodes, server)
        await take_mail(nodes, 1.5)
        seen = so_far(nodes)
        await asyncio.to_thread(server.start)
        await all_drained(nodes, seen)

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, strike, server.url(), buffer=True))
    judge(nodes)
    assert nodes.events()["spool_unavailable"] == 0, "no client was told to come again"
    assert (
        sum(int(str(e["mails"])) for r in nodes.relays for e in r.events if e["event"] == "spool.buffer_drained") > 10
    )


def test_a_relay_is_killed_while_it_buffers_and_starts_without_the_database(tmp_path, server):
    async def strike(nodes: Nodes) -> None:
        await stop_database(nodes, server)
        await take_mail(nodes)
        await nodes.relays[1].stop(signal.SIGKILL)
        await nodes.relays[1].start()
        await take_mail(nodes)
        seen = so_far(nodes)
        await asyncio.to_thread(server.start)
        await all_drained(nodes, seen)

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, strike, server.url(), buffer=True))
    judge(nodes)


def test_a_relay_is_killed_again_and_again_while_it_drains(tmp_path, server):
    async def strike(nodes: Nodes) -> None:
        relay = nodes.relays[1]
        await stop_database(nodes, server)
        await take_mail(nodes, 2.0)
        seen = so_far(nodes)
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        await relay.event("spool.draining", after=seen[1], seconds=60)
        for _ in range(4):
            await asyncio.sleep(random.uniform(0.0, 0.1))
            await relay.stop(signal.SIGKILL)
            await starting
            nodes.note_under_way()
            await relay.start()
        await nodes.heard_by_one("spool.buffer_drained", 0, 2)

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, strike, server.url(), buffer=True))
    judge(nodes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_the_database_goes_again_while_they_drain(tmp_path, server, number):
    async def strike(nodes: Nodes) -> None:
        await stop_database(nodes, server)
        await take_mail(nodes, 1.5)
        seen = so_far(nodes)
        await asyncio.to_thread(server.start)
        await nodes.relays[0].event("spool.draining", after=seen[0])
        nodes.note_under_way()
        await asyncio.to_thread(server.stop, number)
        await asyncio.sleep(0.5)
        seen = so_far(nodes)
        await asyncio.to_thread(server.start)
        await all_drained(nodes, seen)

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, strike, server.url(), buffer=True))
    judge(nodes)


STATUS = "status: {address: '127.0.0.1:0'}\n"


def test_what_people_see_while_the_database_is_away(tmp_path, server):
    """The relay starts without it, is ready, says what it does, and `queue list` and `queue show` find the mail."""

    async def get(relay: RelayProcess, path: str) -> tuple[int, str]:
        import httpx

        where = (await relay.event("status_listening"))["address"]
        async with httpx.AsyncClient(timeout=60) as browser:
            answer = await browser.get(f"http://{where}{path}")
            return answer.status_code, answer.text

    async def test() -> None:
        await asyncio.to_thread(server.stop)
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none}}\n"
                "routes:\n  - {from: acme.nl, via: up}\n"
            )
            options = f", lease: {LEASE}s, buffer: 'sqlite:///{tmp_path}/r/buffer.db'"
            relay = RelayProcess(tmp_path / "r", rules, url=server.url(), spool_options=options, extra=STATUS)
            async with relay:
                code, said = await asyncio.to_thread(hand_over, relay.port)
                assert code == 250
                queue_id = said.decode().rpartition(" ")[2]
                assert (await get(relay, "/readyz"))[0] == 200
                assert "callpro_relay_buffer_mails 1.0" in (await get(relay, "/metrics"))[1]
                assert "callpro_relay_buffering 1.0" in (await get(relay, "/metrics"))[1]
                assert "New mail is kept on this machine (1)" in (await get(relay, "/"))[1]
                code, listed = await relay.command("queue", "list")
                assert code == 1
                assert "1 mail waits in the buffer of this machine" in listed
                code, story = await relay.command("queue", "show", queue_id)
                assert (code, "It waits in the buffer" in story) == (0, True)
                assert len([e for e in relay.events if e["event"] == "spool.buffering"]) == 1
                assert (await relay.reload())["event"] == "reloaded"
                await asyncio.to_thread(server.start)
                await relay.event("spool.buffer_drained", mails=1)
                await until(lambda: len(upstream.received) >= 1)

                async def calm() -> bool:  # one scrape is the answer to those that follow at once
                    return "callpro_relay_buffering 0.0" in (await get(relay, "/metrics"))[1]

                await until(calm)
                assert (await relay.command("queue", "show", queue_id))[0] == 0
                assert await relay.stop() == 0
            assert not [event for event in relay.events if event.get("level") == "critical"]

    asyncio.run(test())


def test_a_buffer_that_the_config_forgot_is_told(tmp_path, server):
    """Its mail got a 250 and nobody would send it."""

    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none}}\n"
                "routes:\n  - {from: acme.nl, via: up}\n"
            )
            state = {"STATE_DIRECTORY": str(tmp_path)}
            with_it = RelayProcess(
                tmp_path / "r", rules, url=server.url(), spool_options=", buffer: sqlite", environment=state
            )
            await asyncio.to_thread(server.stop)
            async with with_it:
                assert (await asyncio.to_thread(hand_over, with_it.port))[0] == 250
            await asyncio.to_thread(server.start)
            async with RelayProcess(tmp_path / "r", rules, url=server.url(), environment=state) as without:
                told = await without.event("spool.buffer_left")
                assert (told["mails"], told["file"]) == (1, str(tmp_path / "buffer.db"))

    asyncio.run(test())
