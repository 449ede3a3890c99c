"""The trust store that upstreams share: loaded once, and nothing of one upstream reaches another through it."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading

import pytest
import uvloop

from tests.fakes.http_server import HttpServer, Response
from tests.fakes.smtp import FakeSmtp
from tests.upstreams.smtp_kit import mail, ours
from upstreams.http_client import HttpClient
from upstreams.smtp import KIND, SmtpSettings
from upstreams.smtp_tls import resuming_context
from upstreams.smtp_wire import Wire
from upstreams.tls import Trust


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both event loops that the relay may run on."""
    return request.param


def test_a_store_is_loaded_once_for_smtp_and_once_for_http(authority):
    trust = Trust()
    assert trust.for_smtp() is trust.for_smtp()
    assert trust.for_http() is trust.for_http()
    assert trust.for_smtp() is not trust.for_http()
    for context in (trust.for_smtp(), trust.for_http()):
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.cert_store_stats()["x509_ca"] == 1
    assert Trust().for_smtp() is not trust.for_smtp()


def test_threads_that_come_together_load_it_once(authority):
    trust, got, gate = Trust(), [], threading.Barrier(8)

    def ask():
        gate.wait()
        got.append(trust.for_http())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(context) for context in got}) == 1


def test_the_context_of_one_upstream_trusts_nobody_by_itself(authority):
    context = resuming_context(Trust())
    assert context.cert_store_stats()["x509"] == 0
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_session_is_resumed_by_its_own_upstream_only(run, authority):
    """One host, one trust store, one server: the second upstream begins anew."""

    async def story():
        host = ours()
        async with FakeSmtp(starttls=authority.server_context()) as server:
            given = SmtpSettings(host=server.host, port=server.port, messages_per_connection=1)
            one, two = (KIND.build(name, given, host) for name in ("one", "two"))
            seen = []
            for way in (one, one, two, two):
                await way.send(mail())
                seen.append(server.resumed)
            await one.close()
            await two.close()
            return seen

    assert run(story()) == [0, 1, 1, 2]


def test_smtp_names_no_protocol_after_http_has_used_the_same_store(authority):
    """A server that knows ALPN may refuse a client that wants http/1.1 (RFC 7301 3.2)."""

    async def story():
        host = ours()
        server_tls = authority.server_context()
        server_tls.set_alpn_protocols(["http/1.1"])

        async def answer(_request):
            return Response(202)

        async with HttpServer(answer, server_tls) as web, FakeSmtp(starttls=server_tls) as server:
            client = HttpClient(5, 1, host.trust)
            assert (await client.exchange("POST", f"{web.url}/", {}, b"x")).status == 202
            way = KIND.build("one", SmtpSettings(host=server.host, port=server.port), host)
            await way.send(mail())
            session = next(iter(way._pool._idle.values()))[0]
            chosen = session.wire.transport.get_extra_info("ssl_object").selected_alpn_protocol()
            await way.close()
            await client.close()
            return chosen

    assert asyncio.run(story()) is None


class Tls:
    """What is asked of a connection's TLS, counted: each reading of `session` leaks 7 KB in CPython 3.11."""

    def __init__(self, *, reused: bool) -> None:
        self.session_reused = reused
        self.read = 0

    @property
    def session(self):
        self.read += 1


def test_a_session_is_read_once_and_seldom(authority):
    context = resuming_context(Trust())
    new, again = Tls(reused=False), Tls(reused=True)
    for now in range(0, 7200, 60):
        context.remember("mail.acme.nl", new, now)
        context.remember("mail.acme.nl", again, now)
    context.remember("mail.globex.nl", new, 7200)
    assert (new.read, again.read) == (3, 0)


def test_a_connection_that_is_gone_is_forgotten_at_once(authority):
    """And not when the time for its farewell is over: a busy route would hold hundreds."""

    async def story():
        async with FakeSmtp(starttls=authority.server_context()) as server:
            given = SmtpSettings(host=server.host, port=server.port, messages_per_connection=1)
            way = KIND.build("one", given, ours())
            for _ in range(20):
                await way.send(mail())
            while way._pool._leaving:
                await asyncio.sleep(0.01)
            await way.close()
            gc.collect()
            return sum(isinstance(each, Wire) for each in gc.get_objects())

    assert asyncio.run(story()) < 3
