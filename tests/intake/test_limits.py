"""Who may connect, how many, how long they may be silent, how much memory they get, and how it all ends."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from config.relay_settings import Limits, Listen, Relay
from intake.inbound import Inbound
from intake.server import Intake
from tests.intake.house import MAIL, Client, House, events, match, running, with_house
from tests.waiting import LONG, until


def test_a_peer_outside_the_allow_list_is_refused_at_once() -> None:
    async def test(house: House) -> None:
        with events("client_refused") as refused:
            async with house.client(greeted=False) as client:
                reply = await client.reply()
                assert reply.startswith("554 5.7.1 ")
                assert await client.reply() == ""
        assert refused == [{"peer": "127.0.0.1", "reply": reply}]
        assert (house.intake.numbers.turned_away, house.intake.numbers.connections) == (1, 0)

    with_house(test, allow=("192.0.2.0/24", "::1"))


@pytest.mark.parametrize(("allow", "code"), [(("::1",), "220"), (("2001:db8::/32", "127.0.0.1"), "554")])
def test_an_ipv6_listener(allow: tuple[str, ...], code: str) -> None:
    async def run() -> None:
        async with running(allow=allow, address="[::1]:0") as house:
            client = Client(*await asyncio.open_connection("::1", house.port))
            assert (await client.reply()).startswith(code)
            await client.close()

    if not ipv6_here():
        pytest.skip("no IPv6 here")
    asyncio.run(run())


def ipv6_here() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_address_that_is_taken_is_named() -> None:
    async def test(house: House) -> None:
        taken = f"127.0.0.1:{house.port}"
        relay = Relay(listen=(Listen(address="127.0.0.1:0"), Listen(address=taken)), limits=Limits())
        second = Intake(relay, house.spool, match, "relay.test")
        with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use; another program"):
            await second.start()

    with_house(test)


def test_connections_beyond_the_limit_are_told_421() -> None:
    async def test(house: House) -> None:
        async with house.client() as one, house.client() as two:
            async with house.client(greeted=False) as three:
                assert (await three.reply()).startswith("421 4.3.2")
                assert await three.reply() == ""
            assert (await one.say("QUIT")).startswith("221")
            await until(lambda: house.intake.numbers.open == 1)
            async with house.client():
                assert (await two.say("NOOP")).startswith("250")

    with_house(test, connections=2)


def test_a_silent_client_is_told_421() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.reply()).startswith("421 4.4.2")
            assert await client.reply() == ""
        async with house.client() as client:
            await client.begin()
            assert (await client.reply()).startswith("421 4.4.2")
        assert house.intake.numbers.refused["4.4.2"] == 2
        assert house.intake.numbers.abandoned == 1

    with_house(test, idle=1.0)


def test_a_slow_client_is_not_a_silent_one_and_waiting_for_us_is_no_silence() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.begin()
            for position in range(0, len(MAIL), 20):
                client.send(MAIL[position : position + 20])
                await asyncio.sleep(0.15)
            house.spool.gate.clear()
            client.send(b".\r\n")
            await house.spool.entered.wait()
            await asyncio.sleep(1.3)
            house.spool.gate.set()
            assert (await client.reply()).startswith("250 2.0.0")

    with_house(test, idle=1.2)


def test_hundreds_of_slow_clients_are_all_served() -> None:
    """Each stops in the middle of its mail; all are answered when they go on."""

    async def run() -> None:
        async with running() as house:
            clients = [await connected(house.port) for _ in range(300)]
            for client in clients:
                client.send(b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<a@example.org>\r\nDATA\r\n" + MAIL + b"x" * 20_000)
            await asyncio.sleep(0.1)
            for client in clients:
                client.send(b"\r\n.\r\nQUIT\r\n")
            for client in clients:
                replies = [await client.reply() for _ in range(7)]
                assert [reply[:3] for reply in replies] == ["220", "250", "250", "354", "250", "221", ""]
                await client.close()
            assert house.intake.numbers.accepted == 300
            await until(lambda: house.intake.numbers.open == 0)

    asyncio.run(run())


async def connected(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


def test_a_client_that_sends_far_ahead_leaves_the_others_their_turn() -> None:
    async def test() -> None:
        inbound, turns = Inbound(asyncio.Transport(), asyncio.get_running_loop()), 0
        inbound.feed(b"NOOP\r\n" * 1000)

        async def somebody_else() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(somebody_else())
        for _ in range(1000):
            assert await inbound.line() == b"NOOP\r\n"
        other.cancel()
        assert turns >= 50

    asyncio.run(test())


@pytest.mark.parametrize("slip", ["", "\x00\xff", "RCPT TO:<jan@example.nl>", "DATA", "MAIL"])
def test_a_client_that_speaks_no_smtp_is_turned_out_and_cannot_fill_the_log(slip: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            client.send((slip + "\r\n").encode("latin-1") * 1000)
            replies = [await client.reply() for _ in range(21)]
            assert {reply[0] for reply in replies[:20]} == {"5"}
            assert replies[20].startswith("421 4.7.0 Too many")
            assert await client.reply() == ""

    with_house(test)


def test_a_client_that_reads_no_answers_does_not_keep_its_place() -> None:
    async def test(house: House) -> None:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", house.port))
            await until(lambda: house.intake.numbers.open == 1)
            [dialogue] = house.intake._common.open
            ours = dialogue.transport.get_extra_info("socket")  # type: ignore[attr-defined]
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that few answers fill what lies between
            lines = b"MAIL FROM:<info@acme.nl>\r\n" + (b"RCPT TO:<" + b"x" * 190 + b">\r\n") * 3000
            sending = asyncio.create_task(loop.sock_sendall(deaf, lines))
            await until(lambda: house.intake.numbers.refused["4.4.2"] == 1)
            await until(lambda: house.intake.numbers.open == 0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    with_house(test, idle=1.0)


def test_slips_are_forgotten_after_a_mail() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            for _ in range(3):
                for _ in range(15):
                    assert (await client.say("")).startswith("500 ")
                await client.begin()
                assert (await client.say("From: a@acme.nl\r\n\r\nText\r\n.")).startswith("250 2.0.0")

    with_house(test)


def test_stop_says_goodbye_to_the_idle_and_lets_a_mail_end() -> None:
    async def run() -> None:
        async with running() as house, house.client() as idle, house.client() as busy:
            await busy.begin()
            port = house.port
            stopping = asyncio.create_task(house.intake.stop(10))
            assert (await idle.reply()).startswith("421 4.3.2")
            assert await idle.reply() == ""
            with pytest.raises(OSError, match=r"refused|failed"):
                await connected(port)
            assert not stopping.done()
            assert (await busy.say(MAIL + b".")).startswith("250 2.0.0")
            assert (await busy.reply()).startswith("421 4.3.2")
            await asyncio.wait_for(stopping, LONG)
            assert len(house.spool.arrivals) == 1

    asyncio.run(run())


def test_stop_does_not_wait_longer_than_its_grace() -> None:
    async def run() -> None:
        async with running() as house, house.client() as one, house.client() as two:
            await one.begin()
            await two.begin()
            house.spool.gate.clear()
            two.send(MAIL + b".\r\n")
            await house.spool.entered.wait()
            await asyncio.wait_for(house.intake.stop(0.1), LONG)
            assert house.intake.numbers.open == 0
            assert await one.reply() == ""
            assert house.spool.arrivals == []

    asyncio.run(run())


def test_stop_with_nobody_there_is_at_once() -> None:
    async def run() -> None:
        async with running() as house:
            began = time.monotonic()
            await house.intake.stop(60)
            assert time.monotonic() - began < 30

    asyncio.run(run())


@pytest.mark.parametrize(
    "command",
    [
        "HELP",
        "HELP MAIL",
        "NOOP",
        "NOOP x",
        "RSET",
        "VRFY info@acme.nl",
        "EXPN staff",
        "AUTH PLAIN AGEAYg==",
        "STARTTLS",
        "BDAT 10",
        "TURN",
    ],
)
def test_every_reply_after_ehlo_carries_an_enhanced_status_code(command: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            reply = await client.say(command)
            assert reply[4:6] == reply[0] + "."

    with_house(test)


def test_what_ehlo_offers() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            offered = (await client.say("EHLO callpro.test")).splitlines()
        assert offered[0] == "250-relay.test"
        assert {line[4:] for line in offered[1:]} == {
            "SIZE 36700160", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "HELP",
        }  # fmt: skip
        assert offered[-1].startswith("250 ")

    with_house(test)
