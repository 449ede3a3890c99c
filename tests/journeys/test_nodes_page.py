"""The page and the numbers about relays that share a spool: three real ones, one with other rules, one killed."""

from __future__ import annotations

import asyncio
import html
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import STALL, FakeSmtp
from tests.journeys import clients, mails
from tests.waiting import LONG

STATUS = "status: {address: '127.0.0.1:0'}\ndoctor: {every: 0s}\n"


def rules(port: int, more: str = "") -> str:
    return (
        f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\n"
        f"routes:\n  - {{from: acme.nl, via: up}}\n{more}"
    )


def name(relay: RelayProcess) -> str:
    """As it is known on the spool."""
    return f"{socket.gethostname()}:{relay.pid}"


async def shows(browser: httpx.AsyncClient, path: str, right: Callable[[str], bool], seconds: float = LONG) -> str:
    """What a reader sees of the page once it is right."""
    text = ""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = await browser.get(path)
                text = html.unescape(answer.text)
                if answer.status_code == 200 and right(text):
                    return text
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(text) from None


def number(metrics: str, what: str) -> float | None:
    found = re.search(rf"^callpro_relay_{what} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


def test_who_is_there_what_differs_and_who_is_gone(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with FakeSmtp(replies={".": STALL}) as server:
            good = rules(server.port)
            one, other, third = (
                RelayProcess(tmp_path / folder, good, url=database, extra=STATUS, spool_options=", lease: 6s")
                for folder in ("one", "other", "third")
            )
            async with one, other, third:
                where = (await one.event("status_listening"))["address"]
                async with httpx.AsyncClient(base_url=f"http://{where}", timeout=60) as browser:
                    text = await shows(browser, "/nodes", lambda text: "All give signs of life" in text)
                    assert "Relays on this spool: 3" in text
                    assert f'{name(one)}</bdi> <span class="dim">(this one)' in text
                    assert all(name(relay) in text for relay in (one, other, third))
                    assert 'href="/nodes"' in text
                    assert "No relay has mail under way." in text

                    sent = await clients.smtplib(other.port, "info@acme.nl", ["x@example.nl"], mails.plain("a", "b"))
                    assert sent.code == 0, sent.text
                    text = await shows(browser, "/nodes", lambda text: 'href="/mails?route=acme.nl"' in text)

                    third.write_routes(rules(server.port, "  - {from: globex.nl, via: up}\n"))
                    await third.reload()
                    words = f"Other rules than the others: {name(third)}"
                    text = await shows(browser, "/nodes", lambda text: words in text)
                    assert "systemctl reload callpro-relay" in text
                    text = await shows(browser, "/", lambda text: words in text)
                    assert "The relay works; needing attention: 1" in text
                    dutch = (await browser.get("/nodes", headers={"Accept-Language": "nl"})).text
                    assert f"Andere regels dan de rest: {name(third)}" in html.unescape(dutch)
                    text = await shows(browser, "/metrics", lambda text: number(text, "node_rules") == 2)
                    assert (number(text, "nodes"), number(text, "node_versions")) == (3, 1)
                    assert "Other rules than the others" in (await one.command("nodes"))[1]

                    silent = f"No sign of life of {name(third)}"
                    await third.stop(signal.SIGKILL)
                    text = await shows(browser, "/nodes", lambda text: silent in text)
                    assert ", late</td>" in text
                    text = await shows(browser, "/nodes", lambda text: name(third) not in text)
                    assert "Relays on this spool: 2" in text
                    text = await shows(browser, "/metrics", lambda text: number(text, "nodes") == 2)
                    assert (number(text, "node_rules"), number(text, "nodes_late")) == (1, 0)
                    server.hearing.set()

    asyncio.run(journey())


def test_a_relay_with_a_spool_of_its_own_has_no_such_page(tmp_path: Path) -> None:
    async def journey() -> None:
        async with RelayProcess(tmp_path / "r", rules(9), extra=STATUS) as relay:
            where = (await relay.event("status_listening"))["address"]
            async with httpx.AsyncClient(base_url=f"http://{where}", timeout=60) as browser:
                assert "This relay has its spool to itself." in (await browser.get("/nodes")).text
                assert 'href="/nodes"' not in (await browser.get("/")).text
                text = (await browser.get("/metrics")).text
                assert "# TYPE callpro_relay_nodes gauge" in text
                assert number(text, "nodes") is None

    asyncio.run(journey())
