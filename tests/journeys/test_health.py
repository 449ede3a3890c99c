"""What a monitor sees: /healthz, /readyz and /metrics of the real relay, in good days and bad."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import httpx

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails
from tests.waiting import until

TO = "jan@example.org"
STATUS = "status: {address: '127.0.0.1:0'}\n"


def routes(server: FakeSmtp) -> str:
    return (
        f"upstreams:\n  up: {{type: smtp, host: localhost, port: {server.port}, pace: {{per_day: 1000}}}}\n"
        "routes:\n  - {from: acme.nl, via: up}\n  - {from: '*.example', via: up}\n"
    )


async def status_url(relay: RelayProcess) -> str:
    return f"http://{(await relay.event('status_listening'))['address']}"


def sample(text: str, line: str) -> float:
    """The number behind a metric and its labels."""
    found = re.search(rf"^{re.escape('callpro_relay_' + line)} (\S+)$", text, re.MULTILINE)
    assert found, f"no {line} in:\n{text}"
    return float(found[1])


async def send(relay: RelayProcess, sender: str, to: str = "jan@example.org") -> None:
    assert (await clients.smtplib(relay.port, sender, [to], mails.plain(sender, to))).code == 0


def test_the_metrics_tell_what_went_through(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        replies = {"RCPT weg@example.nl": "550 5.1.1 no such user", "RCPT later@example.nl": "451 4.3.0 later"}
        async with (
            FakeSmtp(starttls=authority.server_context(), replies=replies) as server,
            RelayProcess(tmp_path / "r", routes(server), extra=STATUS) as relay,
            httpx.AsyncClient(base_url=await status_url(relay), timeout=60) as browser,
        ):
            for sender, to, end in (
                ("info@acme.nl", "jan@example.org", "delivered"),
                ("info@acme.nl", "weg@example.nl", "failed"),
                ("info@acme.nl", "later@example.nl", "deferred"),
                *((f"x@customer{number}.example", "jan@example.org", "delivered") for number in range(3)),
            ):
                seen = len(relay.events)
                await send(relay, sender, to)
                await relay.event(end, after=seen)
            await clients.smtplib(
                relay.port, "x@unknown.nl", ["jan@example.org"], mails.plain("x@unknown.nl", "j@x.nl")
            )
            answer = await browser.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            text = answer.text
            assert sample(text, "ready") == 1
            assert sample(text, 'accepted_mails_total{route="acme.nl"}') == 3
            assert sample(text, 'accepted_mails_total{route="*.example"}') == 3
            assert sample(text, 'delivered_recipients_total{route="*.example"}') == 3
            assert sample(text, 'failed_recipients_total{route="acme.nl"}') == 1
            assert sample(text, 'deferred_recipients_total{route="acme.nl"}') == 1
            assert sample(text, 'queue_mails{route="acme.nl"}') == 1
            assert sample(text, 'delivery_seconds_count{route="*.example"}') == 3
            assert sample(text, 'attempt_outcomes_total{outcome="sent",upstream="up"}') >= 4
            assert sample(text, 'refused_replies_total{status="5.7.1"}') == 1
            assert sample(text, 'way_held{route="acme.nl",upstream="up"}') == 0
            assert sample(text, 'quota_limit_recipients{account="upstream up"}') == 1000
            assert sample(text, "spool_bytes") > 0
            assert re.search(r"^process_resident_memory_bytes ", text, re.MULTILINE)
            assert "customer1" not in text
            assert "jan@" not in text

    asyncio.run(journey())


def test_ready_is_true_only_while_mail_is_taken(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", routes(server), extra=STATUS) as relay,
            httpx.AsyncClient(base_url=await status_url(relay), timeout=60) as browser,
        ):
            for path in ("/healthz", "/readyz"):
                answer = await browser.get(path)
                assert (answer.status_code, answer.json()["ok"]) == (200, True), answer.text
            # The disk loses the spool: alive is no more than ready, and both say why.
            spool = tmp_path / "r" / "spool.db"
            spool.rename(spool.with_name("away.db"))
            for path in ("/healthz", "/readyz"):
                await _until(browser, path, 503)
                assert "gone" in (await browser.get(path)).json()["checks"]["spool"]
            spool.with_name("away.db").rename(spool)
            await _until(browser, "/readyz", 200)
            # A client in the middle of a mail keeps the drain open: it is alive, and not ready.
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"EHLO x\r\nMAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.org>\r\nDATA\r\n")
            await reader.readuntil(b"\r\n354 ")
            relay.signal(signal.SIGTERM)
            await relay.event("stopping")
            ready, healthy = await asyncio.gather(browser.get("/readyz"), browser.get("/healthz"))
            assert (ready.status_code, ready.json()["checks"]["phase"]) == (503, "draining")
            assert healthy.status_code == 200
            writer.close()
            await relay.event("stopped")

    asyncio.run(journey())


def test_a_full_spool_is_alive_and_not_ready(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context(), replies={"RCPT jan@example.org": "451 later"}) as server,
            RelayProcess(tmp_path / "r", routes(server), extra=STATUS + "limits: {spool_size: 4KB}\n") as relay,
            httpx.AsyncClient(base_url=await status_url(relay), timeout=60) as browser,
        ):
            said = await clients.smtplib(relay.port, "info@acme.nl", [TO], mails.plain("info@acme.nl", TO))
            while said.code == 0:
                said = await clients.smtplib(relay.port, "info@acme.nl", [TO], mails.plain("info@acme.nl", TO))
            answer = await browser.get("/readyz")
            assert answer.status_code == 503
            assert "takes no new mail" in answer.json()["checks"]["spool"]
            assert (await browser.get("/healthz")).status_code == 200

    asyncio.run(journey())


def test_a_taken_port_costs_the_page_and_no_mail(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp(starttls=authority.server_context()) as server:
            taken = f"status: {{address: '127.0.0.1:{server.port}'}}\n"
            async with RelayProcess(tmp_path / "r", routes(server), extra=taken) as relay:
                event = await relay.event("status_unavailable")
                assert f"cannot listen on 127.0.0.1:{server.port}" in str(event["error"])
                await send(relay, "info@acme.nl")
                await relay.event("delivered")

    asyncio.run(journey())


def test_a_name_that_is_not_ours_reads_nothing(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp(starttls=authority.server_context()) as server,
            RelayProcess(tmp_path / "r", routes(server), extra=STATUS) as relay,
            httpx.AsyncClient(base_url=await status_url(relay), timeout=60) as browser,
        ):
            for path in ("/", "/metrics", "/readyz"):
                assert (await browser.get(path, headers={"Host": "rebound.example"})).status_code == 421
            assert (await browser.post("/metrics")).status_code == 405
            assert (await browser.head("/metrics")).status_code == 200

    asyncio.run(journey())


async def _until(browser: httpx.AsyncClient, path: str, status: int) -> None:
    async def said() -> bool:
        return (await browser.get(path)).status_code == status

    await until(said, f"{status} for {path}", every=0.1)
