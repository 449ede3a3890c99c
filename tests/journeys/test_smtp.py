"""Journeys through a customer's own SMTP server: the real relay, ordinary clients, a strict look-alike."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

SECRETS = {"ACME_PASSWORD": "acme-s3cret", "GLOBEX_PASSWORD": "globex-s3cret"}


def login_route(server: FakeSmtp, customer: str, more: str = "") -> str:
    return (
        f"upstreams:\n  {customer}: {{type: smtp, host: localhost, port: {server.port}, username: {customer},"
        f' password: "env:{customer.upper()}_PASSWORD"}}\nroutes:\n  - {{from: {customer}.nl, via: {customer}{more}}}\n'
    )


def acme_server(authority: Authority, **more: object) -> FakeSmtp:
    return FakeSmtp(starttls=authority.server_context(), users={"acme": SECRETS["ACME_PASSWORD"]}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("client", ["swaks", "msmtp", "smtplib"])
def test_a_mail_leaves_by_the_customers_login(client: str, authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            acme_server(authority) as server,
            RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS) as relay,
        ):
            content = mails.rich("info@acme.nl", "Jan Jansen <jan@example.nl>", cc="piet@example.nl")
            recipients = ["jan@example.nl", "piet@example.nl", "stil@example.nl"]
            said = await getattr(clients, client)(relay.port, "info@acme.nl", recipients, content)
            assert said.code == 0, said.text
            await relay.event("delivered")
            (mail,) = server.received
            assert (mail.sender, sorted(mail.recipients)) == ("info@acme.nl", sorted(recipients))
            assert (mail.user, mail.tls, mail.ehlo) == ("acme", True, "relay.test")
            assert mails.parts(mail.content) == mails.parts(content)
            assert mails.header(mail.content, "Subject") == "Één coördinatie: uw offerte à € 12,50"
            if client == "smtplib":  # the one client that changes nothing: byte for byte, dots and all
                assert mails.without_trace(mail.content) == content
            assert not any(secret in relay.log() for secret in SECRETS.values())

    asyncio.run(journey())


def test_nodemailer_keeps_its_connection_and_so_do_we(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            acme_server(authority) as server,
            RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS) as relay,
        ):
            mail = {
                "from": "Café Zuid <info@acme.nl>",
                "to": "jan@example.nl",
                "subject": "Bevestiging één",
                "text": "Beste Jan",
                "html": '<img src="cid:logo">',
                "attachments": [
                    {"filename": "logo.png", "content": "iVBORw0KGgo=", "encoding": "base64", "cid": "logo"}
                ],
            }
            said = await clients.nodemailer(relay.port, "info@acme.nl", ["jan@example.nl", "bcc@example.nl"], mail, 5)
            assert (said.code, said.text.count("queued as")) == (0, 5), said.text
            while len(server.received) < 5:
                await relay.event("delivered", after=len(relay.events))
            assert all(mail.recipients == ("jan@example.nl", "bcc@example.nl") for mail in server.received)
            assert mails.header(server.received[0].content, "From") == "Café Zuid <info@acme.nl>"
            assert "bcc@example.nl" not in server.received[0].content.decode()
            assert server.connections < 5
            assert len(server.logins) == server.connections

    asyncio.run(journey())


def test_an_attachment_of_8_mb_arrives_whole(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            acme_server(authority) as server,
            RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS) as relay,
        ):
            content = mails.large("info@acme.nl", "jan@example.nl", 8 << 20)
            said = await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)
            assert said.code == 0, said.text
            await relay.event("delivered")
            assert mails.without_trace(server.received[0].content) == content

    asyncio.run(journey())


def test_two_customers_on_one_host_never_cross(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        users = {"acme": SECRETS["ACME_PASSWORD"], "globex": SECRETS["GLOBEX_PASSWORD"]}
        async with FakeSmtp(starttls=authority.server_context(), users=users) as server:
            routes = (
                login_route(server, "acme").split("routes:")[0]
                + login_route(server, "globex").split("routes:")[0].removeprefix("upstreams:\n")
                + "routes:\n  - {from: acme.nl, via: acme}\n  - {from: globex.nl, via: globex}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS) as relay:
                await asyncio.gather(
                    *(
                        clients.smtplib(relay.port, f"info@{customer}.nl", [f"klant{n}@example.nl"],
                                        mails.plain(f"info@{customer}.nl", f"klant{n}@example.nl"))
                        for n in range(8) for customer in ("acme", "globex")
                    )
                )  # fmt: skip
                while len(server.received) < 16:
                    await relay.event("delivered", after=len(relay.events))
                assert {(mail.sender, mail.user) for mail in server.received} == {
                    ("info@acme.nl", "acme"),
                    ("info@globex.nl", "globex"),
                }

    asyncio.run(journey())


def test_some_recipients_are_refused_and_the_others_are_not_kept_waiting(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        replies = {"RCPT weg@example.nl": "550 5.1.1 no such user", "RCPT vol@example.nl": ["452 4.2.2 mailbox full"]}
        async with acme_server(authority, replies=replies) as server:
            more = "delivery: {retry: [1s]}\n"
            async with RelayProcess(
                tmp_path / "relay", login_route(server, "acme"), environment=SECRETS, extra=more
            ) as relay:
                recipients = ["jan@example.nl", "weg@example.nl", "vol@example.nl"]
                await clients.smtplib(
                    relay.port, "info@acme.nl", recipients, mails.plain("info@acme.nl", "jan@example.nl")
                )
                await relay.event("failed")
                while not any(mail.recipients == ("vol@example.nl",) for mail in server.received):
                    await relay.event("delivered", after=len(relay.events))
                assert server.received[0].recipients == ("jan@example.nl",)
                _, text = await relay.command("queue", "list", "--settled")
                assert "weg@example.nl" in text

    asyncio.run(journey())
