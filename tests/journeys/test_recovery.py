"""Journeys through trouble: the upstream is away, the relay is stopped or killed, a rule is corrected."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import STALL, FakeSmtp
from tests.journeys import clients, mails
from tests.journeys.test_smtp import SECRETS, acme_server, login_route

QUICK = "delivery: {retry: [1s], fallback_after: 1s}\n"


async def send(relay: RelayProcess, number: int, sender: str = "info@acme.nl") -> None:
    to = f"klant{number}@example.nl"
    said = await clients.smtplib(relay.port, sender, [to], mails.plain(sender, to))
    assert said.code == 0, said.text


async def arrived(relay: RelayProcess, server: FakeSmtp, count: int) -> None:
    while len(server.received) < count:
        await relay.event("delivered", after=len(relay.events))


def test_an_upstream_that_is_down_gets_its_mail_when_it_is_up(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with acme_server(authority) as server:
            port = server.port
        routes = login_route(server, "acme")
        async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS, extra=QUICK) as relay:
            for number in range(3):
                await send(relay, number)
            deferred = await relay.event("deferred")
            assert "refused" in str(deferred["reply"]).lower()
            async with acme_server(authority, port=port) as again:
                await arrived(relay, again, 3)
                assert sorted(mail.recipients[0] for mail in again.received) == [
                    f"klant{n}@example.nl" for n in range(3)
                ]

    asyncio.run(journey())


def test_a_restart_with_mail_queued_loses_nothing(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with acme_server(authority) as server:
            port = server.port
        relay = RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS, extra=QUICK)
        async with relay:
            for number in range(3):
                await send(relay, number)
            await relay.event("deferred")
            assert await relay.stop() == 0
        async with acme_server(authority, port=port) as again, relay:
            await arrived(relay, again, 3)
            assert len({mail.recipients for mail in again.received}) == 3

    asyncio.run(journey())


def test_a_kill_with_mail_under_way_loses_nothing(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        relay = None
        async with acme_server(authority, replies={"DATA": STALL}) as server:
            relay = RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS, extra=QUICK)
            async with relay:
                for number in range(3):
                    await send(relay, number)
                await relay.stop(signal.SIGKILL)
            server.script({"DATA": []})
            async with relay:
                await arrived(relay, server, 3)
                assert len({mail.recipients for mail in server.received}) == 3

    asyncio.run(journey())


def test_a_corrected_rule_heals_waiting_mail(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with acme_server(authority) as server:
            right = login_route(server, "acme")
            wrong = right.replace(f"port: {server.port}", "port: 1")
            # Long waits: only the corrected rule can be why the mail leaves now.
            async with RelayProcess(
                tmp_path / "relay", wrong, environment=SECRETS, extra="delivery: {retry: [1h]}\n"
            ) as relay:
                await send(relay, 1)
                await relay.event("deferred")
                relay.write_routes(right)
                assert (await relay.reload())["event"] == "reloaded"
                await arrived(relay, server, 1)

    asyncio.run(journey())


def test_the_fallback_takes_over_when_the_first_is_wrong(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        users = {"acme": "right"}
        async with (
            FakeSmtp(starttls=authority.server_context(), users=users) as first,
            acme_server(authority) as second,
        ):
            routes = (
                login_route(first, "acme").split("routes:")[0].replace("ACME_PASSWORD", "GLOBEX_PASSWORD")
                + login_route(second, "acme")
                .split("routes:")[0]
                .removeprefix("upstreams:\n")
                .replace("  acme:", "  spare:")
                + "routes:\n  - {from: acme.nl, via: [acme, spare]}\n"
            )
            async with RelayProcess(tmp_path / "relay", routes, environment=SECRETS, extra=QUICK) as relay:
                for number in range(3):
                    await send(relay, number)
                await arrived(relay, second, 3)
                assert first.logins == [("acme", False)]

    asyncio.run(journey())


def test_sigterm_lets_a_mail_under_way_finish(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with acme_server(authority) as server:
            relay = RelayProcess(tmp_path / "relay", login_route(server, "acme"), environment=SECRETS)
            async with relay:
                sends = [asyncio.create_task(send(relay, number)) for number in range(4)]
                await asyncio.gather(*sends)
                assert await relay.stop() == 0
            await asyncio.sleep(0)
            async with relay:
                await arrived(relay, server, 4)
            assert len(server.received) == 4, "once each"

    asyncio.run(journey())
