"""The status page in a real Chromium: by day and night, on a phone, with scripts and without, and against strangers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.fakes.authority import Authority
from tests.fakes.browser import Browser, chromium
from tests.journeys.test_status_page import TOKEN, Page, opened

EVIL_SENDER = '"<script>alert(1)</script>"@acme.nl'


@pytest.fixture
def watch(authority: Authority, tmp_path: Path) -> Callable[..., None]:
    """Runs `look(browser, url)` in a thread, while a relay with some mail runs."""

    def running(look: Callable[[Browser, str, list[str]], None], languages: str = "en", url: str | None = None) -> None:
        async def journey() -> None:
            async with opened(authority, tmp_path, url=url) as page:
                ids = await some_mail(page)

                def in_thread() -> None:
                    with chromium(languages) as browser:
                        look(browser, str(page.browser.base_url), ids)

                await asyncio.to_thread(in_thread)

        asyncio.run(journey())

    return running


async def some_mail(page: Page) -> list[str]:
    await page.send("info@acme.nl", "jan@example.org", "delivered")
    ids = [await page.send(EVIL_SENDER, "later@example.nl", "deferred")]
    ids.append(await page.send("info@acme.nl", "later@example.nl", "deferred"))
    await page.send("info@globex.nl", "jan@example.org", "held")
    return ids


def log_in(browser: Browser, url: str) -> None:
    browser.open(f"{url}/login")
    browser.type("#token", TOKEN)
    browser.type("#name", "Jan")
    browser.press("Log in")
    browser.sees("Log out (Jan)", "header")


def test_no_stranger_writes_on_the_page_and_the_browser_has_nothing_to_complain_of(watch):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        log_in(browser, url)
        for path in (
            "/",
            "/mails",
            f"/mail/{ids[0]}",
            "/volumes",
            "/rules",
            "/orders",
            "/mails?q=<script>alert(9)</script>",
        ):
            browser.open(url + path)
            assert not browser.asks(), path
            assert browser.run("document.scripts.length") == 1, path
            assert browser.count("main script, main img") == 0
            browser.run("renew()")
            assert not browser.asks(), path
        browser.open(f"{url}/mail/{ids[0]}")
        assert "<script>alert(1)</script>" in browser.text("main")
        assert "<img src=x onerror=alert(2)>" in browser.text("main")
        assert browser.complaints() == []
        # The policy is real: what a hole would let in does not run.
        browser.run("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=x onerror=alert(3)>')")
        browser.run("new Promise((done) => setTimeout(done, 300))")
        assert not browser.asks()
        assert any("Content Security Policy" in complaint for complaint in browser.complaints())

    watch(look)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_somebody_at_night_holds_releases_and_drops(watch, scripts):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        if not scripts:
            browser.no_scripts()
        log_in(browser, url)
        browser.sees("Route globex.nl cannot leave by bad")
        browser.type("#q", "later@example.nl")
        browser.click(".search button")
        browser.sees("Mail to later@example.nl", "h1")
        assert browser.count(".mails .mail") == 2
        browser.press(ids[1])
        browser.sees("Message-ID")
        browser.type("main input[name=reason]", "wacht even")
        browser.press("Hold")
        browser.sees("Done: 1.", ".told")
        browser.sees("on hold by Jan", "dl")
        browser.press("Release")
        browser.sees("on hold", "dl", not_any_more=True)
        browser.press("Try now")
        browser.sees("Done: 1.", ".told")
        browser.press("Drop")
        browser.sees("Drop 1 mails?", "h1")
        browser.press("No, keep")
        browser.sees(ids[1], "h1")
        browser.press("Drop")
        browser.sees("Drop 1 mails?", "h1")
        browser.press("Yes, drop")
        browser.sees("dropped", "dl")
        browser.open(f"{url}/orders")
        browser.sees("wacht even", "tbody")
        assert browser.count("tbody tr") == 4
        browser.click("header button.quiet")
        browser.sees("Log in", "header")
        browser.open(f"{url}/mail/{ids[0]}")
        browser.sees("Message-ID")
        assert browser.count("main form") == 0

    watch(look)


def test_the_page_fits_a_phone_and_is_dark_at_night(watch):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        browser.size(390, 844, phone=True)
        for scheme, dark in (("dark", True), ("light", False)):
            browser.prefer(scheme)
            for path in (
                "/",
                "/volumes?period=month",
                "/mails",
                f"/mail/{ids[0]}",
                "/rules",
                "/calendar",
                "/orders",
                "/login",
            ):
                browser.open(url + path)
                wide = browser.run("document.documentElement.scrollWidth") - 390
                assert wide <= 0, f"{path} is {wide} pixels wider than the phone"
                back, ink = (brightness(browser, what) for what in ("backgroundColor", "color"))
                assert (back < 60) is dark
                assert abs(back - ink) > 150, "text must stand out"
                small = browser.run(
                    "[...document.querySelectorAll('button, input:not([type=hidden]), select')]"
                    ".filter((one) => one.getBoundingClientRect().height < 36 && one.offsetParent).length"
                )
                assert small == 0, f"{path} has {small} things too small for a thumb"

    watch(look)


def test_relays_that_share_a_spool_fit_on_a_phone_with_their_warnings(watch, database):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO callpro_relay.node (slot, name, machine, process, born, started_at, seen_at, lease, skew,"
                " version, rules) VALUES (60, 'relay-in-a-data-centre-far-away.callcenter.nl:4194304', 'm', 1, 'b',"
                " 1, extract(epoch FROM now()) + 600, 900, 90.5, '9.9.9', 'fedcba987654')"
            )
            told = "SELECT count(*) FROM callpro_relay.node WHERE rules <> ''"
            deadline = time.monotonic() + 60
            while connection.execute(told).fetchone() != (2,):  # the relay tells its rules with its next sign of life
                assert time.monotonic() < deadline
                time.sleep(0.1)
        browser.size(390, 844, phone=True)
        for path in ("/nodes", "/", "/?lang=nl", "/nodes"):
            browser.open(url + path)
            wide = browser.run("document.documentElement.scrollWidth") - 390
            assert wide <= 0, f"{path} is {wide} pixels wider than the phone"
            assert browser.count(".trouble .mend") >= 3, browser.text()
        assert "De regels van de relays verschillen" in browser.text("main")

    watch(look, url=database)


def brightness(browser: Browser, what: str) -> float:
    red, green, blue = map(int, re.findall(r"\d+", browser.run(f"getComputedStyle(document.body).{what}"))[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue


def test_the_page_renews_itself_but_not_under_somebodys_hands(watch):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        log_in(browser, url)
        browser.open(f"{url}/mails?route=acme.nl")
        browser.run("document.querySelector('main').dataset.old = 'yes'")
        browser.type("main input[name=reason]", "typing")
        browser.run("renew()")
        assert browser.run("document.querySelector('main').dataset.old") == "yes"
        browser.run("document.querySelector('main input[name=reason]').value = ''")
        browser.run("document.activeElement.blur()")
        browser.run("renew()")
        assert browser.run("document.querySelector('main').dataset.old || ''") == ""
        assert browser.count(".mails .mail") == 2

    watch(look)


def test_a_dutch_reader_reads_dutch_and_may_choose(watch):
    def look(browser: Browser, url: str, ids: list[str]) -> None:
        browser.open(f"{url}/volumes?period=month")
        assert "Aantallen, laatste maand" in browser.text("h1")
        browser.click(".languages a")
        browser.sees("Volumes, last month", "h1")
        browser.open(url)
        assert "Needs attention" in browser.text("main")

    watch(look, languages="nl,en")
