"""A redirected route through the real relay: whatever the transport, nobody but the one address is mailed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.relay_process import Event, RelayProcess
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

SECRETS = {"SECRET": "s3cret"}
TEST = "test@callcenter.nl"
TO, CC, BCC = "jan@example.nl", "piet@example.nl", "stil@example.nl"
EVERYBODY = [TO, CC, BCC]


def redirected(upstream: str) -> str:
    return f"upstreams:\n  out: {{{upstream}}}\nroutes:\n  - {{from: initech.nl, via: out, redirect: {TEST}}}\n"


async def send(relay: RelayProcess) -> Event:
    """One mail to three people, seen off; the event that says so."""
    content = mails.plain("info@initech.nl", f"Jan <{TO}>\r\nCc: {CC}")
    said = await clients.smtplib(relay.port, "info@initech.nl", EVERYBODY, content)
    assert said.code == 0, said.text
    return await relay.event("delivered", "failed", "deferred", "held")


def told(event: Event) -> None:
    assert (event["event"], event["redirected_to"], event["recipients"]) == ("delivered", TEST, EVERYBODY)


def test_by_smtp_the_header_stays_and_the_envelope_is_ours(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server:
            routes = redirected(f"type: smtp, host: 127.0.0.1, port: {server.port}, tls: none")
            async with RelayProcess(tmp_path / "relay", routes) as relay:
                event = await send(relay)
                told(event)
                (mail,) = server.received
                assert (mail.sender, mail.recipients) == ("info@initech.nl", (TEST,))
                assert mails.header(mail.content, "X-Intended-Recipients") == ", ".join(EVERYBODY)
                assert (mails.header(mail.content, "To"), mails.header(mail.content, "Cc")) == (f"Jan <{TO}>", CC)
                _, shown = await relay.command("queue", "show", str(event["mail"]))
                assert f"redirected to {TEST}, and to no recipient" in shown
                _, shown = await relay.command("route", "info@initech.nl")
                assert f"RCPT TO <{TEST}>" in shown
                code, shown = await relay.command("check")
                assert (code, f"sends every mail of this route to {TEST}" in shown) == (0, True)

    asyncio.run(journey())


def test_graph_mails_nobody_that_to_and_cc_name(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with (
            FakeEntra(tls, secret="s3cret") as entra,
            FakeGraph(entra, {"info@initech.nl"}, tls=tls) as graph,
        ):
            routes = redirected(
                f'type: graph, tenant: {entra.tenant}, client_id: {entra.client_id}, client_secret: "env:SECRET",'
                f' authority: "{entra.authority}", base_url: "{graph.base_url}"'
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                told(await send(relay))
                (mail,) = graph.sent
                assert mail.recipients == {TEST}
                assert list(graph.inboxes) == [TEST]
                assert mails.header(mail.content, "X-Intended-Recipients") == ", ".join(EVERYBODY)

    asyncio.run(journey())


def test_the_apis_mail_nobody_that_to_and_cc_name(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with (
            FakeSendGrid(key="s3cret", verified=("initech.nl",), tls=tls) as sendgrid,
            FakeMailgun(key="s3cret", tls=tls) as mailgun,
            FakeCampaignMonitor(key="s3cret", tls=tls) as monitor,
        ):
            key = 'api_key: "env:SECRET"'
            ways = (
                f'type: sendgrid, method: api, {key}, base_url: "{sendgrid.url}"',
                f'type: mailgun, domain: {mailgun.domain}, {key}, base_url: "{mailgun.url}"',
                f'type: campaign_monitor, client_id: {monitor.client_id}, {key}, base_url: "{monitor.base_url}"',
            )
            for number, way in enumerate(ways):
                folder = tmp_path / str(number)
                async with RelayProcess(folder, redirected(way), environment=SECRETS) as relay:
                    told(await send(relay))
            assert list(sendgrid.recipients) == list(mailgun.recipients) == list(monitor.recipients) == [TEST]
            assert sendgrid.delivered[0].mail["headers"]["X-Intended-Recipients"] == ", ".join(EVERYBODY)
            assert mails.header(mailgun.delivered[0].message, "X-Intended-Recipients") == ", ".join(EVERYBODY)

    asyncio.run(journey())
