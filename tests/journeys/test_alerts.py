"""Ops hear of trouble: by a mail that never takes the broken way, by a webhook and by a command, once."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path

from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails
from tests.waiting import until


class Hook:
    """A chat service's webhook: keeps what is posted."""

    def __init__(self) -> None:
        self.posts: list[dict[str, object]] = []

    async def __aenter__(self) -> Hook:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        self.posts.append(json.loads(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


def test_a_hold_is_told_by_every_way_and_never_by_the_broken_one(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        page = tmp_path / "paged"
        async with (
            Hook() as hook,
            FakeSmtp(starttls=authority.server_context(), users={"acme": "new"}) as broken,
            FakeSmtp(starttls=authority.server_context()) as ours,
        ):
            routes = (
                f"upstreams:\n  acme: {{type: smtp, host: localhost, port: {broken.port}, "
                "username: acme, password: x}\n"
                f"  own: {{type: smtp, host: localhost, port: {ours.port}}}\n"
                "routes:\n  - {from: acme.nl, via: acme}\n  - {from: callcenter.nl, via: own}\n"
            )
            extra = (
                "alerts:\n  mail: {from: [info@acme.nl, relay@callcenter.nl], to: beheer@callcenter.nl}\n"
                f'  webhook: "env:HOOK"\n  command: [/bin/sh, -c, "cat >> {page}"]\n'
            )
            environment = {"HOOK": f"http://127.0.0.1:{hook.port}/secret-path"}
            async with RelayProcess(tmp_path / "r", routes, extra=extra, environment=environment) as relay:
                for _ in range(2):
                    content = mails.plain("info@acme.nl", "jan@example.nl")
                    assert (await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)).code == 0
                for way in ("mail", "webhook", "command"):
                    await relay.event("alert_sent", by=way)
                await relay.event("delivered", route="callcenter.nl")
                (mail,) = ours.received
                assert (mail.sender, mail.recipients) == ("relay@callcenter.nl", ("beheer@callcenter.nl",))
                text = message_from_bytes(mail.content, policy=policy.SMTP).get_content()
                assert "Route acme.nl is on hold, acme does not work: 535" in text
                (post,) = hook.posts
                assert post["event"] == "held"
                assert str(post["text"]).startswith("relay.test: Route acme.nl is on hold")
                assert json.loads(page.read_text())["fields"]["route"] == "acme.nl"
                assert "secret-path" not in relay.log()
                relay.write_routes("routes: [")
                await relay.reload()
                await relay.event("alert_sent", by="webhook", alert=str(hook_text(relay)))
                assert [told["event"] for told in hook.posts] == ["held", "reload_refused"]

    asyncio.run(journey())


def test_two_relays_on_one_database_tell_their_common_trouble_once(
    authority: Authority, tmp_path: Path, database: str
) -> None:
    async def journey() -> None:
        async with Hook() as hook, FakeSmtp(starttls=authority.server_context(), users={"acme": "new"}) as broken:
            routes = (
                f"upstreams:\n  acme: {{type: smtp, host: localhost, port: {broken.port}, username: acme, password: x, "
                "expires: 2020-01-02}\nroutes:\n  - {from: acme.nl, via: acme}\n"
            )
            extra = 'doctor: {every: 0s}\nalerts: {webhook: "env:HOOK"}\n'
            environment = {"HOOK": f"http://127.0.0.1:{hook.port}/x"}
            one, other = (
                RelayProcess(tmp_path / name, routes, url=database, extra=extra, environment=environment)
                for name in ("one", "other")
            )
            async with one, other:
                for relay in (one, other):
                    content = mails.plain("info@acme.nl", "jan@example.nl")
                    assert (await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)).code == 0
                await until(lambda: {"held", "expiry_near"} <= {post["event"] for post in hook.posts}, every=0.05)
                for relay in (one, other):
                    relay.write_routes("routes: [")
                    await relay.reload()
                    await relay.event("alert_sent", by="webhook", alert=str(hook_text(relay)))
                told = sorted(str(post["event"]) for post in hook.posts)
                assert told == ["expiry_near", "held", "reload_refused", "reload_refused"], "their own is told by each"

    asyncio.run(journey())


def hook_text(relay: RelayProcess) -> str:
    (refused,) = [event for event in relay.events if event["event"] == "reload_refused"]
    return f"New rules were refused: {' '.join(str(refused['why']).split())}"


def test_what_ends_is_told_and_listed_with_certificates_that_were_seen(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
        async with FakeSmtp(starttls=authority.server_context(), users={"acme": "x"}) as server:
            routes = (
                f"upstreams:\n  acme: {{type: smtp, host: localhost, port: {server.port}, username: acme, password: x, "
                f"expires: {day}}}\nroutes:\n  - {{from: acme.nl, via: acme}}\n"
            )
            async with RelayProcess(tmp_path / "r", routes) as relay:
                near = await relay.event("expiry_near")
                assert (near["what"], near["days"], near["routes"]) == ("password", 2, ["acme.nl"])
                content = mails.plain("info@acme.nl", "jan@example.nl")
                await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)
                await relay.event("delivered")
                code, text = await relay.command("expiry", "--json")
                rows = {row["what"]: row for row in json.loads(text)}
                assert (code, rows["password"]["days"], rows["password"]["step"]) == (1, 2, 7)
                assert rows["TLS certificate"]["where"] == f"localhost:{server.port}"
                assert rows["TLS certificate"]["days"] > 100
                seen = len(relay.events)
                await relay.stop()
                code, text = await relay.command("expiry")
                assert (code, f"! {day} in 2d" in text) == (1, True), text
                await relay.start()
                await clients.smtplib(relay.port, "info@acme.nl", ["jan@example.nl"], content)
                await relay.event("delivered", after=seen)
                await asyncio.sleep(1.5)
                assert not [event for event in relay.events[seen:] if event["event"] == "expiry_near"]

    asyncio.run(journey())
