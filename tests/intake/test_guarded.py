"""Listeners for other clients than CallPro: STARTTLS, logins, and what one address may ask."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from config.credentials import Secret
from config.relay_settings import ListenTls, PerPeer, User
from intake.peers import Peers, Rate
from tests.fakes.authority import Authority
from tests.intake.house import MAIL, House, events, running, text_of, with_house
from tests.waiting import until

USERS = (User(name="scanner", password=Secret("env:S", "s3cret é")), User(name="crm", password=Secret("env:C", "x")))
BEGIN = "MAIL FROM:<info@acme.nl>"


def plain(name: str, password: str, acts_as: str = "") -> str:
    return b64encode(f"{acts_as}\0{name}\0{password}".encode()).decode()


def tls(authority: Authority, folder: Path, **more: bool) -> ListenTls:
    chain, key = authority.server_files(folder)
    return ListenTls(certificate=chain, key=Secret("file", key.read_text()), **more)


def by_smtplib(port: int, trust: Path, login: tuple[str, str] | None = None) -> dict[str, Any]:
    """A mail by Python's own client over STARTTLS, which checks our certificate; what it saw."""
    with smtplib.SMTP("localhost", port, timeout=30) as client:
        client.ehlo("balie.test")
        before = dict(client.esmtp_features)
        client.starttls(context=ssl.create_default_context(cafile=str(trust)))
        client.ehlo("balie.test")
        after = dict(client.esmtp_features)
        if login:
            client.login(*login)
        client.sendmail("info@acme.nl", ["klant@example.org"], MAIL)
        return {"before": before, "after": after, "cipher": client.sock.cipher()}


def test_mail_over_starttls_with_a_login(authority: Authority, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        seen = await asyncio.to_thread(by_smtplib, house.port, authority.bundle, ("crm", "x"))
        assert "starttls" in seen["before"]
        assert "auth" not in seen["before"]
        assert "starttls" not in seen["after"]
        assert seen["after"]["auth"].split() == ["PLAIN", "LOGIN"]
        assert seen["cipher"][1] in ("TLSv1.2", "TLSv1.3")
        [arrival] = house.spool.arrivals
        assert text_of(arrival.content) == MAIL
        assert b" with ESMTPSA id " in arrival.content

    with_house(test, guard={"tls": tls(authority, tmp_path), "users": USERS})


def test_without_users_tls_is_offered_and_not_asked_for(authority: Authority, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        await asyncio.to_thread(by_smtplib, house.port, authority.bundle)
        async with house.client() as client:
            await client.begin()
            assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
        assert [b" with ESMTPS id " in one.content for one in house.spool.arrivals] == [True, False]

    with_house(test, guard={"tls": tls(authority, tmp_path)})


def test_tls_that_is_required(authority: Authority, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say(BEGIN)).startswith("530 5.7.0 Say STARTTLS first")
        await asyncio.to_thread(by_smtplib, house.port, authority.bundle)

    with_house(test, guard={"tls": tls(authority, tmp_path, required=True)})


def test_commands_smuggled_in_before_tls_are_refused(authority: Authority, tmp_path: Path) -> None:
    """What stands behind STARTTLS in one packet was not said by whom TLS proves (CVE-2011-0411)."""

    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say("STARTTLS\r\nMAIL FROM:<info@acme.nl>")).startswith("554 5.5.1")
            assert await client.reply() == ""

    with_house(test, guard={"tls": tls(authority, tmp_path)})


def test_what_was_said_before_tls_is_forgotten(authority: Authority, tmp_path: Path) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            await client.say(BEGIN)
            assert (await client.say("STARTTLS")).startswith("220 2.0.0")
            await client.writer.start_tls(
                ssl.create_default_context(cafile=str(authority.bundle)), server_hostname="localhost"
            )
            assert (await client.say("RCPT TO:<klant@example.org>")).startswith("503 ")
            assert (await client.say("STARTTLS")).startswith("503 5.5.1")
            await client.begin()
            large = MAIL + b"%070d\r\n" % 1 * 30_000
            assert (await client.say(large + b".")).startswith("250 2.0.0")
            assert (await client.say("QUIT")).startswith("221 ")
        [arrival] = house.spool.arrivals
        assert (text_of(arrival.content), arrival.helo) == (large, "")

    with_house(test, guard={"tls": tls(authority, tmp_path)})


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_a_handshake_that_fails_ends_the_connection_and_is_logged(
    hello: bytes, authority: Authority, tmp_path: Path
) -> None:
    async def test(house: House) -> None:
        with events("tls_failed") as failed:
            async with house.client() as client:
                assert (await client.say("STARTTLS")).startswith("220 2.0.0")
                if hello:
                    client.send(hello)
                    await client.reader.read()
                else:
                    client.reset()
            await until(lambda: house.intake.numbers.open == 0)
        assert len(failed) == (1 if hello else len(failed))
        assert house.intake.numbers.bugs == 0

    with_house(test, guard={"tls": tls(authority, tmp_path)})


@pytest.mark.parametrize(
    ("exchange", "last"),
    [
        ([f"AUTH PLAIN {plain('scanner', 's3cret é')}"], "235 2.7.0"),
        (["AUTH plain", plain("scanner", "s3cret é", "scanner")], "235 2.7.0"),
        (["AUTH LOGIN", b64encode(b"crm").decode(), b64encode(b"x").decode()], "235 2.7.0"),
        ([f"AUTH LOGIN {b64encode(b'crm').decode()}", b64encode(b"x").decode()], "235 2.7.0"),
        ([f"AUTH PLAIN {plain('scanner', 'x')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain('nobody', '')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain('crm', 'x', 'scanner')}"], "501 5.5.2"),
        (["AUTH PLAIN =="], "501 5.5.2"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH PLAIN", "\u00e9"], "501 5.5.2"),
        (["AUTH PLAIN", "x" * 13_000], "500 5.5.6"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        (["AUTH"], "504 5.5.4"),
    ],
)
def test_logins(exchange: list[str], last: str) -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            assert (await client.say(BEGIN)).startswith("530 5.7.0 Log in first")
            replies = [await client.say(line) for line in exchange]
            assert replies[-1].startswith(last)
            assert all(reply.startswith("334 ") for reply in replies[:-1])
            if last.startswith("500"):
                assert await client.reply() == ""
                return
            assert (await client.say(BEGIN)).startswith("250" if last.startswith("235") else "530")
            if last.startswith("235"):
                assert (await client.say(exchange[0])).startswith("503 5.5.1")

    with_house(test, guard={"users": USERS})


def test_passwords_are_guessed_three_times_a_connection_and_ten_times_a_minute() -> None:
    async def test(house: House) -> None:
        wrong = f"AUTH PLAIN {plain('scanner', 'guess')}"
        with events("login_refused") as refused, events("refused") as replies:
            for _ in range(3):
                async with house.client() as client:
                    assert [(await client.say(wrong))[:3] for _ in range(3)] == ["535", "535", "421"]
                    assert await client.reply() == ""
            async with house.client() as client:
                assert (await client.say(wrong)).startswith("535")
                right = f"AUTH PLAIN {plain('scanner', 's3cret é')}"
                assert (await client.say(right)).startswith("454 4.7.0 Too many wrong logins")
        assert refused == [{"peer": "127.0.0.1", "user": "scanner"}] * 10
        assert "guess" not in str(replies)
        assert plain("scanner", "guess") not in str(replies)

    with_house(test, guard={"users": USERS})


def test_a_password_is_not_taken_without_tls_from_a_network(authority: Authority, tmp_path: Path) -> None:
    async def run() -> None:
        guard = {"tls": tls(authority, tmp_path), "users": USERS}
        async with running(address="0.0.0.0:0", guard=guard) as house, house.client() as client:
            assert "AUTH" not in await client.say("EHLO x")
            assert (await client.say(f"AUTH PLAIN {plain('crm', 'x')}")).startswith("538 5.7.11")

    asyncio.run(run())


def test_a_certificate_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    chain, key = authority.server_files(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    _, wrong_key = authority.server_files(other)
    for certificate, text, says in (
        (chain, wrong_key.read_text(), "the key is not that of"),
        (tmp_path / "none.pem", key.read_text(), "cannot be read"),
        (chain, "no key", "cannot be used"),
    ):

        async def start(certificate: Path = certificate, text: str = text) -> None:
            async with running(guard={"tls": ListenTls(certificate=certificate, key=Secret("file", text))}):
                pass

        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:0: tls: .*{says}"):
            asyncio.run(start())


def test_so_many_connections_at_a_time_from_one_address() -> None:
    async def test(house: House) -> None:
        async with house.client(), house.client() as two:
            async with house.client(greeted=False) as three:
                assert (await three.reply()).startswith("421 4.7.0 Your address has 2 connections open")
            await two.say("QUIT")
            await until(lambda: house.intake.numbers.open == 1)
            async with house.client():
                pass
        await until(lambda: house.intake.numbers.open == 0)
        async with house.client(), house.client():
            pass

    with_house(test, guard={"per_peer": PerPeer(connections=2)})


def test_so_many_connections_and_mails_a_minute_from_one_address() -> None:
    async def test(house: House) -> None:
        async with house.client() as client:
            for _ in range(3):
                await client.begin()
                assert (await client.say(MAIL + b".")).startswith("250 2.0.0")
            assert (await client.say(BEGIN)).startswith("450 4.7.1 Your address may send 3 mails a minute")
            assert (await client.say("RCPT TO:<klant@example.org>")).startswith("503")
        async with house.client():
            pass
        async with house.client(greeted=False) as client:
            assert (await client.reply()).startswith("421 4.7.0 Your address may connect 2 times a minute")
        assert len(house.spool.arrivals) == 3

    with_house(test, guard={"per_peer": PerPeer(connections_per_minute=2, mails_per_minute=3)})


def test_an_allowance_comes_back_with_time_and_for_each_by_itself() -> None:
    rate = Rate(6)
    assert [rate.take("a", 100.0) for _ in range(7)] == [True] * 6 + [False]
    assert rate.take("b", 100.0)
    assert not rate.take("a", 109.0)
    assert rate.take("a", 110.0)
    assert not rate.take("a", 110.0)
    assert [rate.take("a", 1000.0) for _ in range(7)] == [True] * 6 + [False]


def test_addresses_are_forgotten_and_an_ipv6_network_is_one_peer() -> None:
    peers = Peers(PerPeer(connections=1, connections_per_minute=60_000))
    for number in range(20_000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        assert peers.enter(address, float(number)) is None
        peers.leave(address)
    assert len(peers._connections._left) <= 4096
    assert not peers._open
    assert peers.enter("2001:db8::1", 0.0) is None
    assert peers.enter("2001:db8::2%eth0", 0.0) is not None
    assert peers.enter("2001:db8:0:1::2", 0.0) is None


def test_callpros_own_listener_pays_nothing_for_it() -> None:
    async def test(house: House) -> None:
        assert {type(one).__name__ for one in house.intake._common.open} == set()
        async with house.client() as client:
            assert {type(one).__name__ for one in house.intake._common.open} == {"Dialogue"}
            assert (await client.say("STARTTLS")).startswith("500 ")

    with_house(test)
