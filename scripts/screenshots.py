"""The pictures of docs/status-page.md: the real relay with a day behind it and some trouble, seen by a real Chromium.

Run as `python -m scripts.screenshots` after scripts/peers. The pictures differ a little each time, for time goes on.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from pathlib import Path
from random import Random

from spool.sqlite import SqliteSpool
from spool.view import GivenOrder, Volume
from tests.fakes.authority import Authority
from tests.fakes.browser import Browser, chromium
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "images"
CUSTOMERS = (("acme.nl", 900), ("globex.nl", 400), ("initech.nl", 250), ("umbrella.nl", 120), ("hooli.nl", 60))
NO_LOGIN = "535 5.7.3 Authentication unsuccessful [AM0PR02CA0001.eurprd02.prod.outlook.com]"
NO_MAILBOX = "550 5.1.1 <oud@example.org>: no such mailbox"
BUSY = "451 4.7.500 Server busy. Please try again later from [203.0.113.10]."


def past(now: float) -> list[Volume]:
    """A month of office days."""
    chance, found = Random(7), []
    for hour in range(31 * 24):
        at = now - (hour + 1) * 3600.0
        clock = time.localtime(at)
        busy = math.exp(-(((clock.tm_hour - 13) / 4.0) ** 2)) * (0.12 if clock.tm_wday > 4 else 1.0)
        for customer, most in CUSTOMERS:
            count = round(most * busy * chance.uniform(0.6, 1.2) / 8)
            failed = sum(chance.random() < 0.012 for _ in range(count))
            found.append(Volume(at, customer, customer, count, count, count - failed, failed))
    return found


async def fill(spool_file: Path) -> None:
    now = time.time()
    spool = await SqliteSpool.open(f"sqlite:///{spool_file}", size_limit=1 << 30)
    await spool.tally(past(now))
    for minutes, who, action, subject, reason in (
        (2900, "Sanne (status page, 127.0.0.1)", "drop", "route hooli.nl, to @example.com", "sent twice"),
        (95, "jan (as root)", "hold", "route umbrella.nl", "wrong attachment in the campaign"),
    ):
        await spool.record(
            GivenOrder(now - minutes * 60, who, action, subject, reason, 12 if action == "drop" else 1, 0)
        )
    await spool.close()


async def shoot() -> None:
    with tempfile.TemporaryDirectory(prefix="callpro-relay-pictures-") as name:
        folder = Path(name)
        authority = Authority(folder)
        os.environ["SSL_CERT_FILE"] = str(authority.bundle)
        tls = authority.server_context()
        replies = {
            "RCPT klant@example.org": BUSY,
            "RCPT oud@example.org": "550 5.1.1 <oud@example.org>: no such mailbox",
        }
        async with (
            FakeSmtp(starttls=tls, replies=replies) as good,
            FakeSmtp(starttls=tls, users={"callpro": "other"}, replies={"AUTH": NO_LOGIN}) as bad,
        ):
            etc = folder / "etc" / "callpro-relay"
            relay = RelayProcess(
                etc, rules(good.port, bad.port), extra=EXTRA, environment={"T": "t" * 24, "P": "geheim"}
            )
            await fill(etc / "spool.db")
            async with relay:
                await trouble(relay)
                where = (await relay.event("status_listening"))["address"]
                await asyncio.to_thread(pictures, f"http://{where}")


EXTRA = "status: {address: '127.0.0.1:0', token: 'env:T'}\n"


def rules(good: int, bad: int) -> str:
    return f"""\
upstreams:
  acme-login: {{type: smtp, host: localhost, port: {good}, pace: {{per_day: 2000}}}}
  globex-login: {{type: smtp, host: localhost, port: {bad}, username: callpro, password: "env:P"}}
  our-server: {{type: smtp, host: localhost, port: {good}}}
routes:
  - {{from: acme.nl, via: [acme-login, our-server]}}
  - {{from: globex.nl, via: globex-login}}
  - {{from: initech.nl, via: our-server, pace: {{per_minute: 30, concurrency: 4}}}}
  - {{from: umbrella.nl, via: our-server, sender: {{address: umbrella@callcenter.nl, name: Umbrella}}}}
  - {{from: hooli.nl, via: our-server}}
"""


async def trouble(relay: RelayProcess) -> None:
    """Some mail of every kind of fate."""
    await relay.command("queue", "hold", "--route", "umbrella.nl", "--reason", "verkeerde bijlage in de campagne")
    for sender, to, event in (
        ("info@acme.nl", "jan@example.org", "delivered"),
        ("planning@acme.nl", "klant@example.org", "deferred"),
        ("info@hooli.nl", "oud@example.org", "failed"),
        ("service@globex.nl", "piet@example.org", "held"),
        ("service@globex.nl", "els@example.org", "accepted"),
        ("info@umbrella.nl", "kees@example.org", "accepted"),
    ):
        seen = len(relay.events)
        await clients.smtplib(relay.port, sender, [to], mails.plain(sender, to))
        await relay.event(event, after=seen)
    await asyncio.sleep(1)


def pictures(url: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    with chromium("en") as browser:
        browser.prefer("dark")
        browser.size(1180, 1330)
        take(browser, f"{url}/", "status-overview.png")
        browser.prefer("light")
        browser.size(1180, 760)
        take(browser, f"{url}/volumes?period=month", "status-volumes.png")
    with chromium("nl") as browser:
        browser.prefer("dark")
        browser.size(390, 844, phone=True)
        take(browser, f"{url}/login", "")
        browser.type("#token", "t" * 24)
        browser.type("#name", "Jan")
        browser.press("Inloggen")
        browser.sees("Uitloggen", "header")
        browser.size(390, 1240, phone=True)
        take(browser, f"{url}/", "status-phone.png")
        browser.open(f"{url}/mails?q=klant@example.org")
        browser.click(".mails .id")
        browser.sees("Verloop")
        take(browser, browser.url, "status-mail.png")


def take(browser: Browser, url: str, name: str) -> None:
    browser.open(url)
    if name:
        browser.picture(PICTURES / name)


if __name__ == "__main__":
    asyncio.run(shoot())
