"""The kind `connector`: the host, IPv4 only, and what it says of the null sender."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address

import pytest
import uvloop

from routing.outcome import Stage, Word
from tests.fakes.smtp import FakeSmtp
from tests.upstreams.smtp_kit import mail, ours
from upstreams.connector import KIND, ConnectorSettings, derived_host
from upstreams.connector_replies import CONNECTOR_REPLIES
from upstreams.smtp_replies import Reply

RCPT, DATA = Stage.RECIPIENT, Stage.CONTENT


@pytest.mark.parametrize("line", ["550 5.2.121 x", "550 5.7.233 x"])
def test_an_hour_to_wait(line):
    assert CONNECTOR_REPLIES.classify(Reply(550, line[4:]), RCPT).wait == 3600


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("contoso.com", "contoso-com.mail.protection.outlook.com"),
        ("sub.domain.nl", "sub-domain-nl.mail.protection.outlook.com"),
        ("my-company.co.uk", "my-company-co-uk.mail.protection.outlook.com"),
    ],
)
def test_derived_host(domain, host):
    assert derived_host(domain) == host


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both event loops that the relay may run on."""
    return request.param


async def _send(server: FakeSmtp | None, *mails, **given):
    if server is not None:
        given = {"host": "localhost", "port": server.port, **given}
    built = KIND.build("globex", ConnectorSettings(**given), ours())
    results = [await built.send(one) for one in mails]
    probed = await built.probe()
    await built.close()
    return results, probed


def test_from_the_pinned_address_with_tls_and_without_login(run, authority):
    async def go():
        async with FakeSmtp(starttls=authority.server_context()) as server:
            return server, await _send(server, mail(), source_address=IPv4Address("127.0.0.5"))

    server, ((results,), probed) = run(go())
    (got,) = server.received
    assert (got.peer, got.tls, got.user) == ("127.0.0.5", True, None)
    assert (results["b@x.nl"].word, probed.word) == (Word.SENT, Word.SENT)


def test_source_address_that_is_not_ours_is_config(run, authority):
    async def go():
        async with FakeSmtp(starttls=authority.server_context()) as server:
            return await _send(server, mail(), source_address=IPv4Address("192.0.2.1"))

    (results,), _ = run(go())
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.CONFIG, Stage.CONNECT)
    assert "192.0.2.1" in str(results["b@x.nl"].hint)


def test_never_over_ipv6(run):
    """A server on ::1 alone is not reached, whatever `localhost` means here."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def go():
        async with FakeSmtp(host="::1") as server:
            return server, await _send(server, mail(), host="localhost"), await _send(server, mail(), host="::1")

    server, by_name, by_address = run(go())
    assert server.connections == 0
    assert {results[0]["b@x.nl"].word for results, _ in (by_name, by_address)} <= {Word.RETRY, Word.CONFIG}


def test_without_starttls_nothing_is_said(authority):
    async def go():
        async with FakeSmtp() as server:
            return server, await _send(server, mail())

    server, ((results,), _) = asyncio.run(go())
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.CONFIG, Stage.TLS)
    assert set(server.commands) == {"EHLO relay.example"}


def test_refused_null_sender_says_who_must_do_what(authority):
    async def go():
        script = {"RCPT": "550 5.7.64 TenantAttribution; Relay Access Denied"}
        async with FakeSmtp(starttls=authority.server_context(), replies=script) as server:
            return await _send(server, mail(sender=""))

    (results,), _ = asyncio.run(go())
    assert results["b@x.nl"].word is Word.CONFIG
    assert "null sender" in str(results["b@x.nl"].hint)


def test_no_host_and_no_domain():
    (results,), probed = asyncio.run(_send(None, mail(sender="")))
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.CONFIG, Stage.PREPARE)
    assert "host" in str(results["b@x.nl"].hint)
    assert probed.word is not Word.SENT


@pytest.mark.parametrize(
    ("host", "warning"),
    [(None, True), ("smtp.office365.com", False), ("40.95.1.2", False), ("x-nl.mail.example", None)],
)
def test_faults(host, warning):
    faults = list(ConnectorSettings(host=host).faults())
    assert [fault.warning for fault in faults] == ([] if warning is None else [warning])
