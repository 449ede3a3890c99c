"""Orders of people against the work under way: what an order says that it did is what happened."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

from spool.sqlite_view import SqliteView
from spool.view import Filter
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.faults.test_disk import Client, rules

MAILS = 200


def test_what_a_drop_says_it_dropped_never_arrives_and_the_rest_does(tmp_path):
    async def journey() -> None:
        later = {"RCPT": ["451 4.2.0 later", "250 2.1.5 taken"] * (MAILS // 2)}  # so that some leave before a drop
        async with (
            FakeSmtp(replies=later) as server,
            RelayProcess(tmp_path, rules(server), extra="delivery: {retry: [1s]}\n") as relay,
        ):
            client, told = Client(relay), 0

            async def send() -> None:
                for _ in range(MAILS):
                    await asyncio.sleep(0.01)
                    assert (await client.send()).startswith("250 ")

            sending = asyncio.create_task(send())
            while not sending.done():
                _, said = await relay.command("queue", "drop", "--route", "acme.nl", "--yes")
                (number,) = re.findall(r"(\d+) mails? (?:is|are) dropped", said)
                told += int(number)
            await sending
            ends = await settled(relay)
            got = Counter(to for mail in server.received for to in mail.recipients)
            dropped = {to for to, state in ends.items() if state == "dropped"}
            assert len(dropped) == told > 0
            assert got
            assert not dropped & got.keys(), "dropped, and delivered all the same"
            assert dropped | got.keys() == set(client.promised)
            assert set(got.values()) == {1}

    asyncio.run(journey())


async def settled(relay: RelayProcess) -> dict[str, str]:
    """How every recipient ended, once none waits."""
    for _ in range(600):
        view = SqliteView(f"sqlite:///{relay.spool}")
        try:
            if not view.count(Filter()):
                mails = view.list(Filter(settled=True), 10_000)
                return {each.address: each.state for mail in mails for each in mail.recipients}
        finally:
            view.close()
        await asyncio.sleep(0.1)
    raise AssertionError("mail waits for ever")


def test_hold_release_and_reload_at_once_keep_every_mail(tmp_path):
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, rules(server)) as relay:
            client = Client(relay)

            async def orders() -> None:
                for order in ("hold", "release") * 3:
                    await relay.command("queue", order, "--route", "acme.nl")
                    relay.write_routes(rules(server) + f"# {order}\n")
                    await relay.reload()

            giving = asyncio.create_task(orders())
            while not giving.done():
                assert (await client.send()).startswith("250 ")
            await giving
            ends = await settled(relay)
            assert ends == dict.fromkeys(client.promised, "delivered")
            assert Counter(to for mail in server.received for to in mail.recipients) == Counter(client.promised)

    asyncio.run(journey())
