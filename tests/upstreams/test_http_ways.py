"""What every way out over HTTP owes when the other side is silent, gone, not who it says, or no longer waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from config.credentials import Secret
from routing.mail import Outgoing
from routing.outcome import Outcome, Stage, Word
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.http_look_alike import HttpLookAlike
from tests.fakes.http_server import BeforeBody, Fault
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.sendgrid import FakeSendGrid
from tests.upstreams.http_kit import run
from upstreams.base import Host, Kind, Upstream
from upstreams.campaign_monitor import KIND as CAMPAIGN_MONITOR
from upstreams.campaign_monitor import CampaignMonitorSettings
from upstreams.mailgun import KIND as MAILGUN
from upstreams.mailgun import MailgunSettings
from upstreams.sendgrid import KIND as SENDGRID
from upstreams.sendgrid import SendGridSettings

KEY = Secret("env:KEY", "key-of-the-look-alike")
CONTENT = b"From: anna@acme.nl\r\nTo: a@x.nl\r\nSubject: x\r\n\r\nhi\r\n"


@dataclass(frozen=True)
class Way:
    kind: Kind
    fake: Callable[..., HttpLookAlike]
    settings: Callable[..., object]

    def run(self, act, *, timeout: float = 5.0, **fake) -> object:
        def build(server) -> Upstream:
            return self.kind.build("out", self.settings(server, timeout), Host("relay.test"))

        return run(self.fake(key=KEY.reveal(), **fake), build, act)


WAYS = [
    Way(
        SENDGRID,
        FakeSendGrid,
        lambda server, timeout: SendGridSettings(api_key=KEY, method="api", base_url=server.url, timeout=timeout),
    ),
    Way(
        MAILGUN,
        FakeMailgun,
        lambda server, timeout: MailgunSettings(
            api_key=KEY, domain=server.domain, base_url=server.url, timeout=timeout
        ),
    ),
    Way(
        CAMPAIGN_MONITOR,
        FakeCampaignMonitor,
        lambda server, timeout: CampaignMonitorSettings(
            api_key=KEY, client_id=server.client_id, base_url=server.base_url, timeout=timeout
        ),
    ),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.kind.name)


async def sent(upstream: Upstream) -> Outcome:
    mail = Outgoing("01JQ", "acme.nl", "anna@acme.nl", ("a@x.nl",), CONTENT)
    return (await upstream.send(mail))["a@x.nl"]


@every_way
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.CUT])
def test_silence_after_the_body_may_have_been_delivered(way, fault):
    async def act(upstream, server):
        server.script(fault)
        return await sent(upstream)

    assert way.run(act, timeout=0.3).word is Word.UNKNOWN


@every_way
def test_nothing_listening_and_nothing_read(way):
    async def act(upstream, server):
        server.http.before_body = BeforeBody.CUT
        cut = await sent(upstream)
        await server.http.__aexit__()
        return cut, await sent(upstream), await upstream.probe()

    cut, gone, probed = way.run(act)
    assert cut.word is Word.UNKNOWN  # the body may have been on its way
    assert (gone.word, gone.stage) == (probed.word, probed.stage) == (Word.RETRY, Stage.CONNECT)


@every_way
def test_a_certificate_nobody_vouches_for_is_the_routes_fault(way, authority, monkeypatch):
    async def act(upstream, server):
        return await sent(upstream)

    assert way.run(act, tls=authority.server_context()).word is Word.SENT
    monkeypatch.delenv("SSL_CERT_FILE")
    refused = way.run(act, tls=authority.server_context())
    assert (refused.word, refused.stage) == (Word.CONFIG, Stage.TLS)


@every_way
def test_a_cancelled_connection_is_never_used_again(way):
    async def act(upstream, server):
        server.script(Fault.STALL)
        task = asyncio.create_task(sent(upstream))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        outcome = await sent(upstream)
        return outcome.word, [request.connection for request in server.requests]

    assert way.run(act) == (Word.SENT, [1, 2])


@every_way
def test_a_connection_is_kept_for_the_next_mail(way):
    async def act(upstream, server):
        await sent(upstream)
        await sent(upstream)
        return [request.connection for request in server.requests]

    assert way.run(act) == [1, 1]
