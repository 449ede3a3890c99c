"""The kind `connector`: the host, IPv4 only, and every reply of microsoft-365-connector.md, section 5."""

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

PAGE = [
    ("421 4.3.2 Service not available", Stage.SENDER, Word.RETRY),
    ("432 4.3.2 STOREDRV; concurrent limit", DATA, Word.RETRY),
    ("451 4.7.500 Access denied, please try again later", RCPT, Word.RETRY),
    ("451 4.7.699 Access denied, please try again later", RCPT, Word.RETRY),
    ("451 4.7.850 Access denied, please try again later", RCPT, Word.RETRY),
    ("451 4.7.899 Access denied, please try again later", RCPT, Word.RETRY),
    ("452 4.5.3 Too many recipients (AS780090)", RCPT, Word.RETRY),
    ("450 4.7.25 sending IPv6 address must have a reverse record", RCPT, Word.CONFIG),
    ("450 4.7.26 message over IPv6 must pass SPF or DKIM", DATA, Word.CONFIG),
    ("451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35", RCPT, Word.CONFIG),
    ("451 4.4.3 Temporary server error", RCPT, Word.RETRY),
    ("451 4.7.0 Temporary server error", RCPT, Word.RETRY),
    ("550 5.7.64 TenantAttribution; Relay Access Denied", RCPT, Word.CONFIG),
    ("550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization", RCPT, Word.CONFIG),
    ("550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", RCPT, Word.CONFIG),
    ("530 5.7.57 SMTP; Client was not authenticated to send anonymous mail", Stage.SENDER, Word.CONFIG),
    ("550 5.7.57 SMTP; Client was not authenticated", Stage.SENDER, Word.CONFIG),
    ("550 5.7.1 Unable to relay", RCPT, Word.CONFIG),
    ("554 5.4.1 Relay access denied", RCPT, Word.CONFIG),
    ("550 5.4.1 Recipient address rejected: Access denied", RCPT, Word.REJECT),
    ("550 5.1.1 no such recipient", RCPT, Word.REJECT),
    ("550 5.1.10 RESOLVER.ADR.RecipientNotFound", RCPT, Word.REJECT),
    ("550 5.1.8 Access denied, bad outbound sender", DATA, Word.CONFIG),
    ("550 5.7.501 Access denied, spam abuse detected", RCPT, Word.CONFIG),
    ("550 5.7.502 Access denied, banned sender", RCPT, Word.CONFIG),
    ("550 5.7.503 Access denied, banned sender", RCPT, Word.CONFIG),
    ("550 5.7.506 Access denied, bad HELO", RCPT, Word.CONFIG),
    ("550 5.7.508 Access denied, permitted limits exceeded", RCPT, Word.CONFIG),
    ("550 5.7.510 Access denied, recipient does not accept email over IPv6", RCPT, Word.CONFIG),
    ("550 5.7.23 The message was rejected because of SPF violation", DATA, Word.CONFIG),
    ("550 5.7.509 Access denied, sending domain does not pass DMARC", DATA, Word.CONFIG),
    ("550 5.7.515 Access denied, required authentication level", DATA, Word.CONFIG),
    ("550 5.7.511 Access denied, banned sender; write to delist@", RCPT, Word.CONFIG),
    ("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", DATA, Word.REJECT),
    ("550 5.7.513 Service unavailable, client host blocked by recipient", RCPT, Word.REJECT),
    ("550 5.7.504 Recipient address rejected: Access denied", RCPT, Word.REJECT),
    ("550 5.7.505 Access denied, banned recipient", RCPT, Word.REJECT),
    ("550 5.7.507 Access denied, rejected by recipient", RCPT, Word.REJECT),
    ("550 5.7.12 sender was not authenticated by organization", RCPT, Word.REJECT),
    ("550 5.7.124 sender not in allowed-senders list", RCPT, Word.REJECT),
    ("550 5.7.133 sender not authenticated for group", RCPT, Word.REJECT),
    ("550 5.7.134 sender was not authenticated for mailbox", RCPT, Word.REJECT),
    ("550 5.7.135 sender was not authenticated for public folder", RCPT, Word.REJECT),
    ("550 5.7.136 sender was not authenticated for mail user", RCPT, Word.REJECT),
    ("550 5.4.6 Hop count exceeded", DATA, Word.CONFIG),
    ("550 5.4.14 Hop count exceeded", DATA, Word.CONFIG),
    ("550 5.2.121 recipient limit from this sender", RCPT, Word.RETRY),
    ("550 5.2.122 recipient limit", RCPT, Word.RETRY),
    ("550 5.7.606 Access denied, banned sending IP [203.0.113.10]", RCPT, Word.CONFIG),
    ("550 5.7.649 Access denied, banned sending IP [203.0.113.10]", RCPT, Word.CONFIG),
    ("550 5.7.705 Access denied, tenant has exceeded threshold", DATA, Word.CONFIG),
    ("550 5.7.708 Access denied, traffic not accepted from this IP", DATA, Word.CONFIG),
    ("550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains", DATA, Word.CONFIG),
    ("550 5.7.233 tenant external recipient rate limit", RCPT, Word.CONFIG),
    ("550 5.6.11 message contains bare linefeeds", DATA, Word.REJECT),
    ("552 5.3.4 message size exceeds limit", DATA, Word.REJECT),
    ("550 5.7.999 something new", RCPT, Word.CONFIG),
]


@pytest.mark.parametrize(("line", "stage", "word"), PAGE)
def test_reply(line, stage, word):
    outcome = CONNECTOR_REPLIES.classify(Reply(int(line[:3]), line[4:]), stage)
    assert (outcome.word, outcome.reply) == (word, line)
    assert outcome.hint or word is not Word.CONFIG


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
    assert "192.0.2.1" in (results["b@x.nl"].hint or "")


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
    assert "null sender" in (results["b@x.nl"].hint or "")


def test_no_host_and_no_domain():
    (results,), probed = asyncio.run(_send(None, mail(sender="")))
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.CONFIG, Stage.PREPARE)
    assert "host" in (results["b@x.nl"].hint or "")
    assert probed.word is not Word.SENT


@pytest.mark.parametrize(
    ("host", "warning"),
    [(None, True), ("smtp.office365.com", False), ("40.95.1.2", False), ("x-nl.mail.example", None)],
)
def test_faults(host, warning):
    faults = list(ConnectorSettings(host=host).faults())
    assert [fault.warning for fault in faults] == ([] if warning is None else [warning])
