"""The commands beside the running relay say the same, whatever its spool is. Orders: test_queue_orders.py."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys.test_queue_orders import send

RULES = """\
upstreams:
  up: {{type: smtp, host: 127.0.0.1, port: {up}, tls: none, expires: 2020-01-02, pace: {{per_day: 500}}}}
  bad: {{type: smtp, host: 127.0.0.1, port: {bad}, tls: none}}
routes:
  - {{from: acme.nl, via: up}}
  - {{from: globex.nl, via: bad}}
"""
MORE = "  - {from: hooli.nl, via: up}\n"
NOBODY_SENDS = "callpro-relay: no relay runs on this spool: nothing leaves until it is started\n"
"""Of a file only: beside a database, relays of other machines may run."""


class Script:
    """What was typed, and what came of it: ids, times and numbers that are others each time are left out."""

    def __init__(self, relay: RelayProcess) -> None:
        self.relay = relay
        self.said: list[str] = []

    async def type(self, *words: str) -> str:
        code, text = await self.relay.command(*words)
        told = f"$ {' '.join(words)}\n{text}[{code}]"
        for pattern, name in (
            (re.escape(str(self.relay.folder)), "FOLDER"),
            (r"\b[0-9A-HJKMNP-TV-Z]{13}\b", "MAIL"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "TIME"),
            (r"\b\d+[smhd]\b( \d+[smhd]\b)?", "#"),
            (r"\b\d+(\.\d+)?(e-?\d+)?\b", "#"),
            (r"FAKE\d+", "THEIRS"),
        ):
            told = re.sub(pattern, name, told)
        self.said.append(re.sub(r" +", " ", told))
        return text

    async def json(self, *words: str) -> object:
        return json.loads(await self.type(*words, "--json"))


def near(*relays: RelayProcess, after: int = 0) -> list[object]:
    """What they told of things that end."""
    return [event["where"] for relay in relays for event in relay.events[after:] if event["event"] == "expiry_near"]


async def whole_night(folder: Path, up: FakeSmtp, bad: FakeSmtp, url: str | None) -> list[str]:
    """All that ops may type; what they read."""
    rules = RULES.format(up=up.port, bad=bad.port)
    up.script({"RCPT later@example.nl": "451 4.3.0 later", "RCPT weg@example.nl": "550 5.1.1 no such user"})
    bad.script({"MAIL": "530 5.7.0 login first"})
    extra = "doctor: {every: 0s}\n"
    relay = RelayProcess(folder, rules, url=url, extra=extra)
    script = Script(relay)
    run = script.type
    async with relay:
        await relay.event("expiry_near")
        relay.write_routes(rules + MORE)
        await run("check", "--diff")
        assert (await relay.reload())["changed"] == 1
        await run("expiry")
        await run("expiry", "--json")
        sent = await script.json("send", "--from", "info@acme.nl", "--to", "jan@example.nl")
        assert isinstance(sent, dict)
        assert sent["mail"]["recipients"][0]["state"] == "delivered", sent
        await run("send", "--from", "info@nobody.nl", "--to", "jan@example.nl")
        later = await send(relay, to="later@example.nl")
        await relay.event("deferred", mail=later)
        gone = await send(relay, to="weg@example.nl")
        await relay.event("failed", mail=gone)
        await send(relay, "info@globex.nl")
        await relay.event("held")
        for words in (
            *("list", f"show {later}", f"show {gone} --json", "find --to @example.nl", "failures --each --csv"),
            *("forecast", "hold --route acme.nl --reason wacht", "hold --route no.nl", "holds", "drop --yes"),
        ):
            await run("queue", *words.split())
        await run("doctor", "acme.nl", "--no-probes")
        seen = len(relay.events)
        await relay.stop()
        await relay.start()
        await asyncio.sleep(1.5)
        assert near(relay, after=seen) == [], "it was told before"
    await run("check", "--diff")
    await run("expiry")
    await run("queue", "holds")
    assert list(folder.glob("*.control")) == []
    return script.said


def test_with_a_database_every_command_says_what_it_says_with_a_file(tmp_path: Path, database: str) -> None:
    async def night(name: str, url: str | None) -> list[str]:
        async with FakeSmtp() as up, FakeSmtp() as bad:
            return await whole_night(tmp_path / name, up, bad, url)

    async def journey() -> None:
        file, shared = await asyncio.gather(night("file", None), night("shared", database))
        for one, other in zip(file, shared, strict=True):
            if not one.startswith(("$ check --diff", "$ expiry")) or "answers at" not in one:
                assert one.replace(NOBODY_SENDS, "") == other
        assert [text for text in shared if "answers at" in text and "STATE_DIRECTORY" in text]

    asyncio.run(journey())


def test_two_relays_of_one_machine_with_one_state_folder_are_told_apart(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        shared = {"STATE_DIRECTORY": str(tmp_path)}
        async with FakeSmtp() as up:
            rules = RULES.format(up=up.port, bad=up.port)
            one, other = (
                RelayProcess(tmp_path / name, rules, url=database, environment=shared) for name in ("one", "other")
            )
            async with one, other:
                other.write_routes(rules + MORE)
                assert (await one.command("check", "--diff"))[1] == "No customer changes.\n"
                assert "hooli.nl: added" in (await other.command("check", "--diff"))[1]
                assert len(list(tmp_path.glob("relay-*.control"))) == 2
                while not near(one, other):
                    await asyncio.sleep(0.05)
                await asyncio.sleep(1.5)
                assert len(near(one, other)) == 1, "what ends is told by one relay for all"
            await one.start()
            await one.stop(9)
            assert len(list(tmp_path.glob("relay-*.control"))) == 1, "left by the one that was killed"
            assert "answers at" in (await one.command("check", "--diff"))[1]
            async with one:
                assert (await one.command("check", "--diff"))[1] == "No customer changes.\n"

    asyncio.run(journey())


def test_without_a_state_folder_mail_and_orders_go_on(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with FakeSmtp() as up:
            missing = {"STATE_DIRECTORY": str(tmp_path / "missing")}
            rules = RULES.format(up=up.port, bad=up.port)
            async with RelayProcess(tmp_path / "r", rules, url=database, environment=missing) as relay:
                told = await relay.event("control_unavailable")
                assert (told["error"], "missing" in str(told["socket"])) == ("No such file or directory", True)
                assert (await relay.command("queue", "hold", "--route", "acme.nl"))[0] == 0
                await send(relay)
                assert "on hold" in (await relay.command("queue", "list"))[1]
                assert (await relay.command("queue", "release", "--route", "acme.nl"))[0] == 0
                await relay.event("delivered")

    asyncio.run(journey())
