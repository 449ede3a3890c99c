"""PROXY protocol v2: the header, whole and in pieces, from balancers and from others."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from config.relay_settings import Limits, Listen, Relay
from intake.proxy import HeaderWrong, read_header
from intake.server import Intake
from tests.waiting import LONG

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(client: str = "192.0.2.9", *, command: int = 0x21, extra: bytes = b"") -> bytes:
    address = ipaddress.ip_address(client)
    body = address.packed + address.packed + struct.pack("!HH", 40000, 25) + extra
    family = 0x11 if address.version == 4 else 0x21
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize("client", ["192.0.2.9", "2001:db8::7"])
def test_a_header_names_the_client_whatever_stands_behind_it(client):
    whole = header(client, extra=b"\x03\0\x04abcd")
    assert read_header(whole + b"EHLO x\r\n") == ((client, 40000), len(whole))
    for cut in range(len(whole)):
        assert read_header(whole[:cut]) is None


def test_a_balancer_may_speak_for_itself():
    assert read_header(SIGNATURE + b"\x20\x00\0\0") == (None, 16)


@pytest.mark.parametrize(
    "wrong",
    [
        b"EHLO client\r\n",
        b"PROXY TCP4 192.0.2.9 192.0.2.1 40000 25\r\n",
        SIGNATURE + b"\x11\x11\0\x0c" + b"\0" * 12,
        SIGNATURE + b"\x22\x11\0\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x21\x11\0\x04" + b"\0" * 4,
        SIGNATURE + b"\x21\x31\0\xd8" + b"\0" * 216,
        SIGNATURE + b"\x21\x12\0\x0c" + b"\0" * 12,
    ],
)
def test_what_is_no_such_header_is_refused(wrong):
    with pytest.raises(HeaderWrong):
        read_header(wrong)


@given(st.binary(max_size=200))
def test_no_octets_break_the_reader(data):
    for start in (b"", SIGNATURE, SIGNATURE + b"\x21\x11"):
        with contextlib.suppress(HeaderWrong):
            read_header(start + data)


class _Nothing:
    """A spool that no mail reaches."""


@pytest.mark.parametrize("balancers", [(), ("127.0.0.1",)])
def test_who_only_looks_whether_the_port_is_open_is_no_news(balancers, caplog):
    async def test() -> bytes:
        listen = Listen(address="127.0.0.1:0", proxy_protocol=balancers)
        intake = Intake(Relay(listen=(listen,), limits=Limits()), _Nothing(), lambda sender: None, "relay.test")
        await intake.start()
        (place,) = intake.addresses
        for _ in range(3):  # gone before the loop lets it in
            with socket.create_connection(place) as looking:
                looking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reader, writer = await asyncio.open_connection(*place)
        writer.write(header("127.0.0.1") if balancers else b"")
        greeting = await asyncio.wait_for(reader.readline(), LONG)
        writer.close()
        await intake.stop(1.0)
        return greeting

    assert uvloop.run(test()).startswith(b"220 ")
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


def talk(first: bytes, *, balancers: tuple[str, ...] = ("127.0.0.1",), pieces: bool = False) -> bytes:
    """What comes back for what a connection begins with."""

    async def test() -> bytes:
        listen = Listen(address="127.0.0.1:0", allow=("192.0.2.0/24",), proxy_protocol=balancers)
        intake = Intake(Relay(listen=(listen,), limits=Limits()), _Nothing(), lambda sender: None, "relay.test")
        await intake.start()
        try:
            reader, writer = await asyncio.open_connection(*intake.addresses[0])
            for part in [bytes([octet]) for octet in first] if pieces else [first]:
                writer.write(part)
                await asyncio.sleep(0)
            try:
                return await asyncio.wait_for(reader.read(), LONG)
            except OSError:
                return b""
            finally:
                writer.close()
        finally:
            await intake.stop(1)

    return asyncio.run(test())


@pytest.mark.parametrize("pieces", [False, True])
def test_allow_judges_the_client_that_the_balancer_names(pieces):
    said = talk(header("192.0.2.9") + b"EHLO x\r\nQUIT\r\n", pieces=pieces)
    assert said.startswith(b"220 relay.test")
    assert b"\r\n221 " in said
    assert talk(header("::ffff:192.0.2.9") + b"QUIT\r\n", pieces=pieces).startswith(b"220 ")
    assert talk(header("::ffff:198.51.100.1"), pieces=pieces).startswith((b"554 ", b"550 ", b"421 "))
    assert talk(header("198.51.100.1"), pieces=pieces).startswith((b"554 ", b"550 ", b"421 "))


def test_who_is_no_balancer_or_sends_no_header_hears_nothing():
    assert talk(header(), balancers=("192.0.2.7",)) == b""
    assert talk(b"EHLO x\r\n") == b""


def test_a_balancer_that_speaks_for_itself_is_judged_as_itself():
    assert talk(SIGNATURE + b"\x20\x00\0\0").startswith((b"554 ", b"550 ", b"421 "))
