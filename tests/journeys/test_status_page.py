"""The status page of the real relay, over HTTP: what it shows, whom it believes, and what orders it takes."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails
from tests.waiting import until

TOKEN = "0123456789abcdef0123"
HOSTILE = "451 4.3.0 <script>alert(1)</script> \"'><img src=x onerror=alert(2)> \u202egnp.exe é"


@dataclass
class Page:
    """A relay with a page, an upstream for acme.nl that obeys, and one for globex.nl that wants a login."""

    relay: RelayProcess
    server: FakeSmtp
    browser: httpx.AsyncClient

    async def send(self, sender: str, to: str, event: str) -> str:
        seen = len(self.relay.events)
        said = await clients.smtplib(self.relay.port, sender, [to], mails.plain("info@acme.nl", "x@example.nl"))
        assert said.code == 0, said.text
        await self.relay.event(event, after=seen)
        number = str((await self.relay.event("accepted", after=seen))["mail"])
        assert (await self.browser.get(f"/mail/{number}")).status_code == 200  # at once, not when the file has it
        return number

    async def get(self, path: str, **headers: str) -> str:
        answer = await self.browser.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def shown(self, path: str, *texts: str) -> str:
        """The page once it shows these: what becomes of a mail is in the file a moment after it is in the log."""

        async def found() -> str | None:
            text = html.unescape(await self.get(path))
            return text if all(re.search(one, text) for one in texts) else None

        return str(await until(found, f"{texts} on {path}", every=0.2))

    async def log_in(self, name: str = "Jan") -> str:
        """The CSRF token of the session."""
        answer = await self.browser.post("/login", data={"token": TOKEN, "name": name})
        assert answer.status_code == 303, answer.text
        found = re.search(r'name="csrf" value="([^"]+)"', await self.get("/"))
        assert found
        return found[1]

    async def order(self, csrf: str, **fields: str) -> httpx.Response:
        return await self.browser.post("/order", data={"csrf": csrf, **fields})


@asynccontextmanager
async def opened(
    authority: Authority, folder: Path, *, token: bool = True, url: str | None = None
) -> AsyncIterator[Page]:
    tls = authority.server_context()
    replies = {"RCPT later@example.nl": HOSTILE, "RCPT weg@example.nl": "550 5.1.1 no such user"}
    login = {"MAIL": "530 5.7.0 login first"}
    async with FakeSmtp(starttls=tls, replies=replies) as server, FakeSmtp(starttls=tls, replies=login) as closed:
        routes = (
            f"upstreams:\n  up: {{type: smtp, host: localhost, port: {server.port}, expires: 2020-01-02}}\n"
            f"  bad: {{type: smtp, host: localhost, port: {closed.port}}}\n"
            f"  spare: {{type: smtp, host: localhost, port: {closed.port}, username: u, password: 'env:P'}}\n"
            "routes:\n  - {from: acme.nl, via: up, pace: {per_day: 500}}\n  - {from: globex.nl, via: bad}\n"
        )
        extra = "doctor: {every: 0s}\nstatus: {address: '127.0.0.1:0'" + (", token: 'env:T'}\n" if token else "}\n")
        environment = {"T": TOKEN, "P": "geheim-van-acme"}
        async with RelayProcess(folder / "r", routes, extra=extra, environment=environment, url=url) as relay:
            where = (await relay.event("status_listening"))["address"]
            async with httpx.AsyncClient(base_url=f"http://{where}", timeout=60) as browser:
                yield Page(relay, server, browser)


@pytest.fixture
def run(authority: Authority, tmp_path: Path) -> Callable[..., None]:
    def running(test: Callable[[Page], Awaitable[None]], **options: object) -> None:
        async def journey() -> None:
            async with opened(authority, tmp_path, **options) as page:
                await test(page)

        asyncio.run(journey())

    return running


def test_what_an_ops_person_asks_at_night_is_on_the_first_page(run):
    async def test(page: Page) -> None:
        await page.send("info@acme.nl", "jan@example.org", "delivered")
        await page.send("info@acme.nl", "weg@example.nl", "failed")
        waits = await page.send("info@acme.nl", "later@example.nl", "deferred")
        await page.send("info@globex.nl", "jan@example.org", "held")
        text = await page.shown(
            "/",
            "The relay works; needing attention: 2",
            "Route globex.nl cannot leave by bad",
            f'href="/mail/{waits}"',
            r"<b>4</b>\s*accepted in the last hour",  # and the report of weg@ makes five
        )
        assert "530 5.7.0 login first" in text
        assert "What to do" in text
        assert "of 500 recipients in 24 hours" in text
        dutch = html.unescape(await page.get("/", **{"Accept-Language": "nl-NL,nl;q=0.9"}))
        assert '<html lang="nl">' in dutch
        assert "Route globex.nl kan niet weg via bad" in dutch
        assert "Wat te doen" in dutch
        for period in ("hour", "day", "month"):
            text = await page.get(f"/volumes?period={period}")
            assert 'class="delivered"' in text
            assert "<svg" in text
        calendar = html.unescape(await page.get("/calendar"))
        assert "up (" in calendar
        assert "2020-01-02" in calendar
        assert "stated by `expires:`" in calendar
        assert "ended" in html.unescape(await page.get("/"))
        rules = html.unescape(await page.get("/rules"))
        assert re.search(r"routes\.yaml:6", rules)
        assert re.search(r"routes\.yaml:2", rules)
        assert "env:P" in rules
        assert "geheim" not in rules

    run(test)


def test_a_refused_reload_stands_on_the_page_until_one_counts(run):
    async def test(page: Page) -> None:
        good = (page.relay.folder / "routes.yaml").read_text("utf-8")
        page.relay.write_routes(good + "  - {from: acme.nl, via: nowhere}\n")
        assert (await page.relay.reload())["event"] == "reload_refused"
        for path in ("/", "/rules"):
            assert "The last reload was refused; older rules count" in await page.get(path)
        await asyncio.sleep(1.1)
        assert re.search(r"^callpro_relay_reload_ok 0\.0$", await page.get("/metrics"), re.MULTILINE)
        page.relay.write_routes(good + "  - {from: hooli.nl, via: up}\n")
        assert (await page.relay.reload())["event"] == "reloaded"
        assert "The last reload was refused" not in await page.get("/")
        rules = html.unescape(await page.get("/rules"))
        assert "Changed by the last reload" in rules
        assert "added" in rules
        await asyncio.sleep(1.1)
        assert re.search(r"^callpro_relay_reload_ok 1\.0$", await page.get("/metrics"), re.MULTILINE)

    run(test)


def test_mail_is_found_by_recipient_domain_sender_and_id(run):
    async def test(page: Page) -> None:
        number = await page.send("info@acme.nl", "later@example.nl", "deferred")
        for query in (
            "q=LATER@example.nl",
            "q=@example.nl",
            "q=example.nl",
            "q=info@acme.nl&by=sender",
            "q=acme.nl&by=sender",
        ):
            assert f"/mail/{number}" in await page.get(f"/mails?{query}"), query
        assert f"/mail/{number}" not in await page.get("/mails?q=nobody@example.nl")
        found = await page.browser.get(f"/mails?q={number.lower()}")
        assert (found.status_code, found.headers["location"]) == (303, f"/mail/{number}")
        story = await page.get(f"/mail/{number}")
        assert "received" in story
        assert "later@example.nl" in story
        assert (await page.browser.get("/mails?q=")).status_code == 303
        for path in ("/mail/0000000000000", "/mail/x", "/mail/../../etc/passwd", "/nope", "/style.css/x", "/mail/%00"):
            assert (await page.browser.get(path)).status_code == 404, path

    run(test)


def test_a_long_queue_goes_on_from_page_to_page(run):
    async def test(page: Page) -> None:
        csrf = await page.log_in()
        assert (await page.order(csrf, action="hold", route="acme.nl")).status_code == 303
        ids = [await page.send("info@acme.nl", "jan@example.org", "accepted") for _ in range(55)]
        path, seen = "/mails?route=acme.nl", []
        while path:
            text = await page.get(path)
            seen += re.findall(r'class="id" href="/mail/(\w+)"', text)
            more = re.search(r'href="([^"]+after=[^"]+)"', text)
            path = html.unescape(more[1]) if more else ""
        assert seen == ids

    run(test)


def test_what_strangers_wrote_is_only_text(run):
    async def test(page: Page) -> None:
        sender, to = '"<script>alert(3)</script>"@acme.nl', "later@example.nl"
        number = await page.send(sender, to, "deferred")
        csrf = await page.log_in('<b onmouseover="alert(4)">')
        await page.order(csrf, action="hold", mail=number, reason='"><script>alert(5)</script>')
        paths = ("/", f"/mail/{number}", "/mails", "/orders", "/mails?q=%3Cscript%3Ealert(6)%3C/script%3E@x.nl")
        for path in paths:
            text = await page.get(path)
            assert "alert(" in text, path
            live = r"<script(?! src=\"/page\.js\" defer>)|<img|<b on|<[a-z]+ [^>]*onerror"
            assert not re.search(live, text), path
            assert "<script>alert" not in text
            assert "\u202e" not in text
        assert "é" in await page.get(f"/mail/{number}")
        answer = await page.browser.get("/nope?x=<script>")
        assert "<script>" not in answer.text.replace('<script src="/page.js" defer></script>', "")

    run(test)


def test_every_answer_carries_the_rules_for_browsers(run):
    async def test(page: Page) -> None:
        for path in ("/", "/nope", "/style.css", "/metrics", "/login"):
            headers = (await page.browser.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
        text = await page.get("/")
        assert not re.search(r"\sstyle=|\son\w+=|<style", text)  # nothing that the policy would stop

    run(test)


def test_without_the_token_nothing_can_be_done(run):
    async def test(page: Page) -> None:
        number = await page.send("info@acme.nl", "later@example.nl", "deferred")
        assert "/order" not in (await page.get(f"/mail/{number}")).replace("/orders", "")
        for data in (
            {"action": "drop", "mail": number, "sure": "yes"},
            {"action": "hold", "route": "acme.nl", "csrf": ""},
        ):
            assert (await page.browser.post("/order", data=data)).status_code == 403
        assert (await page.browser.post("/login", data={"token": "guess"})).status_code == 403
        await page.relay.event("status_login_refused")
        csrf = await page.log_in()
        for wrong in ("", "x", csrf[:-1]):
            assert (await page.order(wrong, action="drop", mail=number, sure="yes")).status_code == 403
        host = str(page.browser.base_url.netloc, "ascii")
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            data = {"action": "drop", "mail": number, "sure": "yes", "csrf": csrf}
            assert (await page.browser.post("/order", data=data, headers=headers)).status_code == 403
            assert (await page.browser.post("/login", data={"token": TOKEN}, headers=headers)).status_code == 403
        assert (await page.browser.get(f"/order?action=drop&mail={number}&sure=yes&csrf={csrf}")).status_code == 404
        assert number in await page.get("/mails")
        good = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        data = {"action": "drop", "mail": number, "sure": "yes", "csrf": csrf}
        assert (await page.browser.post("/order", data=data, headers=good)).status_code == 303
        assert number not in await page.get("/mails")

    run(test)


def test_a_page_without_a_token_has_no_door(run):
    async def test(page: Page) -> None:
        assert "status.token" in await page.get("/login")
        assert (await page.browser.post("/login", data={"token": ""})).status_code == 403

    run(test, token=False)


def test_orders_are_carried_out_and_written_down(run):
    async def test(page: Page) -> None:
        number = await page.send("info@acme.nl", "later@example.nl", "deferred")
        csrf = await page.log_in("Jan de Vries")
        answer = await page.order(csrf, action="hold", mail=number, reason="wacht even")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/mail/{number}")
        event = await page.relay.event("order_hold")
        assert (event["who"], event["why"]) == ("Jan de Vries (status page, 127.0.0.1)", "wacht even")
        told = await page.get(f"/mail/{number}")
        assert "Done: 1." in told
        assert "wacht even" in told
        assert "Done: 1." not in await page.get(f"/mail/{number}")  # it is told once
        await page.order(csrf, action="release", mail=number)
        seen = len(page.relay.events)
        await page.order(csrf, action="retry", mail=number)
        await page.relay.event("order_retry", after=seen)
        await page.relay.event("deferred", after=seen)
        await page.order(csrf, action="hold", route="acme.nl")
        asked = await page.order(csrf, action="drop", route="acme.nl")
        assert "Drop 1 mails?" in asked.text
        assert number in await page.get("/mails")
        await page.order(csrf, action="drop", route="acme.nl", sure="yes", reason="dubbel")
        assert number not in await page.get("/mails")
        refused = await page.order(csrf, action="hold", route="nowhere.nl")
        assert (refused.status_code, "there is no route nowhere.nl" in refused.text) == (409, True)
        wrong = [{"action": "explode", "route": "x"}, {"action": "drop"}, {"action": "hold", "mail": "../x"}]
        wrong += [{"action": "hold", "route": "a", "mail": number}, {"action": "holds", "route": "acme.nl"}]
        for fields in wrong:
            assert (await page.order(csrf, **fields)).status_code == 400
        await page.browser.post("/logout", data={"csrf": csrf})
        assert (await page.order(csrf, action="release", route="acme.nl")).status_code == 403
        # The record outlives the relay, and has the orders of the command line too.
        await page.relay.stop()
        assert (await page.relay.command("queue", "release", "--route", "acme.nl"))[0] == 0
        await page.relay.start()
        where = (await page.relay.event("status_listening", after=len(page.relay.events) - 3))["address"]
        async with httpx.AsyncClient(timeout=60) as browser:
            text = html.unescape((await browser.get(f"http://{where}/orders")).text)
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(<td.*?)</tr>", text)]
        words = [re.sub(r"<[^>]+>", "", row[1]) for row in rows]
        assert words == ["release", "drop", "hold", "retry", "release", "hold"]
        assert "dubbel" in rows[1][4]
        assert "Jan de Vries (status page" in rows[1][3]
        assert "Jan" not in rows[0][3]

    run(test)


def test_the_page_and_the_metrics_are_the_same_on_postgresql(run, database):
    async def test(page: Page) -> None:
        await page.send("info@acme.nl", "jan@example.org", "delivered")
        number = await page.send("info@acme.nl", "later@example.nl", "deferred")
        await page.send("info@globex.nl", "jan@example.org", "held")
        csrf = await page.log_in()
        assert (await page.order(csrf, action="hold", mail=number, reason="wacht even")).status_code == 303
        assert f"/mail/{number}" in await page.get("/mails?q=example.nl")
        assert "wacht even" in await page.get(f"/mail/{number}")
        await page.shown("/", r"<b>3</b>\s*accepted in the last hour")
        assert "acme.nl" in await page.get("/volumes?period=month")
        assert "wacht even" in await page.get("/orders")
        assert (await page.order(csrf, action="drop", mail=number, sure="yes")).status_code == 303
        assert "dropped" in await page.get(f"/mail/{number}")
        metrics = await page.get("/metrics")
        assert re.search(r"^callpro_relay_ready 1\.0$", metrics, re.MULTILINE)
        assert re.search(r'^callpro_relay_queue_mails\{route="globex\.nl"\} 1\.0$', metrics, re.MULTILINE)

    run(test, url=database)


def test_the_language_switch_stays_and_leads_nowhere_else(run):
    async def test(page: Page) -> None:
        answer = await page.browser.get("/volumes?lang=nl&period=hour")
        assert (answer.status_code, answer.headers["location"]) == (303, "/volumes?period=hour")
        assert "Aantallen" in await page.get("/volumes")
        for path in ("//evil.example?lang=en", "/%0d%0aX:%20y?lang=en", "/\\evil.example?lang=en"):
            where = (await page.browser.get(path)).headers["location"]
            assert re.match(r"/(?![/\\])", where), where

    run(test)


def test_an_unreadable_spool_and_nonsense_are_told_and_break_nothing(run):
    async def test(page: Page) -> None:
        spool = page.relay.folder / "spool.db"
        spool.rename(spool.with_name("away.db"))
        answer = await page.browser.get("/")
        assert answer.status_code == 503
        assert "cannot be read" in answer.text
        spool.with_name("away.db").rename(spool)
        csrf = await page.log_in()
        assert (await page.browser.post("/order", content=b"\xff\xfe" * 10)).status_code == 400
        assert (await page.browser.post("/order", content=b"a=1&" * 100)).status_code == 400
        assert (await page.browser.post("/order", content=b"x" * 70_000)).status_code == 413
        assert (await page.browser.post("/nope", data={"csrf": csrf})).status_code == 404
        assert (await page.browser.put("/")).status_code == 405
        assert (await page.browser.head("/")).status_code == 200
        await page.get("/")
        bugs = [event for event in page.relay.events if event["room"] in ("http", "status")]
        assert not [event for event in bugs if event["level"] == "error"]

    run(test)
