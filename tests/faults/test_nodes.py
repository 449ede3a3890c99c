"""Three real relays on one PostgreSQL: one is killed, the database restarts, crashes, fails over or is out of reach.

Nothing that got its 250 is lost, and what arrives twice was under way when it happened.
"""

from __future__ import annotations

import asyncio
import signal
import smtplib
import socket

import psycopg
import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.fakes.tcp_proxy import TcpProxy
from tests.faults.node_rounds import LEASE, Nodes, node_rounds
from tests.waiting import until

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason="needs Debian's postgresql: scripts/peers")


@pytest.fixture
def server():
    made = postgres.Server({"wal_keep_size": "64MB"}).start()
    yield made
    made.remove()


def judge(nodes: Nodes) -> None:
    assert len(nodes.tally.promised) > 20
    assert not nodes.tally.lost, nodes.tally
    assert not nodes.tally.invented
    assert nodes.tally.duplicates <= nodes.under_way + nodes.lost_leases, (nodes.tally, nodes.under_way)
    assert nodes.tally.exit_codes == {0}


def test_a_node_is_killed_and_the_others_send_what_it_had(tmp_path, server):
    async def kill(nodes: Nodes) -> None:
        await nodes.relays[1].stop(signal.SIGKILL)
        nodes.note_under_way()
        await nodes.heard_by_one("spool.node_dead", 0, 2)

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, kill, server.url()))
    judge(nodes)
    dead = [e["node"] for r in nodes.relays for e in r.events if e["event"] == "spool.node_dead"]
    assert dead.count(f"{socket.gethostname()}:{nodes.relays[1].pid}") == 1, "one of the others says so"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_the_database_stops_and_comes_back(tmp_path, server, number):
    async def restart(nodes: Nodes) -> None:
        nodes.note_under_way()
        await asyncio.to_thread(server.stop, number)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        for relay in nodes.relays:
            await relay.event("spool.recovered")

    nodes = asyncio.run(node_rounds(tmp_path, [server.url()] * 3, restart, server.url()))
    judge(nodes)


def test_the_database_fails_over_to_its_replica(tmp_path, server):
    replica = postgres.Server(copy_of=server)
    try:
        replica.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
            connection.execute("SELECT pg_reload_conf()")
        both = f"postgresql://postgres@127.0.0.1:{server.port},127.0.0.1:{replica.port}/postgres"

        async def fail_over(nodes: Nodes) -> None:
            nodes.note_under_way()
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            nodes.direct = replica.url()
            await asyncio.to_thread(replica.promote)
            for relay in nodes.relays:
                await relay.event("spool.recovered")

        nodes = asyncio.run(node_rounds(tmp_path, [both] * 3, fail_over, server.url()))
        judge(nodes)
    finally:
        replica.remove()


def test_one_node_is_cut_off_from_the_database(tmp_path, server):
    """Nothing it sends arrives, and nothing is answered: for longer than its lease."""

    async def test() -> Nodes:
        async with TcpProxy(server.port) as proxy:

            async def cut(nodes: Nodes) -> None:
                nodes.note_under_way()
                proxy.freeze()
                await nodes.heard_by_one("spool.node_dead", 0, 1)
                await asyncio.sleep(LEASE)
                nodes.note_under_way()
                proxy.thaw()
                await nodes.relays[2].event("spool.declared_dead", seconds=60)

            urls = [server.url(), server.url(), server.url(port=proxy.port)]
            return await node_rounds(tmp_path, urls, cut, server.url())

    nodes = asyncio.run(test())
    judge(nodes)


def hand_over(port: int) -> tuple[int, bytes]:
    """The last reply to one mail, from a client of its own."""
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as sender:
        sender.ehlo("callpro")
        for command in ("MAIL FROM:<info@acme.nl>", "RCPT TO:<jan@example.nl>"):
            reply = sender.docmd(command)
            if reply[0] != 250:
                return reply
        try:
            return sender.data(b"Subject: one\r\n\r\nDag\r\n")
        except smtplib.SMTPDataError as error:
            return error.smtp_code, error.smtp_error


def test_a_client_hears_451_while_the_database_is_away_and_250_after(tmp_path, server):
    """By the same process: nobody has to start the relay again."""

    async def test() -> None:
        async with FakeSmtp() as upstream:
            rules = (
                f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {upstream.port}, tls: none}}\n"
                "routes:\n  - {from: acme.nl, via: up}\n"
            )
            async with RelayProcess(
                tmp_path / "r", rules, url=server.url(), spool_options=f", lease: {LEASE}s"
            ) as relay:
                assert (await asyncio.to_thread(hand_over, relay.port))[0] == 250
                await asyncio.to_thread(server.stop)
                for _ in range(2):
                    code, said = await asyncio.to_thread(hand_over, relay.port)
                    assert (code, said) == (451, b"4.3.0 Mail cannot be stored just now; try again later")
                await relay.event("spool.trouble")
                await asyncio.to_thread(server.start)
                await relay.event("spool.recovered")
                assert (await asyncio.to_thread(hand_over, relay.port))[0] == 250
                await until(lambda: len(upstream.received) >= 2)
                assert len(upstream.received) == 2, "what heard 451 is the client's to send again"
                assert await relay.stop() == 0

    asyncio.run(test())
