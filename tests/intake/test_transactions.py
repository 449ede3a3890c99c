"""A mail from MAIL to the answer: verdicts, several mails on one connection, and what is kept."""

from __future__ import annotations

import asyncio
import smtplib
from email.message import EmailMessage

import pytest

from spool.contract import SpoolFull, SpoolUnavailable, id_text
from tests.intake.house import MAIL, NOW, Client, House, events, running, text_of, with_house
from tests.waiting import until


def test_what_the_spool_is_handed() -> None:
    async def test(house: House) -> None:
        with events("accepted") as accepted:
            async with house.client() as client:
                await client.say("MAIL FROM:<info@acme.nl>")
                for recipient in ("a@example.org", "b@example.org", "a@example.org"):
                    await client.say(f"RCPT TO:<{recipient}>")
                await client.say("DATA")
                reply = await client.say(MAIL + b".")
        [arrival] = house.spool.arrivals
        assert reply == f"250 2.0.0 Ok: queued as {id_text(arrival.id)}"
        assert (arrival.sender, arrival.recipients) == ("info@acme.nl", ("a@example.org", "b@example.org"))
        assert (arrival.route, arrival.peer, arrival.helo) == ("acme.nl", "127.0.0.1", "callpro.test")
        assert (arrival.received_at, arrival.repairs) == (NOW, ())
        assert text_of(arrival.content) == MAIL
        assert f" with ESMTP id {id_text(arrival.id)};".encode() in arrival.content
        assert accepted == [
            {
                "mail": id_text(arrival.id), "sender": "info@acme.nl", "recipients": 2,
                "to": ("a@example.org", "b@example.org"), "size": len(arrival.content), "route": "acme.nl",
                "peer": "127.0.0.1", "message_id": "<1@acme.nl>",
            }
        ]  # fmt: skip
        numbers = house.intake.numbers
        assert (numbers.accepted, numbers.recipients, numbers.octets) == (1, 2, len(arrival.content))

    with_house(test)


def test_delivery_finds_what_the_client_sent() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<>")
            await client.say("RCPT TO:<klant@example.org>")
            await client.say("DATA")
            reply = await client.say(MAIL + b".")
        [mail] = await house.spool.lease("<>", 10, NOW)
        assert reply.endswith(id_text(mail.id))
        assert (mail.sender, [pending.address for pending in mail.recipients]) == ("", ["klant@example.org"])
        assert text_of(mail.content) == MAIL

    with_house(test)


def test_repairs_are_named() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin()
            await client.say(b"Subject: kaal\r\n\r\nzonder datum\r\n.")
        [arrival] = house.spool.arrivals
        assert {"date", "message_id"} <= set(arrival.repairs)
        assert f"<{id_text(arrival.id)}@relay.test>".encode() in arrival.content
        assert house.intake.numbers.repairs["date"] == 1

    with_house(test)


def test_a_sender_without_a_route_is_refused_by_name() -> None:
    async def test(house: House) -> None:
        with events("refused") as refused:
            async with house.client() as client:
                reply = await client.say("MAIL FROM:<info@unknown.nl> SIZE=10")
                assert reply.startswith("550 5.7.1 <info@unknown.nl>: no route for sender domain unknown.nl; ")
                assert (await client.say("RCPT TO:<klant@example.org>")).startswith("503 5.5.1")
        assert refused[0]["argument"] == "<info@unknown.nl> SIZE=10"
        assert refused[0]["reply"] == reply
        assert refused[0]["peer"] == "127.0.0.1"
        assert house.intake.numbers.refused == {"5.7.1": 1, "5.5.1": 1}

    with_house(test)


def test_a_long_sender_does_not_make_a_long_reply() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            address = "a" * 900 + "@" + "b.c" * 300 + ".nl"
            assert len(await client.say(f"MAIL FROM:<{address}>")) <= 510

    with_house(test)


def test_a_bug_of_ours_is_a_temporary_refusal_and_its_text_stays_out_of_the_log(caplog) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say("MAIL FROM:<info@boom.nl>")).startswith("451 4.3.0")
            house.spool.failing = RuntimeError("Tot morgen")
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("451 4.3.0")
            house.spool.failing = None
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
        assert house.intake.numbers.bugs == 2

    with_house(test)
    assert "KeyError" in caplog.text
    assert "in match" in caplog.text
    assert "no boom.nl" not in caplog.text
    assert "Tot morgen" not in caplog.text


@pytest.mark.parametrize(
    ("failure", "reply"), [(SpoolFull(), "452 4.3.1"), (SpoolUnavailable("disk I/O error"), "451 4.3.0")]
)
def test_a_spool_that_cannot_keep_it(failure: Exception, reply: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            house.spool.failing = failure
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith(reply)
            house.spool.failing = None
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
        assert house.intake.numbers.bugs == 0

    with_house(test)


def test_the_answer_waits_for_the_commit() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            house.spool.gate.clear()
            await client.begin()
            client.send(MAIL + b".\r\n")
            await house.spool.entered.wait()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.reader.readline(), 0.05)
            house.spool.gate.set()
            assert (await client.reply()).startswith("250 2.0.0")

    with_house(test)


def test_several_mails_on_a_connection_share_nothing() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin("een@acme.nl", "a@example.org")
            await client.say(MAIL + b".")
            await client.begin("twee@globex.nl", "b@example.org")
            await client.say(MAIL + b".")
            await client.say("MAIL FROM:<drie@acme.nl>")
            await client.say("RCPT TO:<c@example.org>")
            assert await client.say("RSET") == "250 2.0.0 OK"
            assert (await client.say("RCPT TO:<d@example.org>")).startswith("503 5.5.1")
            await client.say("MAIL FROM:<vier@acme.nl>")
            await client.say("RCPT TO:<e@example.org>")
            await client.begin("vijf@globex.nl", "f@example.org")
            await client.say(MAIL + b".")
            assert (await client.say("DATA")).startswith("503 5.5.1")
            await client.say("MAIL FROM:<zes@acme.nl>")
            assert "PIPELINING" in await client.say("EHLO again.test")
            assert (await client.say("DATA")).startswith("503 5.5.1")
            assert (await client.say("QUIT")).startswith("221 2.0.0")
            assert await client.reply() == ""
        assert [(a.sender, a.recipients, a.route) for a in house.spool.arrivals] == [
            ("een@acme.nl", ("a@example.org",), "acme.nl"),
            ("twee@globex.nl", ("b@example.org",), "globex.nl"),
            ("vijf@globex.nl", ("f@example.org",), "globex.nl"),
        ]

    with_house(test)


def test_a_refused_second_sender_leaves_no_transaction() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<info@acme.nl>")
            await client.say("RCPT TO:<klant@example.org>")
            assert (await client.say("MAIL FROM:<info@unknown.nl>")).startswith("550 ")
            assert (await client.say("DATA")).startswith("503 5.5.1")

    with_house(test)


def test_recipients_beyond_the_limit_and_none_at_all() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<info@acme.nl>")
            assert (await client.say("DATA")).startswith("554 5.5.1")
            client.send(b"".join(b"RCPT TO:<r%d@example.org>\r\n" % number for number in range(10_000)))
            with events("refused") as refused:
                replies = [await client.reply() for _ in range(10_000)]
            assert len(refused) == 1
            assert [reply[:9] for reply in replies] == ["250 2.1.5"] * 500 + ["452 4.5.3"] * 9500
            assert (await client.say("RCPT TO:<r7@example.org>")).startswith("250 2.1.5")
            await client.say("DATA")
            assert (await client.say(MAIL + b".")).startswith("250 ")
        assert len(house.spool.arrivals[0].recipients) == 500

    with_house(test)


@pytest.mark.parametrize(
    ("trace", "reply"),
    [
        (b"Received: from a by b; now\r\n" * 30, "250 2.0.0"),
        (b"Received: from a by b; now\r\n" * 31, "554 5.4.6"),
        (b"received : from a\r\n\tby relay.test with ESMTP id X; now\r\n" * 3, "250 2.0.0"),
        (b"Received: from a\r\n\tby Relay.Test with ESMTP id X; now\r\n" * 5, "554 5.4.6"),
    ],
)
def test_a_mail_that_goes_round(trace: bytes, reply: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin()
            assert (await client.say(trace + MAIL + b".")).startswith(reply)

    with_house(test)


def test_too_large_by_its_word_and_in_fact() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert "\n250-SIZE 5000\n" in await client.say("EHLO x")
            assert (await client.say("MAIL FROM:<info@acme.nl> SIZE=5001")).startswith("552 5.3.4")
            assert (await client.say("MAIL FROM:<info@acme.nl> SIZE=5000")).startswith("250 ")
            await client.begin()
            client.send(MAIL)
            for _ in range(100):
                client.send(b"y" * 70 + b"\r\n" + b"z" * 10_000 + b"\r\n")
                await client.writer.drain()
            assert (await client.say(b".")).startswith("552 5.3.4")
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
        assert len(house.spool.arrivals) == 1

    with_house(test, message_size=5000)


def test_a_header_without_end_is_refused_and_the_next_mail_is_not() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            for flood in (b"X-Flood: " + b" " * 200_000, b"To: a@b.nl\r\n" * 20_000, b"x:" + b"y" * 200_000):
                await client.begin()
                assert (await client.say(flood + b"\r\n\r\nText\r\n.")).startswith("552 5.3.4 The header")
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
        assert len(house.spool.arrivals) == 1

    with_house(test)


def test_an_ordinary_client_with_a_large_attachment() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "info@acme.nl", "klant@example.org", "Offerte \u20ac 12"
    mail.set_content("Zie bijlage.\n.\n..\n")
    mail.add_attachment(bytes(range(256)) * 32_768, maintype="application", subtype="pdf", filename="offerte.pdf")

    sent = mail.as_bytes()

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            assert client.sendmail("info@acme.nl", ["klant@example.org"], sent) == {}

    async def test(house: House) -> None:
        await asyncio.to_thread(send, house.port)
        [arrival] = house.spool.arrivals
        kept = text_of(arrival.content)
        body = kept[kept.index(b"--===") :]
        assert len(kept) > 8 << 20
        # smtplib leaves bare LF in bytes, adds its dots behind them, and one CRLF before the final dot
        assert body == sent[sent.index(b"--===") :].replace(b"\n", b"\r\n") + b"\r\n"

    with_house(test)


def test_everything_in_one_packet() -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            one = b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<a@example.org>\r\nRCPT TO:<nobody>\r\nDATA\r\n"
            client.send(b"EHLO callpro\r\n" + (one + MAIL + b".\r\n") * 50 + b"RSET\r\nQUIT\r\n")
            replies = [await client.reply() for _ in range(2 + 5 * 50 + 2)]
        assert [reply[:3] for reply in replies] == ["220", "250"] + ["250", "250", "553", "354", "250"] * 50 + [
            "250",
            "221",
        ]
        assert [text_of(arrival.content) for arrival in house.spool.arrivals] == [MAIL] * 50

    with_house(test)


def test_a_client_that_closes_its_side_at_once_is_served_all_the_same() -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            client.send(b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n" + MAIL + b".\r\n")
            client.writer.write_eof()
            replies = [await client.reply() for _ in range(6)]
        assert [reply[:3] for reply in replies] == ["220", "250", "250", "354", "250", ""]
        assert len(house.spool.arrivals) == 1
        await until(lambda: house.intake.numbers.open == 0)

    with_house(test)


def test_octet_by_octet() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            for octet in b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n" + MAIL + b"..\r\n.\r\n":
                client.send(bytes([octet]))
                await asyncio.sleep(0)
            replies = [await client.reply() for _ in range(4)]
        assert [reply[:3] for reply in replies] == ["250", "250", "354", "250"]
        assert text_of(house.spool.arrivals[0].content) == MAIL + b".\r\n"

    with_house(test)


@pytest.mark.parametrize("abrupt", [False, True])
def test_a_client_that_goes_in_the_middle_of_a_mail_leaves_nothing(abrupt: bool) -> None:
    async def test(house: House) -> None:
        with events("abandoned") as abandoned:
            async with house.client() as client:
                await client.begin()
                client.send(MAIL * 100 + b"\r\n.\r")
                await client.writer.drain()
                if abrupt:
                    client.reset()
            await until(lambda: house.intake.numbers.open == 0)
        assert house.spool.arrivals == []
        assert abandoned == [{"peer": "127.0.0.1", "sender": "info@acme.nl", "recipients": 1}]
        assert (house.intake.numbers.abandoned, house.intake.numbers.bugs) == (1, 0)

    with_house(test)


def test_a_client_that_goes_while_its_mail_is_being_kept() -> None:
    async def test(house: House) -> None:
        with events("accepted") as accepted:
            async with house.client() as client:
                house.spool.gate.clear()
                await client.begin()
                client.send(MAIL + b".\r\n")
                await house.spool.entered.wait()
                client.reset()
                await asyncio.sleep(0.05)
                house.spool.gate.set()
            await until(lambda: house.intake.numbers.open == 0)
        assert len(house.spool.arrivals) == len(accepted) == 1

    with_house(test)


SMUGGLING = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n.\x00\r\n"]


@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
@pytest.mark.parametrize("pause", [False, True])
def test_nothing_can_be_smuggled(sequence: bytes, pause: bool) -> None:
    smuggled = b"MAIL FROM:<evil@acme.nl>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nhi\r\n"

    async def talk(client: Client) -> str:
        client.send(MAIL + b"een" + sequence)
        if pause:
            await client.writer.drain()
            await asyncio.sleep(0.02)
        return await client.say(smuggled + b".")

    async def run() -> None:
        async with running() as house, house.client() as client:
            await client.begin()
            assert (await talk(client)).startswith("250 2.0.0")
            assert await client.say("QUIT") == "221 2.0.0 Bye"
            [arrival] = house.spool.arrivals
            assert arrival.sender == "info@acme.nl"
            assert b"MAIL FROM:<evil@acme.nl>" in arrival.content

    asyncio.run(run())
