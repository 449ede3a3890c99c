"""The connections below HTTP: how many, which one, and what a stranger on the line can make of them."""

from __future__ import annotations

import asyncio
import socket

import httpcore
import pytest

from routing.outcome import Outcome, Word
from tests.fakes.http_server import HttpServer, Response
from tests.waiting import LONG, until
from upstreams.http_client import HttpClient
from upstreams.http_pool import IDLE_SECONDS, Pool
from upstreams.http_streams import Stream, connect_to_one
from upstreams.tls import Trust


async def accepted(_request):
    await asyncio.sleep(0.01)
    return Response(202)


def test_more_requests_than_connections_wait_for_one_another():
    async def run():
        async with HttpServer(accepted) as server:
            client = HttpClient(5, 3)
            replies = await asyncio.gather(*(client.exchange("POST", server.url + "/", {}, b"x") for _ in range(20)))
            await client.close()
            return {reply.status for reply in replies}, len(server.requests), server.connections

    assert asyncio.run(run()) == ({202}, 20, 3)


def test_an_idle_connection_elsewhere_gives_way():
    """A client has one limit over all hosts, as Graph and the login before it."""

    async def run():
        async with HttpServer(accepted) as one, HttpServer(accepted) as other:
            client = HttpClient(5, 2)
            for server in (one, one, other, one, other, other):
                both = (client.exchange("POST", server.url + "/", {}, b"x") for _ in range(2))
                assert {reply.status for reply in await asyncio.gather(*both)} == {202}
                await until(lambda: one.open_connections + other.open_connections <= 2)
            await client.close()
            return one.connections, other.connections

    assert asyncio.run(run()) == (4, 4)


def test_a_client_is_usable_again_after_it_was_closed():
    async def run():
        async with HttpServer(accepted) as server:
            client = HttpClient(5, 1)
            for _ in range(2):
                assert (await client.exchange("POST", server.url + "/", {}, b"x")).status == 202
                await client.close()
                await until(lambda: server.open_connections == 0)

    asyncio.run(run())


def test_what_was_not_used_for_long_is_closed_and_the_last_used_comes_first():
    async def run():
        async with HttpServer(accepted) as server:
            now = 0.0
            pool = Pool(3, 5.0, Trust(), clock=lambda: now)
            origin = httpcore.URL(server.url).origin

            async def use(count: int):
                taken = [await pool.take(origin, lambda _stage: None) for _ in range(count)]
                for connection in taken:
                    request = httpcore.Request(
                        "POST", server.url + "/", headers=[("Host", "x"), ("Content-Length", "0")]
                    )
                    response = await connection.http.handle_async_request(request)
                    await response.aread()
                    await response.aclose()
                for connection in taken:
                    await pool.give_back(connection)
                return taken

            first = await use(3)
            now = IDLE_SECONDS - 1
            assert await use(1) == first[2:]
            now = IDLE_SECONDS + 1
            assert await use(1) == first[2:]
            await until(lambda: server.open_connections == 1)
            await pool.close()
            await until(lambda: server.open_connections == 0)

    asyncio.run(run())


def test_an_address_that_does_not_answer_is_passed_over():
    """As a name has it whose IPv6 leads nowhere: the next is tried soon, long before time is over."""
    full, waiting = socket.create_server(("127.0.0.1", 0), backlog=0), []
    for _ in range(2):  # what is beyond the backlog gets no answer
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(full.getsockname())

    async def run():
        async with HttpServer(accepted) as server:
            places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in
                      (full.getsockname()[1], server.port)]  # fmt: skip
            async with asyncio.timeout(LONG):
                stream = await connect_to_one(places)
            reached = stream.get_extra_info("peername")[1]
            await stream.aclose()
            return reached == server.port

    try:
        assert asyncio.run(run())
    finally:
        for each in (*waiting, full):
            each.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_said_before_tls_is_never_taken_for_the_reply(at_once, authority):
    """Somebody on the line could say "accepted" in front of the server."""

    async def liar(reader, writer):
        if not at_once:
            await reader.read(1)
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        if at_once:
            await writer.start_tls(authority.server_context())
            await reader.read()
        writer.close()

    async def run():
        async with await asyncio.start_server(liar, "127.0.0.1", 0) as server:
            client = HttpClient(5, 1)
            url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
            outcome = await client.exchange("POST", url, {}, b"x")
            await client.close()
            return outcome

    outcome = asyncio.run(run())
    assert isinstance(outcome, Outcome)
    assert outcome.word is Word.RETRY


def test_a_name_that_no_dns_can_hold_is_no_bug_of_ours():
    async def run():
        return await HttpClient(5, 1).exchange("POST", f"http://{'x' * 70}.nl/", {}, b"x")

    assert asyncio.run(run()).word is Word.RETRY


def test_an_unread_stream_makes_the_other_side_wait():
    async def run():
        sent = 0

        async def talker(_reader, writer):
            nonlocal sent
            for _ in range(1000):
                writer.write(b"x" * 100_000)
                await writer.drain()
                sent += 100_000

        async with await asyncio.start_server(talker, "127.0.0.1", 0) as server:
            _, stream = await asyncio.get_running_loop().create_connection(Stream, *server.sockets[0].getsockname()[:2])
            await asyncio.sleep(0.3)
            held = len(stream._unread)
            read = 0
            while read < 10_000_000:
                read += len(await stream.read(1 << 16))
            await stream.aclose()
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"x")
            return held, sent

    held, sent = asyncio.run(run())
    assert held < 1_000_000
    assert sent < 100_000_000
