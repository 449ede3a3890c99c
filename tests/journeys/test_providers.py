"""Journeys through the providers: a connector, Graph, and SendGrid by both its methods."""

from __future__ import annotations

import asyncio
import email
import email.policy
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.relay_process import RelayProcess
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

SECRETS = {"ENTRA_SECRET": "entra-s3cret", "SENDGRID_KEY": "SG.journey.s3cret"}
TO, CC, BCC = "jan@example.nl", "piet@example.nl", "stil@example.nl"


def test_a_connector_knows_us_by_our_address(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp(starttls=authority.server_context()) as tenant:
            routes = (
                f"upstreams:\n  globex: {{type: connector, host: localhost, port: {tenant.port},"
                " source_address: 127.0.0.9}\nroutes:\n  - {from: ['globex.nl', '*.globex.nl'], via: globex}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes) as relay:
                content = mails.rich("info@shop.globex.nl", TO, cc=CC)
                said = await clients.msmtp(relay.port, "info@shop.globex.nl", [TO, CC, BCC], content)
                assert said.code == 0, said.text
                await relay.event("delivered")
                (mail,) = tenant.received
                assert (mail.peer, mail.tls, mail.user) == ("127.0.0.9", True, None)
                assert mail.recipients == (TO, CC, BCC)
                assert mails.parts(mail.content) == mails.parts(content)

    asyncio.run(journey())


def test_a_closed_connector_holds_the_route_and_keeps_the_mail(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        refused = "550 5.7.64 TenantAttribution; Relay Access Denied"
        async with FakeSmtp(starttls=authority.server_context(), replies={"RCPT": refused}) as tenant:
            routes = (
                f"upstreams:\n  globex: {{type: connector, host: localhost, port: {tenant.port}}}\n"
                "routes:\n  - {from: globex.nl, via: globex}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes) as relay:
                await clients.swaks(relay.port, "info@globex.nl", [TO])
                held = await relay.event("held")
                assert "5.7.64" in str(held["reply"])
                assert "connector" in str(held["hint"]).lower()
                code, text = await relay.command("queue", "list")
                assert (code, "info@globex.nl" in text) == (0, True)

    asyncio.run(journey())


def test_graph_reaches_exactly_the_envelope(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with (
            FakeEntra(tls, secret=SECRETS["ENTRA_SECRET"]) as entra,
            FakeGraph(entra, {"info@initech.nl"}, tls=tls) as graph,
        ):
            routes = (
                f"upstreams:\n  initech: {{type: graph, tenant: {entra.tenant}, client_id: {entra.client_id},"
                f' client_secret: "env:ENTRA_SECRET", authority: "{entra.authority}", base_url: "{graph.base_url}"}}\n'
                "routes:\n  - {from: initech.nl, via: initech}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                # Piet stands in Cc and is not in the envelope: CallPro sends him a mail of his own.
                content = mails.rich("info@initech.nl", f"Jan <{TO}>", cc=f"Piet <{CC}>")
                said = await clients.smtplib(relay.port, "info@initech.nl", [TO, BCC], content)
                assert said.code == 0, said.text
                await relay.event("delivered")
                (mail,) = graph.sent
                assert mail.recipients == {TO, BCC}
                assert mails.parts(mail.content) == mails.parts(content)
                assert "entra-s3cret" not in relay.log()
                assert not any(given.token in relay.log() for given in entra.given)

    asyncio.run(journey())


def sendgrid_route(words: str) -> str:
    return (
        f'upstreams:\n  sg: {{type: sendgrid, api_key: "env:SENDGRID_KEY", {words}}}\n'
        "routes:\n  - {from: umbrella.nl, via: sg}\n"
    )


def test_sendgrid_by_smtp(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        users = {"apikey": SECRETS["SENDGRID_KEY"]}
        async with FakeSmtp(starttls=authority.server_context(), users=users) as sendgrid:
            routes = sendgrid_route(f"host: localhost, port: {sendgrid.port}")
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                content = b'X-SMTPAPI: {"to": ["everybody@example.nl"]}\r\n' + mails.rich("info@umbrella.nl", TO)
                said = await clients.smtplib(relay.port, "info@umbrella.nl", [TO, BCC], content)
                assert said.code == 0, said.text
                await relay.event("delivered")
                (mail,) = sendgrid.received
                assert (mail.recipients, mail.user) == ((TO, BCC), "apikey")
                assert b"everybody@example.nl" not in mail.content
                assert mails.parts(mail.content) == mails.parts(content)

    asyncio.run(journey())


def test_sendgrid_by_its_api(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSendGrid(
            key=SECRETS["SENDGRID_KEY"], verified=("umbrella.nl",), tls=authority.server_context()
        ) as sendgrid:
            routes = sendgrid_route(f'method: api, base_url: "{sendgrid.url}"')
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                content = mails.rich("info@umbrella.nl", f"Jan <{TO}>", cc=CC)
                said = await clients.msmtp(relay.port, "info@umbrella.nl", [TO, CC, BCC], content)
                assert said.code == 0, said.text
                await relay.event("delivered")
                assert sorted(sendgrid.recipients) == sorted([TO, CC, BCC])
                body = sendgrid.delivered[0].mail
                assert body["subject"] == "Één coördinatie: uw offerte à € 12,50"
                assert [part["type"] for part in body["content"]] == ["text/plain", "text/html"]
                assert {(part["filename"], part["disposition"]) for part in body["attachments"]} == {
                    ("logo.png", "inline"),
                    ("offerte-één.pdf", "attachment"),
                }
                assert email.message_from_bytes(content, policy=email.policy.default)["Message-ID"] in str(body)

    asyncio.run(journey())


def test_smtp_with_oauth_sends_as_the_mailbox(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        tls = authority.server_context()
        async with FakeEntra(tls, secret=SECRETS["ENTRA_SECRET"]) as entra:
            scope = "https://outlook.office365.com/.default"
            async with FakeSmtp(
                starttls=tls, mechanisms=("XOAUTH2",), bearer=lambda _mailbox, token: entra.knows(token, scope)
            ) as outlook:
                routes = (
                    f"upstreams:\n  oauth: {{type: smtp_oauth, tenant: {entra.tenant}, client_id: {entra.client_id},"
                    f' client_secret: "env:ENTRA_SECRET", authority: "{entra.authority}", host: localhost,'
                    f" port: {outlook.port}}}\nroutes:\n  - {{from: cyberdyne.nl, via: oauth}}\n"
                )
                async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                    content = mails.rich("info@cyberdyne.nl", TO, cc=CC)
                    said = await clients.smtplib(relay.port, "info@cyberdyne.nl", [TO, CC, BCC], content)
                    assert said.code == 0, said.text
                    await relay.event("delivered")
                    (mail,) = outlook.received
                    assert (mail.user, mail.recipients) == ("info@cyberdyne.nl", (TO, CC, BCC))
                    assert mails.without_trace(mail.content) == content
                    assert not any(given.token in relay.log() for given in entra.given)

    asyncio.run(journey())


def test_mailgun_gets_the_mail_as_it_is(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        secrets = {"MAILGUN_KEY": "mailgun-s3cret"}
        async with FakeMailgun(key=secrets["MAILGUN_KEY"], tls=authority.server_context()) as mailgun:
            routes = (
                f'upstreams:\n  mg: {{type: mailgun, domain: {mailgun.domain}, api_key: "env:MAILGUN_KEY",'
                f' base_url: "{mailgun.url}"}}\nroutes:\n  - {{from: tyrell.nl, via: mg}}\n'
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=secrets) as relay:
                # A header of Mailgun's own would swallow the mail.
                content = mails.rich("info@tyrell.nl", TO, cc=CC)
                said = await clients.smtplib(
                    relay.port, "info@tyrell.nl", [TO, BCC], b"X-Mailgun-Drop-Message: yes\r\n" + content
                )
                assert said.code == 0, said.text
                await relay.event("delivered")
                assert (sorted(mailgun.recipients), mailgun.swallowed) == (sorted([TO, BCC]), [])
                assert mails.parts(mailgun.delivered[0].message) == mails.parts(content)
                assert secrets["MAILGUN_KEY"] not in relay.log()

    asyncio.run(journey())


def test_campaign_monitor_says_what_it_can_and_refuses_the_rest(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        secrets = {"CM_KEY": "cm-s3cret"}
        async with FakeCampaignMonitor(key=secrets["CM_KEY"], tls=authority.server_context()) as monitor:
            routes = (
                f'upstreams:\n  cm: {{type: campaign_monitor, client_id: {monitor.client_id}, api_key: "env:CM_KEY",'
                f' base_url: "{monitor.base_url}"}}\nroutes:\n  - {{from: wonka.nl, via: cm}}\n'
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=secrets) as relay:
                people = [f"klant{number}@example.nl" for number in range(30)]
                plain = mails.plain("info@wonka.nl", TO)
                said = await clients.smtplib(relay.port, "info@wonka.nl", [TO, *people], plain)
                assert said.code == 0, said.text
                await relay.event("delivered")
                assert sorted(monitor.recipients) == sorted([TO, *people])
                assert all(set(copy.shown) <= {TO, copy.recipient} for copy in monitor.delivered)
                assert {copy.mail["ConsentToTrack"] for copy in monitor.delivered} == {"No"}

                await clients.smtplib(relay.port, "info@wonka.nl", [TO], mails.rich("info@wonka.nl", TO))
                failed = await relay.event("failed")
                assert "a picture inside the text" in str(failed["reply"])

    asyncio.run(journey())


def test_a_mail_too_large_for_graph_leaves_by_smtp_with_oauth(authority: Authority, tmp_path: Path) -> None:
    """One Entra app, two rights: the small mail goes by Graph, the one with 8 MB by SMTP, and neither waits."""

    async def journey() -> None:
        tls = authority.server_context()
        scope = "https://outlook.office365.com/.default"
        async with (
            FakeEntra(tls, secret=SECRETS["ENTRA_SECRET"]) as entra,
            FakeGraph(entra, {"info@initech.nl"}, tls=tls) as graph,
            FakeSmtp(
                starttls=tls, mechanisms=("XOAUTH2",), bearer=lambda _mailbox, token: entra.knows(token, scope)
            ) as outlook,
        ):
            app = (
                f"tenant: {entra.tenant}, client_id: {entra.client_id}, authority: '{entra.authority}',"
                " client_secret: 'env:ENTRA_SECRET'"
            )
            routes = (
                f"upstreams:\n  graph: {{type: graph, {app}, base_url: '{graph.base_url}'}}\n"
                f"  oauth: {{type: smtp_oauth, {app}, host: localhost, port: {outlook.port}}}\n"
                "routes:\n  - {from: initech.nl, via: [graph, oauth]}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                large = mails.large("info@initech.nl", TO, 8 << 20)
                for content in (large, mails.rich("info@initech.nl", TO)):
                    said = await clients.smtplib(relay.port, "info@initech.nl", [TO, BCC], content)
                    assert said.code == 0, said.text
                await relay.event("delivered", upstream="oauth")
                await relay.event("delivered", upstream="graph")
                assert [mail.recipients for mail in graph.sent] == [{TO, BCC}]
                (mail,) = outlook.received
                assert mails.without_trace(mail.content) == large
                assert not {"failed", "held", "deferred"} & {str(event["event"]) for event in relay.events}

    asyncio.run(journey())
