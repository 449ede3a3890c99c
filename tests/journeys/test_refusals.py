"""Journeys that end in a clear word: no rule for the sender, a wrong password, rules that do not load."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails
from tests.journeys.test_smtp import login_route
from tests.waiting import until


def test_a_sender_without_a_rule_is_refused_with_its_domain(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        async with RelayProcess(tmp_path / "relay", routes) as relay:
            said = await clients.swaks(relay.port, "info@umbrella.nl", ["jan@example.nl"])
            assert said.code != 0
            assert "550 5.7.1" in said.text
            assert "umbrella.nl" in said.text
            event = await relay.event("refused")
            assert event["argument"] == "<info@umbrella.nl>"
            assert event["level"] == "warning"

    asyncio.run(journey())


def test_a_wrong_password_is_one_login_and_a_held_route(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp(starttls=authority.server_context(), users={"acme": "right"}) as server:
            routes = login_route(server, "acme")
            async with RelayProcess(tmp_path / "relay", routes, environment={"ACME_PASSWORD": "wr0ng-s3cret"}) as relay:
                for number in range(10):
                    to = f"klant{number}@example.nl"
                    said = await clients.smtplib(relay.port, "info@acme.nl", [to], mails.plain("info@acme.nl", to))
                    assert said.code == 0, said.text
                held = await relay.event("held")
                assert held["route"] == "acme.nl"
                assert "535" in str(held["reply"])
                assert [event["event"] for event in relay.events].count("held") == 1
                assert server.logins == [("acme", False)]
                assert "wr0ng-s3cret" not in relay.log()
                _, text = await relay.command("queue", "list")
                assert text.count("info@acme.nl") >= 10

                # The customer sends the right password; ops write it down and reload. Every mail leaves.
                (tmp_path / "password").write_text("right\n")
                (tmp_path / "password").chmod(0o600)
                relay.write_routes(routes.replace("env:ACME_PASSWORD", f"file:{tmp_path}/password"))
                assert (await relay.reload())["event"] == "reloaded"
                await until(lambda: len(server.received) >= 10, "ten mails at the customer's server")

    asyncio.run(journey())


def test_rules_that_do_not_load_change_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        async with RelayProcess(tmp_path / "relay", routes) as relay:
            relay.write_routes(routes.replace("via: try", "via: tri"))
            assert (await relay.reload())["event"] == "reload_refused"
            assert "did you mean" in relay.log()
            assert "routes.yaml:4" in relay.log()
            said = await clients.swaks(relay.port, "info@acme.nl", ["jan@example.nl"])
            assert said.code == 0, said.text
            await relay.event("delivered")
            code, text = await relay.command("check")
            assert code == 1
            assert "tri" in text

    asyncio.run(journey())


def test_the_relay_does_not_start_with_wrong_rules(tmp_path: Path) -> None:
    async def journey() -> None:
        relay = RelayProcess(tmp_path / "relay", "routes:\n  - {from: acme.nl, vai: x}\n")
        with pytest.raises(AssertionError, match="the relay ended") as ended:
            await relay.start()
        assert "vai" in str(ended.value)
        assert "Traceback" not in str(ended.value)

    asyncio.run(journey())


def test_the_relay_does_not_start_with_trust_that_cannot_be_read(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        relay = RelayProcess(tmp_path / "relay", routes, environment={"SSL_CERT_FILE": "/nowhere.pem"})
        with pytest.raises(AssertionError, match=r"SSL_CERT_FILE=/nowhere.pem cannot be read"):
            await relay.start()

    asyncio.run(journey())
