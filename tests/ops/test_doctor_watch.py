"""The daily look inside `serve`: one alert for a new problem, remembered over restarts, never in the way of mail."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from random import Random
from typing import Any

from ops.doctor_watch import DoctorWatch, Memory
from tests.fakes.authority import Authority
from tests.fakes.dns import FakeDns
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.journeys import clients, mails


def verdict(check: str, grade: str, what: str = "x") -> dict[str, Any]:
    return {"route": "a.nl", "check": check, "where": "a.nl", "grade": grade, "what": what, "mend": ""}


def test_only_what_is_new_is_told(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "doctor")
    told = memory.compare("a.nl", [verdict("SPF", "problem"), verdict("DKIM", "warning")], 1.0)
    assert [(event, one["check"]) for event, one in told] == [("doctor_problem", "SPF")]
    memory.keep()

    memory = Memory(tmp_path / "doctor")
    assert memory.compare("a.nl", [verdict("SPF", "problem", "said otherwise")], 2.0) == []
    assert memory.compare("a.nl", [verdict("SPF", "warning", "no DNS server answered")], 3.0) == []
    assert memory.compare("a.nl", [verdict("SPF", "problem")], 4.0) == []
    ((event, one),) = memory.compare("a.nl", [verdict("SPF", "good", "fine")], 5.0)
    assert (event, one["what"]) == ("doctor_mended", "fine")
    assert [event for event, _ in memory.compare("a.nl", [verdict("SPF", "problem")], 6.0)] == ["doctor_problem"]
    ((event, one),) = memory.compare("a.nl", [], 7.0)
    assert (event, one["route"], one["what"]) == ("doctor_mended", "a.nl", "is there no more")


def test_a_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    for text in ("", "[]", '{"a.nl": 1}', '{"a.nl": {"at": "x", "open": {}}}'):
        (tmp_path / "doctor").write_text(text)
        assert Memory(tmp_path / "doctor").routes == {}


def test_looks_are_spread_and_a_restart_does_not_bring_them_forward(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "doctor")
    memory.compare("old.nl", [], 1_000_000.0)
    watch = DoctorWatch(tmp_path, memory, 86400.0, lambda: ["old.nl", "new.nl", "newer.nl"], print, Random(1))
    watch._plan(1_000_100.0)
    due = watch._due
    assert due["old.nl"] == 1_086_400.0
    assert due["new.nl"] != due["newer.nl"]
    assert all(1_000_700.0 <= due[name] <= 1_001_300.0 for name in ("new.nl", "newer.nl"))


def test_a_clock_that_was_ahead_puts_off_no_look(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "doctor")
    memory.compare("a.nl", [], 9_000_000.0)
    watch = DoctorWatch(tmp_path, memory, 86400.0, lambda: ["a.nl", "b.nl"], print, Random(1))
    watch._plan(9_000_100.0)
    watch._plan(1_000_000.0)
    assert all(at <= 1_001_200.0 for at in watch._due.values())


def test_inside_the_relay(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with (
            FakeDns() as dns,
            FakeSmtp(starttls=authority.server_context(), users={"me": "right"}) as server,
        ):
            secret = tmp_path / "secret"
            secret.write_text("hunter2")
            secret.chmod(0o600)
            login = f"{{type: smtp, host: localhost, port: {server.port}, username: me, password: 'file:{secret}'}}"
            routes = f"upstreams:\n  a: {login}\nroutes:\n  - {{from: a.nl, via: a}}\n"
            extra = dns.settings + "doctor: {every: 2s}\n"
            async with RelayProcess(tmp_path / "relay", routes, extra=extra) as relay:
                found = await relay.event("doctor_problem")
                assert (found["route"], found["check"]) == ("a.nl", "way out")
                assert "535" in str(found["what"])
                assert "hunter2" not in json.dumps(found)
                await until_looked(tmp_path / "relay")
            async with relay:  # a restart tells nothing twice
                await until_looked(tmp_path / "relay")
                assert len([one for one in relay.events if one["event"] == "doctor_problem"]) == 1
                secret.write_text("right")
                await relay.event("doctor_mended", check="way out")
                await until_looked(tmp_path / "relay")
                secret.write_text("hunter2")
                await relay.event("doctor_problem", check="way out", after=len(relay.events))
                relay.write_routes("routes: [")  # rules in the making are no alert
                await relay.event("doctor_failed")
            assert server.received == []

    asyncio.run(journey())


async def until_looked(folder: Path) -> None:
    """Until a look that begins now is over."""
    begun = time.time()
    while True:
        try:
            seen = json.loads((folder / "spool.db.doctor").read_text())
        except FileNotFoundError:
            seen = {}
        if any(one["at"] > begun + 1 for one in seen.values()):
            return
        await asyncio.sleep(0.1)


def test_mail_flows_while_a_look_is_under_way(authority: Authority, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeDns() as dns, FakeSmtp(starttls=authority.server_context()) as server:
            dns.silent.update(("a.nl", "_dmarc.a.nl"))
            way = f"{{type: smtp, host: localhost, port: {server.port}}}"
            routes = f"upstreams:\n  a: {way}\nroutes: [{{from: a.nl, via: a}}]\n"
            extra = dns.settings.replace("2s", "20s") + "doctor: {every: 1s}\n"
            async with RelayProcess(tmp_path / "relay", routes, extra=extra) as relay:
                while not dns.asked:
                    await asyncio.sleep(0.05)
                assert (
                    await clients.smtplib(relay.port, "x@a.nl", ["j@b.nl"], mails.rich("x@a.nl", "j@b.nl"))
                ).code == 0
                await relay.event("delivered")
                assert await relay.stop() == 0  # and the child does not keep it alive

    asyncio.run(journey())
