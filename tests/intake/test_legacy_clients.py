"""What old programs say instead of proper SMTP, and that it is understood."""

from __future__ import annotations

import asyncio

import pytest

from config.relay_settings import CallCentre
from tests.intake.house import MAIL, Client, House, text_of, with_house

TAKEN = {
    "plain": ("<info@acme.nl>", "info@acme.nl"),
    "upper case": ("<INFO@ACME.NL>", "INFO@ACME.NL"),
    "space after the colon": (" <info@acme.nl>", "info@acme.nl"),
    "no brackets": (" info@acme.nl", "info@acme.nl"),
    "no brackets, with parameters": ("info@acme.nl SIZE=100 BODY=7BIT", "info@acme.nl"),
    "a display name": ("CallPro Mailer <info@acme.nl> SIZE=100", "info@acme.nl"),
    "a quoted display name": ('"Call@Pro, \\"B.V.\\"" <info@acme.nl>', "info@acme.nl"),
    "RET and ENVID": ("<info@acme.nl> RET=HDRS ENVID=QQ314159", "info@acme.nl"),
    "AUTH": ("<info@acme.nl> AUTH=<> SIZE=5", "info@acme.nl"),
    "SIZE and BODY": ("<info@acme.nl> SIZE=1000 BODY=8BITMIME", "info@acme.nl"),
    "a quoted local part": ('<"a b"@acme.nl>', '"a b"@acme.nl'),
    "a source route": ("<@relay.test,@other.test:info@acme.nl>", "info@acme.nl"),
    "plus and apostrophe": ("<o'hara+x=y@acme.nl>", "o'hara+x=y@acme.nl"),
    "the null sender": ("<>", ""),
    "the null sender with parameters": ("<> SIZE=10 RET=FULL", ""),
}

MALFORMED = {
    "nothing": ("", "501 5.5.4"),
    "an open bracket": ("<", "553 5.1.3"),
    "two at signs": ("<a@b@acme.nl>", "553 5.1.3"),
    "a control character": ("<in\rfo@acme.nl>", "553 5.1.3"),
    "NUL": ("<in\0fo@acme.nl>", "553 5.1.3"),
    "no domain": ("<info>", "553 5.1.7"),
    "beyond ASCII": ("<jos\u00e9@acme.nl>", "553 5.6.7"),
    "an unknown parameter": ("<info@acme.nl> FOO=1", "555 5.5.4"),
    "SMTPUTF8, which is not offered": ("<info@acme.nl> SMTPUTF8", "555 5.5.4"),
    "BODY=BINARYMIME": ("<info@acme.nl> BODY=BINARYMIME", "501 5.5.4"),
    "SIZE that is no number": ("<info@acme.nl> SIZE=many", "501 5.5.4"),
    "SIZE in other digits": ("<info@acme.nl> SIZE=\u00b2", "553 5.1.3"),
    "comments without end": ("(" * 1900, "553 5.1.3"),
}


async def deliver(client: Client, mail: bytes = MAIL) -> None:
    assert (await client.say("RCPT TO:<klant@example.org>")).startswith("250 2.1.5")
    assert (await client.say("DATA")).startswith("354 ")
    assert (await client.say(mail + b".")).startswith("250 2.0.0 Ok: queued as ")


@pytest.mark.parametrize(("argument", "sender"), TAKEN.values(), ids=TAKEN.keys())
@pytest.mark.parametrize("greeting", ["EHLO callpro.test", "HELO callpro.test", "NOOP"])
def test_mail_from_as_clients_write_it(argument: str, sender: str, greeting: str) -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            await client.reply()
            assert (await client.say(greeting)).startswith("250")
            assert await client.say(f"MAIL FROM:{argument}") == "250 2.1.0 Ok"
            await deliver(client)
        assert [arrival.sender for arrival in house.spool.arrivals] == [sender]

    with_house(test)


@pytest.mark.parametrize(("argument", "reply"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_sender_is_refused_and_the_next_one_taken(argument: str, reply: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say(f"MAIL FROM:{argument}")).startswith(reply)
            assert (await client.say("RCPT TO:<klant@example.org>")).startswith("503 5.5.1")
            assert (await client.say("DATA")).startswith("503 5.5.1")
            assert (await client.say("MAIL FROM:<info@acme.nl>")).startswith("250 ")

    with_house(test)


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("<klant@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;klant@example.org", "250 2.1.5"),
        ("klant@example.org", "250 2.1.5"),
        ("Klant <klant@example.org>", "250 2.1.5"),
        ("<klant@[192.0.2.1]>", "250 2.1.5"),
        ("<>", "553 5.1.3"),
        ("<klant>", "553 5.1.3"),
        ("<Postmaster>", "553 5.1.3"),
        ("<kl ant@example.org>", "553 5.1.3"),
        ("<klant@>", "553 5.1.3"),
        ("<kl\rant@example.org>", "553 5.1.3"),
        ("<zo\u00eb@example.org>", "553 5.6.7"),
        ("", "501 5.5.4"),
    ],
)
def test_recipients(argument: str, reply: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<info@acme.nl>")
            assert (await client.say(f"RCPT TO:{argument}")).startswith(reply)

    with_house(test)


def test_the_postmaster_needs_no_domain_where_it_is_known_who_that_is() -> None:
    """RFC 5321 4.5.1: in any case, and without a domain."""

    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say("MAIL FROM:<info@acme.nl>")
            for argument in ("<Postmaster>", "postmaster", "<POSTMASTER> NOTIFY=NEVER"):
                assert (await client.say(f"RCPT TO:{argument}")).startswith("250 2.1.5")
            assert (await client.say("RCPT TO:<webmaster>")).startswith("553 5.1.3")
            await client.say("DATA")
            assert (await client.say(MAIL, end=b".\r\n")).startswith("250 2.0.0")
        [arrival] = house.spool.arrivals
        assert arrival.recipients == ("mail@xn--mnchen-3ya.de",)

    with_house(test, call_centre=CallCentre(name="Callcenter B.V.", contact="Mail@München.de"))


@pytest.mark.parametrize("end", [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r\n"])
def test_a_client_that_only_speaks_lf_does_not_hang(end: bytes) -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            await client.reply()
            for command in ("HELO callpro", "MAIL FROM:<info@acme.nl>", "RCPT TO:<klant@example.org>", "DATA"):
                assert (await client.say(command, end=b"\n"))[0] in "23"
            mail = MAIL.replace(b"\r\n", b"\n") + b"..een punt"
            assert (await client.say(mail, end=end)).startswith("250 2.0.0")
            assert (await client.say("QUIT", end=b"\n")).startswith("221 ")
        [arrival] = house.spool.arrivals
        assert text_of(arrival.content) == MAIL + b".een punt\r\n"
        assert "line_endings" in arrival.repairs or end.startswith(b"\r\n")

    with_house(test)


def test_one_crlf_is_enough_to_be_held_to_crlf() -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            await client.reply()
            await client.say("HELO callpro", end=b"\r\n")
            for command in ("MAIL FROM:<info@acme.nl>", "RCPT TO:<klant@example.org>", "DATA"):
                await client.say(command, end=b"\n")
            client.send(MAIL + b"een\n.\nMAIL FROM:<evil@acme.nl>\n")
            assert (await client.say(b"twee", end=b"\r\n.\r\n")).startswith("250 2.0.0")
            assert (await client.say("NOOP")).startswith("250 ")
        [arrival] = house.spool.arrivals
        assert text_of(arrival.content).endswith(b"een\r\n.\r\nMAIL FROM:<evil@acme.nl>\r\ntwee\r\n")

    with_house(test)


def test_long_lines_eight_bits_and_nul_arrive() -> None:
    line = b"x" * 200_000

    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin()
            await client.say(b"Subject: caf\xe9\r\n\r\n" + line + b"\r\n\x00\xff\r\n.")
        [arrival] = house.spool.arrivals
        kept = text_of(arrival.content)
        assert kept.replace(b"=\r\n", b"").count(line) == 1
        assert max(map(len, kept.split(b"\r\n"))) <= 998
        assert arrival.repairs

    with_house(test)


def test_a_helo_name_with_accents_is_made_harmless() -> None:
    async def test(house: House) -> None:
        async with house.client(greeted=False) as client:
            await client.reply()
            assert (await client.say(b"HELO balie\xe9 1\r<x>\x1b[2J")) == "250 relay.test"
            assert (await client.say("MAIL FROM:<info@acme.nl>")).startswith("250")
            await deliver(client)
        assert house.spool.arrivals[0].helo == "balie??1?<x>?[2J"

    with_house(test)


MAIL_BEHIND = b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<jan@example.nl>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"


@pytest.mark.parametrize("first", [b"POST / HTTP/1.1", b"get http://localhost/ HTTP/1.0", b"PRI * HTTP/2.0"])
def test_commands_that_come_by_http_are_not_run(first: bytes) -> None:
    """A page in a browser, or a service that fetches what strangers name, sends what it is told to."""

    async def test(house: House) -> None:
        async with house.client() as client:
            client.send(first + b"\r\n" + MAIL_BEHIND)
            assert await client.reply() == "502 5.5.1 This is no web server, goodbye"
            assert await client.reply() == ""
        assert house.spool.arrivals == []
        assert house.intake.numbers.refused == {"5.5.1": 1}

    with_house(test)


def test_nothing_is_read_behind_the_goodbye() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            client.send(b"Host: x\r\n" * 9 + MAIL_BEHIND)
            replies = [await client.reply() for _ in range(6)]
        assert replies[4:] == ["502 5.5.1 Too many unrecognized commands, goodbye.", ""]
        assert house.spool.arrivals == []
        assert house.intake.numbers.refused == {"5.5.2": 4, "5.5.1": 1}

    with_house(test)


def test_garbage_ends_in_a_goodbye() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            client.send(b"\x16\x03\x01\x02\x00\x01\x00\r\n" * 10)
            replies = [await client.reply() for _ in range(6)]
        assert all(reply.startswith(("500 5.5.2", "502 5.5.1", "")) for reply in replies)
        assert house.intake.numbers.bugs == 0

    with_house(test)


def test_a_command_line_without_end_is_read_with_little_memory() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say(b"MAIL FROM:<" + b"a" * 3000 + b"@acme.nl>")).startswith("500 5.5.2")
            for _ in range(20):
                client.send(b"a" * 100_000)
                await client.writer.drain()
            assert (await client.say(b"")).startswith("500 5.5.2")
            assert (await client.say("NOOP")).startswith("250 ")
            await client.begin()
            await asyncio.sleep(0)
            assert (await client.say(MAIL + b".")).startswith("250 ")

    with_house(test)
