"""The demo: the real relay, look-alike upstreams of every kind, and one mail through each route. All on loopback.

A mail counts as arrived when the look-alike upstream has it, from the expected sender and for exactly the envelope's
recipients; the relay's own word is not asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mailbox
import secrets
import signal
import smtplib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from email.utils import parseaddr
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ops.progress import Progress
from ops.terminal import is_terminal
from tests.fakes.authority import Authority
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.relay_process import Event, RelayProcess
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.journeys import mails

SECRETS = {
    "ACME_PASSWORD": "demo-acme",
    "ENTRA_SECRET": "demo-entra",
    "SENDGRID_KEY": "SG.demo.key",
    "MAILGUN_KEY": "demo-mailgun",
    "CM_KEY": "demo-campaign-monitor",
}
STATUS = "status: {address: '127.0.0.1:0', token: 'env:STATUS_TOKEN'}\n"
OUTLOOK = "https://outlook.office365.com/.default"

Arrivals = Callable[[], list[tuple[str, tuple[str, ...]]]]
"""What a look-alike has so far: the sender as the upstream saw it, and who got the mail."""


@dataclass(frozen=True, slots=True)
class Way:
    """A route of the demo: who sends, what the look-alike must see as the sender, and where to look.

    `inline` is False where the provider has no place for inline images: its mail is plain text.
    """

    sender: str
    seen_as: str
    place: str
    arrivals: Arrivals
    inline: bool = True


@dataclass(frozen=True, slots=True)
class Street:
    """All look-alikes: the rules that lead to them, and the ways to watch."""

    routes: str
    ways: tuple[Way, ...]
    authority: Authority


@contextlib.asynccontextmanager
async def look_alikes(folder: Path) -> AsyncIterator[Street]:
    """Start one look-alike of every kind."""
    authority = Authority(folder)
    tls = authority.server_context()
    async with (
        FakeSmtp(starttls=tls, users={"acme": SECRETS["ACME_PASSWORD"]}) as login,
        FakeSmtp(starttls=tls) as tenant,
        FakeEntra(tls, secret=SECRETS["ENTRA_SECRET"]) as entra,
        FakeGraph(entra, {"info@initech.nl"}, tls=tls) as graph,
        FakeSmtp(starttls=tls, users={"apikey": SECRETS["SENDGRID_KEY"]}) as sendgrid_smtp,
        FakeSendGrid(key=SECRETS["SENDGRID_KEY"], verified=("stark.nl",), tls=tls) as sendgrid_api,
        FakeSmtp(
            starttls=tls, mechanisms=("XOAUTH2",), bearer=lambda _mailbox, token: entra.knows(token, OUTLOOK)
        ) as outlook,
        FakeMailgun(key=SECRETS["MAILGUN_KEY"], domain="mg.tyrell.nl", tls=tls) as mailgun,
        FakeCampaignMonitor(key=SECRETS["CM_KEY"], tls=tls) as monitor,
        FakeSmtp(starttls=tls) as own_server,
    ):
        (folder / "dkim.pem").write_bytes(new_signing_key())
        (folder / "dkim.pem").chmod(0o600)
        routes = f"""\
upstreams:
  acme-login: {{type: smtp, host: localhost, port: {login.port}, username: acme, password: "env:ACME_PASSWORD"}}
  globex-365: {{type: connector, host: localhost, port: {tenant.port}}}
  initech-graph: {{type: graph, tenant: {entra.tenant}, client_id: {entra.client_id}, client_secret: "env:ENTRA_SECRET",
                  authority: "{entra.authority}", base_url: "{graph.base_url}"}}
  our-sendgrid: {{type: sendgrid, host: localhost, port: {sendgrid_smtp.port}, api_key: "env:SENDGRID_KEY"}}
  sendgrid-api: {{type: sendgrid, method: api, base_url: "{sendgrid_api.url}", api_key: "env:SENDGRID_KEY"}}
  cyberdyne-oauth: {{type: smtp_oauth, tenant: {entra.tenant}, client_id: {entra.client_id},
                    client_secret: "env:ENTRA_SECRET", authority: "{entra.authority}", host: localhost,
                    port: {outlook.port}}}
  our-mailgun: {{type: mailgun, domain: mg.tyrell.nl, base_url: "{mailgun.url}", api_key: "env:MAILGUN_KEY"}}
  our-cm: {{type: campaign_monitor, client_id: {monitor.client_id}, base_url: "{monitor.base_url}",
           api_key: "env:CM_KEY"}}
  our-server: {{type: smtp, host: localhost, port: {own_server.port}}}
  try-out: {{type: maildir, path: "{folder}/maildir"}}
routes:
  - {{from: acme.nl, via: acme-login}}
  - {{from: globex.nl, via: globex-365}}
  - {{from: initech.nl, via: initech-graph}}
  - {{from: umbrella.nl, via: our-sendgrid}}
  - {{from: stark.nl, via: sendgrid-api}}
  - {{from: hooli.nl, via: acme-login, sender: {{address: hooli@callcenter.nl, name: Hooli}}}}
  - {{from: cyberdyne.nl, via: cyberdyne-oauth}}
  - {{from: tyrell.nl, via: our-mailgun}}
  - {{from: wonka.nl, via: our-cm}}
  - from: soylent.nl
    via: our-server
    dkim: {{domain: soylent.nl, selector: callpro, key: "file:{folder}/dkim.pem"}}
  - {{from: "*.example", via: try-out}}
  - {{from: "<>", via: our-server}}
tests:
  - {{from: info@acme.nl, via: acme-login}}
  - {{from: x@unknown.nl, refused: true}}
"""
        ways = (
            Way("info@acme.nl", "info@acme.nl", "the customer's SMTP server, with a login", smtp_arrivals(login)),
            Way("info@globex.nl", "info@globex.nl", "a Microsoft 365 connector", smtp_arrivals(tenant)),
            Way("info@initech.nl", "info@initech.nl", "Microsoft Graph", graph_arrivals(graph)),
            Way("info@umbrella.nl", "info@umbrella.nl", "SendGrid by SMTP", smtp_arrivals(sendgrid_smtp)),
            Way("info@stark.nl", "info@stark.nl", "SendGrid by its API", sendgrid_arrivals(sendgrid_api)),
            Way("info@hooli.nl", "hooli@callcenter.nl", "the same server, from our mailbox", smtp_arrivals(login)),
            Way("info@cyberdyne.nl", "info@cyberdyne.nl", "SMTP with OAuth", smtp_arrivals(outlook)),
            Way("info@tyrell.nl", "info@tyrell.nl", "Mailgun", mailgun_arrivals(mailgun)),
            Way("info@wonka.nl", "info@wonka.nl", "Campaign Monitor", monitor_arrivals(monitor), inline=False),
            Way("info@soylent.nl", "info@soylent.nl", "our own server, signed with DKIM", signed_arrivals(own_server)),
            Way("info@new.example", "info@new.example", "a folder, to try things out", maildir_arrivals(folder)),
        )
        yield Street(routes, ways, authority)


def new_signing_key() -> bytes:
    """An RSA-2048 key in PEM, as a customer's DKIM key would lie in the secrets folder."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def smtp_arrivals(server: FakeSmtp) -> Arrivals:
    return lambda: [(mail.sender, mail.recipients) for mail in server.received]


def graph_arrivals(server: FakeGraph) -> Arrivals:
    return lambda: [(mail.mailbox, tuple(mail.recipients)) for mail in server.sent]


def signed_arrivals(server: FakeSmtp) -> Arrivals:
    """Only mail that carries our signature counts."""
    return lambda: [
        (mail.sender, mail.recipients) for mail in server.received if mail.content.startswith(b"DKIM-Signature:")
    ]


def sendgrid_arrivals(server: FakeSendGrid) -> Arrivals:
    return lambda: by_mail((copy.message_id, copy.mail["from"]["email"], copy.recipient) for copy in server.delivered)


def mailgun_arrivals(server: FakeMailgun) -> Arrivals:
    return lambda: by_mail(
        (copy.message_id, parseaddr(mails.header(copy.message, "From"))[1], copy.recipient) for copy in server.delivered
    )


def monitor_arrivals(server: FakeCampaignMonitor) -> Arrivals:
    """Campaign Monitor has an id for every recipient; the subject tells which mail it was."""
    return lambda: by_mail(
        (copy.mail["Subject"], parseaddr(copy.mail["From"])[1], copy.recipient) for copy in server.delivered
    )


def by_mail(copies: Iterable[tuple[str, str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    """Copies (id of the mail, sender, recipient) gathered to mails."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for mail, sender, recipient in copies:
        found[mail, sender] = (*found.get((mail, sender), ()), recipient)
    return [(sender, recipients) for (_, sender), recipients in found.items()]


def maildir_arrivals(folder: Path) -> Arrivals:
    def arrivals() -> list[tuple[str, tuple[str, ...]]]:
        if not (folder / "maildir" / "new").is_dir():
            return []
        found = mailbox.Maildir(folder / "maildir", create=False)
        return [
            (str(mail["Return-Path"]).strip("<> "), tuple(map(str, mail.get_all("X-Envelope-To", []))))
            for mail in found
        ]

    return arrivals


def send(port: int, way: Way, recipients: tuple[str, ...]) -> None:
    """One mail as CallPro would send it: text, HTML with an inline image, a PDF, and a blind copy."""
    content = (mails.rich if way.inline else mails.plain)(way.sender, f"Jan Jansen <{recipients[0]}>")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail(way.sender, recipients, content)


def has(way: Way, recipients: tuple[str, ...]) -> bool:
    """The look-alike has the mail: the expected sender, and the envelope's recipients, nobody else."""
    return any(
        sender == way.seen_as and sorted(",".join(got).replace(" ", "").split(",")) == sorted(recipients)
        for sender, got in way.arrivals()
    )


def show(event: Event) -> None:
    """A line of the relay's log as the terminal shows it."""
    words = {key: value for key, value in event.items() if key not in ("time", "level", "room", "event")}
    line = " ".join(f"{key}={value}" for key, value in words.items())
    over = "\r\x1b[K" if is_terminal(sys.stdout) else ""  # the bar may stand on this line
    print(over + f"   relay | {event['event']:<10} {line}"[:220], flush=True)


async def demo(once: bool) -> int:
    """Run it; the exit code."""
    with tempfile.TemporaryDirectory(prefix="callpro-relay-demo-") as name:
        folder = Path(name)
        async with look_alikes(folder) as street:
            token = secrets.token_hex(12)
            environment = {**SECRETS, "STATUS_TOKEN": token, "SSL_CERT_FILE": str(street.authority.bundle)}
            async with RelayProcess(
                folder / "etc", street.routes, extra=STATUS, environment=environment, watch=show
            ) as relay:
                good = await send_all(relay.port, street.ways) and await refuses(relay.port)
                page = f"http://{(await relay.event('status_listening'))['address']}/"
                good = await shows(page, street.ways) and good
                if once:
                    return 0 if good else 1
                print(
                    f"\nThe relay listens on 127.0.0.1:{relay.port}; its files are in {folder}/etc. Send it mail, e.g.:"
                )
                print(f"   swaks --server 127.0.0.1:{relay.port} --from you@new.example --to someone@example.org")
                print(f"Its status page: {page}   To act there, log in with the token {token}")
                print("Ctrl-C ends everything and takes the files away.", flush=True)
                await asyncio.Event().wait()
    return 0


async def until_told(once: bool) -> int:
    """The demo, ended as by Ctrl-C when its terminal is closed or somebody kills it."""
    running = asyncio.ensure_future(demo(once))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await running
    return 0


async def send_all(port: int, ways: tuple[Way, ...]) -> bool:
    """One mail by every way; prints where each arrived. True when all did."""
    print("One mail by every route, sent with an ordinary SMTP client:", flush=True)
    sent: list[tuple[Way, tuple[str, ...]]] = []
    deadline = time.monotonic() + 30
    with Progress("mails arrived", len(ways)) as progress:
        while (done := sum(has(way, to) for way, to in sent)) < len(ways) and time.monotonic() < deadline:
            progress.to(done)
            if len(sent) == len(ways):
                await asyncio.sleep(0.05)
                continue
            way, number = ways[len(sent)], len(sent)
            recipients = (f"jan{number}@example.org", f"stil{number}@example.org")
            await asyncio.to_thread(send, port, way, recipients)
            sent.append((way, recipients))
    print("\nWhere each arrived:")
    for way, recipients in sent:
        mark = "arrived    " if has(way, recipients) else "NOT ARRIVED"
        rewritten = f" as {way.seen_as}" if way.seen_as != way.sender else ""
        print(f"   {mark} {way.sender}{rewritten} -> {way.place}: {', '.join(recipients)}", flush=True)
    return all(has(way, recipients) for way, recipients in sent)


async def shows(page: str, ways: tuple[Way, ...]) -> bool:
    """The status page counts the mail of every route. True when it does."""
    async with httpx.AsyncClient(timeout=30) as browser:
        answer = await browser.get(f"{page}volumes?period=hour")
    good = answer.status_code == 200 and all(way.sender.partition("@")[2] in answer.text for way in ways)
    print(f"   {'shown' if good else 'NOT SHOWN':<11} on the status page: every route's mail", flush=True)
    return good


async def refuses(port: int) -> bool:
    """A sender that no rule names is refused at MAIL FROM. True when it was."""

    def ask() -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.ehlo()
            code, text = client.mail("x@unknown.nl")
            return code, text.decode()

    code, text = await asyncio.to_thread(ask)
    print(f"   {'refused' if code == 550 else 'NOT REFUSED':<11} x@unknown.nl: {code} {text}", flush=True)
    return code == 550


def main() -> int:
    parser = argparse.ArgumentParser(description="The relay beside look-alike upstreams of every kind.")
    parser.add_argument("--once", action="store_true", help="end by itself; exit 0 only when every mail arrived")
    return asyncio.run(until_told(parser.parse_args().once))


if __name__ == "__main__":
    sys.exit(main())
