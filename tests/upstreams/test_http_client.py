"""The httpx border, over real sockets: where a request failed decides the word."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from routing.outcome import Outcome, Stage, Word
from tests.fakes.authority import Authority
from tests.fakes.http_server import BeforeBody, Fault, HttpServer, Response
from upstreams.http_client import HttpClient, Reply, is_base_url, retry_after
from upstreams.tls import Trust


def asked(handler, *, timeout=30.0, tls=None, before=BeforeBody.READ, path="/x", **kwargs):
    """One exchange with a server that uses `handler`: (result, server)."""

    async def run():
        async with HttpServer(handler, tls) as server:
            server.before_body = before
            client = HttpClient(timeout, 2)
            try:
                result = await client.exchange("POST", server.url + path, {"X-A": "b"}, b"body" * 1000, **kwargs)
            finally:
                await client.close()
            return result, server

    return asyncio.run(run())


def always(answer):
    async def handler(_request):
        return answer

    return handler


def test_a_reply_comes_back_whole_and_the_request_arrives_as_sent():
    result, server = asked(always(Response(202, {"Request-Id": "r1"}, b"{}")))
    assert isinstance(result, Reply)
    assert (result.status, result.headers["request-id"], result.body) == (202, "r1", b"{}")
    assert server.problems == []
    assert server.requests[0].body == b"body" * 1000
    assert server.requests[0].headers["x-a"] == "b"
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_redirect_is_a_reply_and_is_not_followed():
    result, server = asked(always(Response(302, {"Location": "/elsewhere"})))
    assert result.status == 302
    assert len(server.requests) == 1


def test_no_answer_after_the_body_is_unknown():
    for fault in (Fault.STALL, Fault.CUT):
        result, _ = asked(always(fault), timeout=1 if fault is Fault.STALL else 30)
        assert (result.word, result.stage) == (Word.UNKNOWN, Stage.REQUEST), fault


def test_a_request_without_a_body_is_whole_once_its_headers_are_out():
    async def run(**kwargs):
        async with HttpServer(always(Fault.CUT)) as server:
            server.before_body = BeforeBody.CUT
            result = await HttpClient(5, 1).exchange("POST", server.url + "/send", {}, **kwargs)
            return result.word, server.requests

    assert asyncio.run(run()) == (Word.UNKNOWN, [])
    assert asyncio.run(run(repeatable=True)) == (Word.RETRY, [])


def test_a_token_that_no_header_can_hold_is_not_quoted():
    """A token endpoint may answer whatever it likes."""

    async def run():
        async with HttpServer(always(Response(202))) as server:
            return await HttpClient(5, 1).exchange("POST", server.url + "/send", {"Authorization": "Bearer a\r\nb"})

    result = asyncio.run(run())
    assert result.reply == "a request that HTTP cannot say"


def test_what_is_no_url_is_our_own_bug():
    with pytest.raises(ValueError, match="not a URL"):
        asyncio.run(HttpClient(5, 1).exchange("GET", "https://x:port/", {}))


def test_no_url_is_logged(caplog):
    with caplog.at_level("DEBUG"):
        asked(always(Response(202)), path="/secret-path?token=abc")
    assert "secret-path" not in caplog.text + "".join(repr(record.args) for record in caplog.records)


def test_no_answer_to_a_repeatable_request_is_retry():
    result, _ = asked(always(Fault.CUT), repeatable=True)
    assert (result.word, result.stage) == (Word.RETRY, Stage.REQUEST)


@pytest.mark.parametrize("before", [BeforeBody.STALL, BeforeBody.CUT])
def test_a_body_that_may_have_been_written_is_unknown(before):
    result, server = asked(always(Response(202)), before=before, timeout=1 if before is BeforeBody.STALL else 30)
    assert (result.word, result.stage) == (Word.UNKNOWN, Stage.REQUEST)
    assert server.requests == []


def test_a_cut_inside_the_reply_does_not_hide_the_status():
    result, _ = asked(always(Fault.CUT_IN_REPLY))
    assert isinstance(result, Reply)
    assert (result.status, result.body) == (202, b"only this")


def test_a_huge_reply_is_read_to_its_limit_only():
    result, _ = asked(always(Response(400, body=b"x" * 3_000_000)))
    assert (result.status, len(result.body)) == (400, 256 * 1024)


def test_nobody_listening_and_no_such_name_are_retry_at_connect():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{held.getsockname()[1]}/", "http://no-such-host.invalid/"]

        async def run():
            return [await HttpClient(5, 1).exchange("POST", url, {}, b"x") for url in urls]

        for result in asyncio.run(run()):
            assert isinstance(result, Outcome)
            assert (result.word, result.stage) == (Word.RETRY, Stage.CONNECT)


def test_a_silent_listener_times_out_within_tls():
    async def run():
        async with HttpServer(always(Response(202))) as server:
            client = HttpClient(0.3, 1)
            return await client.exchange("POST", f"https://127.0.0.1:{server.port}/", {}, b"x")

    result = asyncio.run(run())
    assert (result.word, result.stage) == (Word.RETRY, Stage.TLS)


def test_a_trusted_certificate_is_accepted_and_another_name_is_config(authority):
    good, _ = asked(always(Response(202)), tls=authority.server_context())
    assert good.status == 202
    bad, _ = asked(always(Response(202)), tls=authority.server_context("other.example"))
    assert (bad.word, bad.stage) == (Word.CONFIG, Stage.TLS)
    assert "mismatch" in bad.reply


def test_a_certificate_of_an_unknown_authority_is_config(tmp_path):
    result, server = asked(always(Response(202)), tls=Authority(tmp_path).server_context())
    assert (result.word, result.stage) == (Word.CONFIG, Stage.TLS)
    assert server.requests == []


def test_connections_are_kept_and_a_proxy_in_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def run():
        async with HttpServer(always(Response(202))) as server:
            client = HttpClient(5, 2)
            for _ in range(3):
                assert (await client.exchange("POST", server.url + "/", {}, b"x")).status == 202
            await client.close()
            return [request.connection for request in server.requests]

    assert asyncio.run(run()) == [1, 1, 1]


def test_a_request_on_a_kept_connection_searches_no_module_and_reads_no_certificate(authority, monkeypatch):
    """Both were most of what a request cost: httpcore looks for sniffio at every lock, and a miss is a disk search."""
    searched: list[str] = []
    shown: list[str] = []

    class Watch:
        def find_spec(self, name, *_more):
            searched.append(name)

    class Told(Trust):
        def saw(self, place, tls):
            shown.append(place)
            super().saw(place, tls)

    async def run():
        async with HttpServer(always(Response(202)), authority.server_context()) as server:
            client = HttpClient(5, 2, trust := Told())
            assert (await client.exchange("POST", server.url + "/", {}, b"x")).status == 202
            monkeypatch.setattr("sys.meta_path", [Watch(), *sys.meta_path])
            for _ in range(3):
                assert (await client.exchange("POST", server.url + "/", {}, b"x")).status == 202
            await client.close()
            return server, trust

    server, trust = asyncio.run(run())
    assert searched == []
    assert {request.connection for request in server.requests} == {1}
    assert shown == list(trust.seen) == [f"localhost:{server.port}"]


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_that_was_ended_while_idle_is_not_used_again(tls, authority):
    """Written to it, the mail would be in doubt: nobody could say whether it was taken."""
    ends: list[asyncio.StreamWriter] = []

    async def once(reader, writer):
        ends.append(writer)
        await reader.readuntil(b"\r\n\r\nx")
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    async def run():
        server = await asyncio.start_server(once, "127.0.0.1", 0, ssl=authority.server_context() if tls else None)
        async with server:
            url = f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/"
            client = HttpClient(5, 2)
            words = []
            for _ in range(3):
                words.append(await client.exchange("POST", url, {}, b"x"))
                ends[-1].close()
                await asyncio.sleep(0.1)
            await client.close()
            return words

    assert [getattr(one, "status", one) for one in asyncio.run(run())] == [202, 202, 202]
    assert len(ends) == 3


def test_no_cookie_goes_along_with_the_next_request():
    async def run():
        async with HttpServer(always(Response(202, {"Set-Cookie": "who=me; Path=/"}))) as server:
            client = HttpClient(5, 2)
            for _ in range(2):
                await client.exchange("POST", server.url + "/", {}, b"x")
            await client.close()
            return ["cookie" in request.headers for request in server.requests]

    assert asyncio.run(run()) == [False, False]


def test_a_cancelled_request_leaves_no_connection_behind():
    async def run():
        async with HttpServer(always(Fault.STALL)) as server:
            client = HttpClient(30, 1)
            task = asyncio.create_task(client.exchange("POST", server.url + "/", {}, b"x"))
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
            server._handler = always(Response(202))
            again = await client.exchange("POST", server.url + "/", {}, b"x")
            await client.close()
            return again.status, server.requests[-1].connection

    assert asyncio.run(run()) == (202, 2)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("https://graph.microsoft.com/v1.0", True),
        ("https://graph.example:8443", True),
        ("http://127.0.0.1:8080/v1.0", True),
        ("http://[::1]:8080", True),
        ("http://graph.example", False),
        ("https://user@graph.example", False),
        ("https://graph.example/?x=1", False),
        ("https://graph.example/#x", False),
        ("https://graph.example:port", False),
        ("https://[broken", False),
        ("https://", False),
        ("graph.example", False),
        ("", False),
    ],
)
def test_which_addresses_an_api_may_have(text, fits):
    assert is_base_url(text) is fits


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Sun, 22 Nov 2026 07:28:35 GMT", 30.0),
        ("Sun, 22 Nov 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("٣", None),
        ("Sun, 99 Nov 2026 07:28:35 GMT", None),
        ("Sun, 22 Nov 2026 07:28:35 +999999999999999", None),
        ("Sun, 22 Nov 2099 07:28:35 GMT", 86400.0),
        ("999999999999", 86400.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, seconds):
    now = time.mktime(time.strptime("2026-11-22 07:28:05", "%Y-%m-%d %H:%M:%S")) - time.timezone
    assert retry_after({"retry-after": text}, now) == seconds
