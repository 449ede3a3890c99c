"""One budget for all mail that is still coming in: who waits, who goes on, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.memory import Memory, Share
from tests.intake.house import MAIL, Client, House, events, text_of, with_house
from tests.waiting import LONG, until

MB = 1 << 20
PART = MAIL + b"%070d\r\n" % 1 * (MB // 72 - 10)
REST = b"%070d\r\n" % 2 * 5000


async def upload(client: Client, octets: bytes) -> None:
    client.send(octets)
    await client.writer.drain()


def test_a_mail_beyond_the_budget_waits_for_an_older_one_and_small_mail_does_not() -> None:
    async def test(house: House) -> None:
        async with AsyncExitStack() as stack:
            old, young, small = [await stack.enter_async_context(house.client()) for _ in range(3)]
            await old.begin()
            await upload(old, PART)
            await until(lambda: house.intake.receiving > MB // 2)
            await young.begin()
            young.send(PART + REST + b".\r\n")
            answer = asyncio.create_task(young.reply())
            await small.begin()
            assert (await small.say(MAIL + b".")).startswith("250 2.0.0")
            await asyncio.sleep(0.3)
            assert not answer.done()
            assert house.intake.receiving < 2 * MB
            assert (await old.say(REST + b".")).startswith("250 2.0.0")
            assert (await answer).startswith("250 2.0.0")
            assert house.intake.receiving == 0
            assert len(house.spool.arrivals) == 3

    with_house(test, content_memory=MB)


@pytest.mark.parametrize("go", ["reset", "close"])
def test_who_goes_in_the_middle_gives_its_memory_back(go: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as old, house.client() as young:
            await old.begin()
            await upload(old, PART)
            await until(lambda: house.intake.receiving > MB // 2)
            await young.begin()
            young.send(PART + REST + b".\r\n")
            await until(lambda: house.intake.receiving > MB)
            if go == "reset":
                old.reset()
            else:
                await old.close()
            assert (await young.reply()).startswith("250 2.0.0")
            assert house.intake.receiving == 0

    with_house(test, content_memory=MB)


def test_a_mail_larger_than_the_budget_is_taken_and_one_over_the_size_limit_holds_nothing() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin()
            assert (await client.say(PART + PART + PART + b".")).startswith("250 2.0.0")
            await client.begin()
            for _ in range(8):
                await upload(client, PART)
            await until(lambda: house.intake.receiving == 0)
            assert (await client.say(b".")).startswith("552 5.3.4")

    with_house(test, content_memory=MB, message_size=4 * MB)


@pytest.mark.parametrize("lines", [10, 1500, 6000])
def test_a_crowd_is_read_a_little_at_a_time_and_loses_nothing(lines: int) -> None:
    """Sixteen mails at once are a crowd for a budget of 1 MB; the next commands come right behind each mail."""

    async def test(house: House) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(house.client()) for _ in range(16)]
            mails = [MAIL + b"%070d\r\n" % number * lines for number in range(16)]
            for client in clients:
                await client.begin()
            assert house.intake._common.memory.crowded
            for client, mail in zip(clients, mails, strict=True):
                client.send(mail + b".\r\nNOOP\r\nMAIL FROM:<info@acme.nl>\r\nRCPT TO:<a@b.nl>\r\nDATA\r\n" + MAIL)
            for client in clients:
                assert [(await client.reply())[:3] for _ in range(5)] == ["250", "250", "250", "250", "354"]
                assert (await client.say(b".")).startswith("250 2.0.0")
            assert not house.intake._common.memory.crowded
            assert house.intake.receiving == 0
        kept = sorted(text_of(arrival.content) for arrival in house.spool.arrivals)
        assert kept == sorted([*mails, *[MAIL] * 16])

    with_house(test, content_memory=MB)


def test_the_slow_are_sent_away_only_while_others_wait() -> None:
    async def test(house: House) -> None:
        async with house.client() as slow, house.client() as other:
            await slow.begin()
            await upload(slow, PART)
            await asyncio.sleep(0.5)
            assert (await asyncio.wait_for(slow.say(b"\r\n.\r\nNOOP"), LONG)).startswith("250 2.0.0")
            assert (await slow.reply()).startswith("250 ")
            await slow.begin()
            await upload(slow, PART)
            await until(lambda: house.intake.receiving > MB // 2)
            with events("refused") as refused:
                await other.begin()
                other.send(PART + REST + b".\r\n")
                assert (await slow.reply()).startswith("421 4.4.2 relay.test: too slow while other")
                assert await slow.reply() == ""
                assert (await other.reply()).startswith("250 2.0.0")
            assert refused[0]["reply"].startswith("421 4.4.2 too slow")

    with_house(test, content_memory=MB, idle=3.0)


def test_who_holds_much_must_bring_more() -> None:
    """A trickle that would do for a small mail keeps 30 MB from the others for hours."""

    async def run() -> list[str]:
        memory, out = Memory(MB, 0.05), []
        with Share(memory, lambda: out.append("large")) as large, Share(memory, lambda: out.append("small")) as small:
            memory.charge(large, 30 * MB)
            memory.charge(small, 64)
            with Share(memory, lambda: out.append("waiting")) as third:
                memory.charge(third, 64)
                waiting = asyncio.create_task(memory.wait(third))
                for _ in range(40):
                    await asyncio.sleep(0.01)
                    memory.charge(large, large.octets + 40)
                    memory.charge(small, small.octets + 5000)
                waiting.cancel()
        return out

    assert set(asyncio.run(run())) == {"large"}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 1 << 32))
def test_every_mail_ends_and_the_budget_is_passed_by_one_mail_at_most(sizes: list[int], seed: int) -> None:
    """Mails of 1 to 40 units against a budget of 20, a unit at a time, in any order; some give up half way."""
    random, highest = Random(seed), 0

    async def mail(memory: Memory, size: int) -> None:
        nonlocal highest
        with Share(memory, lambda: None) as share:
            for octets in range(1, random.choice((size, size, size // 2 or 1)) + 1):
                if not memory.charge(share, octets):
                    await memory.wait(share)
                highest = max(highest, memory.used)
                for _ in range(random.randrange(3)):
                    await asyncio.sleep(0)

    async def run() -> None:
        memory = Memory(20, 1000.0)
        tasks = [asyncio.create_task(mail(memory, size)) for size in sizes]
        await asyncio.sleep(0)
        if random.random() < 0.5:
            random.choice(tasks).cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert memory.used == 0

    asyncio.run(run())
    assert highest <= 20 + max(sizes) + len(sizes)
