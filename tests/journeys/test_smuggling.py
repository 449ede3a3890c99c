"""SMTP smuggling through the real process: by every kind of upstream, each published end is one mail in and one out."""

from __future__ import annotations

import asyncio
import mailbox
import re
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.relay_process import RelayProcess
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.journeys.ends import ENDS, said, smuggled

JAN = "jan@example.nl"
SECRETS = {"SECRET": "entra-s3cret", "SG": "SG.journey.s3cret", "MG": "mailgun-s3cret", "CM": "cm-s3cret"}


def attack(domain: str, number: int, end: bytes) -> bytes:
    return (
        (
            b"MAIL FROM:<info@%(d)s>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\nFrom: info@%(d)s\r\nTo: jan@example.nl\r\n"
            b"Subject: nr %(n)d\r\n\r\nHallo"
        )
        % {b"d": domain.encode(), b"n": number}
        + end
        + smuggled(domain)
    )


async def attack_all(relay: RelayProcess, domain: str) -> None:
    """Every end once; each is answered as one mail, and each is delivered."""
    before = sum(event["event"] == "delivered" for event in relay.events)
    for number, end in enumerate(ENDS.values()):
        replies = await said(relay.port, attack(domain, number, end))
        assert sum(b"queued as" in reply for reply in replies) == 1, (end, replies)
    while (done := sum(event["event"] == "delivered" for event in relay.events) - before) < len(ENDS):
        assert not {"failed", "held"} & {str(event["event"]) for event in relay.events}, relay.log()
        await relay.event("delivered", "failed", "held", after=len(relay.events))
    assert done == len(ENDS)


class Gullible:
    """An SMTP server that takes for the end of a mail what any server ever took for it: any line ending, bare or whole,
    with NUL anywhere around the dot.
    """

    END = re.compile(rb"[\r\n]\0*\.\0*[\r\n]")

    def __init__(self) -> None:
        self.mails = 0
        self.recipients: Counter[bytes] = Counter()

    async def __aenter__(self) -> Gullible:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 gullible.test ESMTP\r\n")
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"RCPT":
                self.recipients[line.partition(b"<")[2].partition(b">")[0]] += 1
            writer.write(b"354 Go on\r\n" if word == b"DATA" else b"250 Ok\r\n")
            if word == b"DATA":
                await self._content(reader)
                writer.write(b"250 Ok\r\n")
        writer.close()

    async def _content(self, reader: asyncio.StreamReader) -> None:
        content = b""
        while not (found := self.END.search(content)):
            if not (more := await reader.read(65536)):
                return
            content += more
        self.mails += 1
        rest = content[found.end() :].lstrip(b"\n")
        if rest:  # what a server takes for the next commands
            self.recipients.update(re.findall(rb"(?im)^RCPT TO:<([^>]*)>", rest))


def test_the_most_gullible_server_behind_us_sees_one_mail_each(tmp_path: Path) -> None:
    async def journey() -> None:
        async with Gullible() as server:
            routes = (
                f"upstreams:\n  out: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
                "routes:\n  - {from: acme.nl, via: out}\n"
            )
            async with RelayProcess(tmp_path, routes) as relay:
                await attack_all(relay, "acme.nl")
                assert server.mails == len(ENDS)
                assert server.recipients == {JAN.encode(): len(ENDS)}

    asyncio.run(journey())


def test_every_kind_of_upstream_gets_one_mail_for_one(authority: Authority, tmp_path: Path) -> None:
    tls, scope = authority.server_context(), "https://outlook.office365.com/.default"

    async def journey() -> None:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            entra = await enter(FakeEntra(tls, secret=SECRETS["SECRET"]))
            graph = await enter(FakeGraph(entra, {"info@graph.nl"}, tls=tls))
            plain = await enter(FakeSmtp(users={"callpro": "s3cret"}, starttls=tls))
            tenant = await enter(FakeSmtp(starttls=tls))
            outlook = await enter(
                FakeSmtp(starttls=tls, mechanisms=("XOAUTH2",), bearer=lambda _box, token: entra.knows(token, scope))
            )
            grid = await enter(FakeSmtp(starttls=tls, users={"apikey": SECRETS["SG"]}))
            api = await enter(FakeSendGrid(key=SECRETS["SG"], verified=("api.nl",), tls=tls))
            gun = await enter(FakeMailgun(key=SECRETS["MG"], tls=tls))
            monitor = await enter(FakeCampaignMonitor(key=SECRETS["CM"], tls=tls))
            app = (
                f"tenant: {entra.tenant}, client_id: {entra.client_id}, authority: '{entra.authority}',"
                " client_secret: 'env:SECRET'"
            )
            at = monitor.base_url
            kinds = {
                "smtp": f"host: localhost, port: {plain.port}, username: callpro, password: s3cret",
                "connector": f"host: localhost, port: {tenant.port}",
                "smtp_oauth": f"{app}, host: localhost, port: {outlook.port}, pace: {{per_minute: 6000}}",
                "graph": f"{app}, base_url: '{graph.base_url}', pace: {{per_minute: 6000}}",
                "sendgrid": f"api_key: 'env:SG', host: localhost, port: {grid.port}",
                "api": f"method: api, api_key: 'env:SG', base_url: '{api.url}'",
                "mailgun": f"domain: {gun.domain}, api_key: 'env:MG', base_url: '{gun.url}'",
                "campaign_monitor": f"client_id: {monitor.client_id}, api_key: 'env:CM', base_url: '{at}'",
                "maildir": f"path: {tmp_path}/mail",
            }
            ups = "".join(
                f"  {name}: {{type: {'sendgrid' if name == 'api' else name}, {words}}}\n"
                for name, words in kinds.items()
            )
            rules = "".join(f"  - {{from: {name.replace('_', '-')}.nl, via: {name}}}\n" for name in kinds)
            relay = await enter(
                RelayProcess(tmp_path / "relay", f"upstreams:\n{ups}routes:\n{rules}", environment=SECRETS)
            )
            for name in kinds:
                await attack_all(relay, f"{name.replace('_', '-')}.nl")
            many = len(ENDS)
            for server in (plain, tenant, outlook, grid):
                assert [mail.recipients for mail in server.received] == [(JAN,)] * many
                assert not any(re.search(rb"\0|\r(?!\n)|(?<!\r)\n", mail.content) for mail in server.received)
            assert [mail.recipients for mail in graph.sent] == [frozenset({JAN})] * many
            assert [JAN] * many == api.recipients == gun.recipients == monitor.recipients
            assert len(mailbox.Maildir(tmp_path / "mail", create=False)) == many

    asyncio.run(journey())
