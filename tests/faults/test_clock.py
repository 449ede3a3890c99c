"""The machine's clock jumps under the running relay: nothing is lost or goes out twice, and nothing waits for hours."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import CUT, FakeSmtp
from tests.faults.test_disk import Client, arrived, rules

# Loaded by Python before anything else: the relay then reads this clock, whatever the machine's says.
_CLOCK = """
import os, time
_real, _file = time.time, os.environ["TEST_CLOCK"]
def _now():
    with open(_file) as file:
        return _real() + float(file.read())
time.time = _now
"""


class Machine:
    """A relay whose clock can be set."""

    def __init__(self, folder: Path, server: FakeSmtp, extra: str) -> None:
        (folder / "python").mkdir()
        (folder / "python" / "sitecustomize.py").write_text(_CLOCK)
        self._offset = folder / "offset"
        self.set(0)
        environment = {"PYTHONPATH": str(folder / "python"), "TEST_CLOCK": str(self._offset)}
        self.relay = RelayProcess(folder / "r", rules(server), extra=extra, environment=environment)

    def set(self, seconds: float) -> None:
        """So many seconds beside the truth."""
        written = self._offset.with_suffix(".new")
        written.write_text(str(seconds))
        written.replace(self._offset)


async def deferred(relay: RelayProcess, client: Client, count: int) -> None:
    for _ in range(count):
        assert (await client.send()).startswith("250 ")
    await relay.event("unreachable", "deferred")


def test_an_hour_back_loses_nothing_and_sends_nothing_twice(tmp_path):
    async def journey() -> None:
        async with FakeSmtp(replies={"CONNECT": CUT}) as server:
            machine = Machine(tmp_path, server, "delivery: {retry: [2s]}\n")
            async with machine.relay as relay:
                client = Client(relay)
                await deferred(relay, client, 5)
                machine.set(-3600)
                server.script({"CONNECT": []})
                for _ in range(3):
                    assert (await client.send()).startswith("250 ")
                await relay.event("clock_set_back")
                got = await arrived(server, client.promised)
                assert set(got.values()) == {1}
                assert await relay.stop() == 0
            async with machine.relay:
                client = Client(relay)
                await client.until("250")
                await arrived(server, client.promised)
            assert Counter(server_counts(server))[1] == len(set(got)), "nothing comes again after a restart"

    asyncio.run(journey())


def server_counts(server: FakeSmtp) -> list[int]:
    """How often each recipient but the first, whose name is used again, was mailed."""
    got = Counter(to for mail in server.received for to in mail.recipients)
    return [count - (to == "r1@example.nl") for to, count in got.items()]


def test_a_day_forward_gives_every_mail_its_try(tmp_path):
    """Older than `expire` all at once, and the upstream was away: what can be delivered now is not given up, whatever
    was known of the upstream a day ago.
    """

    async def journey() -> None:
        async with FakeSmtp(replies={"CONNECT": CUT}) as server:
            machine = Machine(tmp_path, server, "delivery: {retry: [2s], expire: 12h}\n")
            async with machine.relay as relay:
                client = Client(relay)
                await deferred(relay, client, 5)
                server.script({"CONNECT": []})
                machine.set(86400)
                got = await arrived(server, client.promised)
                assert set(got.values()) == {1}
                assert not [event for event in relay.events if event["event"] in ("expired", "failed", "bounced")]

    asyncio.run(journey())


def test_a_pace_does_not_last_longer_for_a_clock_that_was_set_back(tmp_path):
    async def journey() -> None:
        async with FakeSmtp() as server:
            machine = Machine(tmp_path, server, "delivery: {retry: [2s]}\n")
            machine.relay.write_routes(rules(server).replace("via: acme}", "via: acme, pace: {per_second: 1}}"))
            async with machine.relay as relay:
                client = Client(relay)
                await client.until("250")
                await relay.event("delivered")
                machine.set(-86400)
                for _ in range(3):
                    await client.until("250")
                got = await arrived(server, client.promised)
                assert set(got.values()) == {1}

    asyncio.run(journey())


def test_mail_that_is_due_since_the_clock_went_forward_does_not_wait_for_its_old_time(tmp_path):
    """As after a start with a clock that was behind: the spool's times are then far away, until the time is known."""

    async def journey() -> None:
        async with FakeSmtp(replies={"MAIL": "451 4.3.2 not now"}) as server:
            machine = Machine(tmp_path, server, "delivery: {retry: [2h]}\n")
            async with machine.relay as relay:
                client = Client(relay)
                await client.until("250")
                await relay.event("deferred")
                server.script({"MAIL": []})
                machine.set(86400)
                await arrived(server, client.promised)

    asyncio.run(journey())
