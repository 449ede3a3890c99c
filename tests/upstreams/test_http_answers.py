"""Servers that answer too early, too much, in crumbs, or what is no HTTP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from routing.outcome import Word
from tests.waiting import LONG, until
from upstreams.http_client import HttpClient


@asynccontextmanager
async def raw_server(answer):
    """The URL of a server that answers each request, whose body is `x`, with the octets that `answer` returns."""

    async def serve(reader, writer):
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\nx"):
                writer.write(answer())

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("more", [b"HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n", b'{"error": 1}'])
def test_what_came_behind_a_reply_is_not_the_next_ones(more):
    """A server that says too much once would refuse, or take, the next mail by what it said of this one."""
    first = [b"HTTP/1.1 204 No Content\r\n\r\n" + more]

    async def run():
        async with raw_server(lambda: first.pop() if first else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n") as url:
            client = HttpClient(5, 1)
            replies = [await client.exchange("POST", url, {}, b"x") for _ in range(2)]
            await client.close()
            return [getattr(reply, "status", reply) for reply in replies]

    assert asyncio.run(run()) == [204, 500]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_a_refusal_before_the_mail_was_read_is_heard(ends, tls, authority):
    """Its server reads no more, and does not hang up: waiting until time is over would leave the mail in doubt."""

    async def early(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        if ends and writer.can_write_eof():
            writer.write_eof()
        over.append(writer)

    async def run():
        server = await asyncio.start_server(early, "127.0.0.1", 0, ssl=authority.server_context() if tls else None)
        async with server:
            url = f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/"
            client = HttpClient(LONG, 1)
            replies = [await client.exchange("POST", url, {}, b"x" * 20_000_000) for _ in range(2)]
            await client.close()
            for writer in over:
                writer.transport.abort()
            return [getattr(reply, "status", reply) for reply in replies]

    over: list[asyncio.StreamWriter] = []
    assert asyncio.run(run()) == [413, 413]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("early", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_success_that_is_told_early_does_not_cut_the_mail_off(early, tls, authority):
    async def run():
        async def generous(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(early + b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            await asyncio.sleep(0.1)
            got.append(len(await reader.readexactly(20_000_000)))

        server = await asyncio.start_server(generous, "127.0.0.1", 0, ssl=authority.server_context() if tls else None)
        async with server:
            client = HttpClient(LONG, 1)
            url = f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/"
            reply = await client.exchange("POST", url, {}, b"x" * 20_000_000)
            await until(lambda: bool(got))
            await client.close()
            return reply.status, got

    got: list[int] = []
    assert asyncio.run(run()) == (202, [20_000_000])


def test_a_body_in_crumbs_leaves_the_others_their_turn():
    """Each chunk is some work, and all of them are there at once."""
    crumbs = b"HTTP/1.1 202 A\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n"

    async def run():
        turns = 0

        async def another():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with raw_server(lambda: crumbs) as url:
            client, beside = HttpClient(LONG, 1), asyncio.create_task(another())
            reply = await client.exchange("POST", url, {}, b"x")
            beside.cancel()
            await client.close()
            return reply.body, turns

    body, turns = asyncio.run(run())
    assert body == b"a" * 5_000
    assert turns > 70


def test_what_is_no_http_is_not_told_as_a_lost_connection():
    async def run():
        async with raw_server(lambda: b"ICY 200 OK\r\n\r\n") as url:
            return await HttpClient(5, 1).exchange("POST", url, {}, b"x")

    outcome = asyncio.run(run())
    assert outcome.word is Word.UNKNOWN
    assert outcome.reply.startswith("an answer that is no HTTP, after the request was sent: illegal status line")
