"""Commands that are answered where they come in, and the dialogue that is woken only for what has to be waited for."""

from __future__ import annotations

import pytest

from intake.dialogue import Dialogue
from intake.inbound import Inbound
from tests.intake.house import MAIL, House, events, with_house
from tests.waiting import until


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """The command lines that came to the dialogue itself."""
    lines: list[bytes | None] = []
    whole = Inbound.line

    async def line(inbound: Inbound) -> bytes | None:
        lines.append(await whole(inbound))
        return lines[-1]

    monkeypatch.setattr(Inbound, "line", line)
    return lines


def test_a_client_that_waits_for_each_answer_wakes_the_dialogue_once_for_a_mail(heard: list[bytes | None]) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say("EHLO callpro")).splitlines()[0] == "250-relay.test"
            for _ in range(2):
                await client.begin()
                assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
            assert heard == [b"DATA\r\n"] * 2
            assert (await client.say("QUIT")).startswith("221 ")
        assert [arrival.helo for arrival in house.spool.arrivals] == ["callpro"] * 2
        assert b"ESMTP" in house.spool.arrivals[0].content.splitlines()[1]

    with_house(test)


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("MAIL FROM:<info@nobody.nl>", "550 5.7.1 "),
        ("RCPT TO:<x@example.org>", "503 5.5.1 "),
        ("DATA", "503 5.5.1 "),
        ("HELO", "501 5.5.4 "),
        ("DATA now", "503 5.5.1 "),
    ],
)
def test_every_refusal_is_the_dialogues_and_said_once(heard: list[bytes | None], said: str, reply: str) -> None:
    async def test(house: House) -> None:
        with events("refused") as refused:
            async with house.client() as client:
                assert (await client.say(said)).startswith(reply)
                assert heard == [f"{said}\r\n".encode()]
                assert (await client.say("NOOP")).startswith("250 ")
            assert len(refused) == 1

    with_house(test)


def test_no_recipient_no_data() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<info@acme.nl>")
            assert (await client.say("DATA")).startswith("554 5.5.1 ")

    with_house(test)


def test_a_line_in_two_parts_and_two_lines_in_one() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            client.send(b"MAIL FROM:<info@")
            assert (await client.say("acme.nl>\r\nRCPT TO:<x@example.org>")).startswith("250 2.1.0")
            assert (await client.reply()).startswith("250 2.1.5")
            assert (await client.say("DATA\r\n" + MAIL.decode() + ".")).startswith("354 ")
            assert (await client.reply()).startswith("250 2.0.0")

    with_house(test)


def test_a_client_that_goes_after_the_354_is_noted_and_forgotten() -> None:
    async def test(house: House) -> None:
        with events("abandoned") as abandoned:
            async with house.client() as client:
                await client.begin()
                client.reset()
            await until(lambda: house.intake.numbers.open == 0)
            assert [event["sender"] for event in abandoned] == ["info@acme.nl"]

    with_house(test)


def test_a_bug_of_ours_at_a_command_is_answered_and_told_once(
    heard: list[bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError

    async def test(house: House) -> None:
        with events("bug") as bugs:
            async with house.client() as client:
                monkeypatch.setattr(Dialogue, "_at_once", fail)
                assert (await client.say("MAIL FROM:<info@acme.nl>")).startswith("451 4.3.0")
                assert len(bugs) == 1

    with_house(test)
