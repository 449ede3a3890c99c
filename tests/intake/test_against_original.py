"""Every override beside the aiosmtpd it overrides: the same dialogue must get the same answers and the same mail.

What differs on purpose is in `DIFFERENT`, and only that.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aiosmtpd import __version__
from aiosmtpd.smtp import SMTP, Envelope, Session
from hypothesis import given, settings
from hypothesis import strategies as st

from config.relay_settings import Limits
from intake.addresses import parse
from intake.common import Common
from intake.counters import Numbers
from intake.dialogue import Dialogue
from intake.handler import Handler
from tests.intake.house import MAIL, running, text_of
from tests.waiting import LONG

GREETING = b"EHLO callpro.test\r\n"
START = b"MAIL FROM:<info@acme.nl> SIZE=100 BODY=8BITMIME\r\n"
TO = b"RCPT TO:<klant@example.org>\r\n"
CONTENT = MAIL + b"..punt\r\n...\r\n" + b"regel\r\n" * 20 + b".\r\n"

MAILS = [
    b"MAIL\r\n", b"MAIL FROM\r\n", b"MAIL FROM:\r\n", b"MAIL TO:<info@acme.nl>\r\n", b"MAIL FROM:<a@b@c>\r\n",
    b"MAIL FROM:<in\x00fo@>\r\n", b"MAIL FROM:<info@acme.nl> SIZE=x\r\n", b"MAIL FROM:<info@acme.nl> FOO=1\r\n",
    b"MAIL FROM:<info@acme.nl> SIZE=99999999999\r\n", b"MAIL FROM:<info@acme.nl> BODY=BINARYMIME\r\n",
    START + b"RCPT TO:\r\n", START + b"RCPT TO:<@>\r\n", START + TO + b"DATA\r\n" + CONTENT,
    START + TO + TO.replace(b"klant", b"k2") + b"DATA\r\n.\r\n",
    b"MAIL FROM:<info@acme.nl>\r\n" + TO + b"rcpt to: <k2@example.org>\nDATA\r\n" + CONTENT,
    b"mail from:  <Info@Globex.NL>\r\n" + TO + b"RCPT TO:<k@b> \r\nDATA\r\n" + CONTENT,
    b"MAIL FROM:<info@acme.nl>\r\nRCPT TO:<" + b"x" * 3000 + b"@example.org>\r\nRSET\r\n",
    b"MAIL FROM:<info@acme.nl>x\r\n",
    b"MAIL FROM: info@acme.nl SIZE=5\r\n" + TO + b"DATA\r\n" + MAIL + b"\r\n\r\n.\r\n",
]  # fmt: skip
SAME = [
    GREETING, b"EHLO\r\n", b"HELO\r\n", b"NOOP\r\n", b"NOOP x\r\n", b"RSET\r\n", b"RSET x\r\n", b"QUIT x\r\n",
    b"HELP\r\n", b"HELP RCPT\r\n", b"HELP FOO\r\n", b"VRFY klant@example.org\r\n", b"VRFY\r\n", b"EXPN staff\r\n",
    b"\r\n", b"\xff\xfe\r\n", b"RCPT\r\n", b"RCPT TO:<klant@example.org>\r\n", b"DATA\r\n", b"DATA x\r\n",
    *(b"RSET\r\n" + mail for mail in MAILS),
]  # fmt: skip

DIFFERENT = {
    "no greeting: old programs begin with MAIL": (b"", START, "503", "250"),
    "parameters after HELO": (b"HELO x\r\n", START, "501", "250"),
    "a second MAIL starts over": (GREETING + START, START, "503", "250"),
    "RET, ENVID and AUTH say nothing": (GREETING, START[:-2] + b" RET=HDRS AUTH=<>\r\n", "555", "250"),
    "NOTIFY says nothing": (GREETING + START, TO[:-2] + b" NOTIFY=NEVER\r\n", "555", "250"),
    "a display name": (GREETING, b'MAIL FROM:"Call Pro" <info@acme.nl>\r\n', "501", "250"),
    "garbage is no bug": (GREETING, b"VRFY <\r\n", "500", "502"),
    "an address is not mended": (GREETING + START, b"RCPT TO:<k l@example.org>\r\n", "250", "553"),
    "nor is it truncated to none": (GREETING + START, b"RCPT TO:<>\r\n", "250", "553"),
    "a sender needs a domain": (GREETING, b"MAIL FROM:<info>\r\n", "250", "553"),
    "8 bits in a name are harmless": (b"", b"HELO balie\xe9\r\n", "500", "250"),
    "an address beyond ASCII has a code of its own": (GREETING, b"MAIL FROM:<\xc3\xa9@acme.nl>\r\n", "500", "553"),
    "DATA when all recipients were refused": (GREETING + START, b"DATA\r\n", "503", "554"),
    "no AUTH": (GREETING, b"AUTH PLAIN AGEAYg==\r\n", "538", "500"),
    "no STARTTLS": (GREETING, b"STARTTLS\r\n", "454", "500"),
    "long lines of content": (GREETING + START + TO + b"DATA\r\n", b"x" * 5000 + b"\r\n.\r\n", "500", "250"),
    "long parameters": (GREETING, START[:-2] + b" ENVID=" + b"x" * 600 + b"\r\n", "500", "250"),
}


class Original:
    """What aiosmtpd's own Debugging handler would do, kept."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _o: Any) -> str:
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert envelope.mail_from is not None
        assert isinstance(envelope.content, bytes)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


async def replies(port: int, octets: bytes) -> list[str]:
    """The code of every reply to a dialogue that ends in QUIT, sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets + b"QUIT\r\n")
    answer = await asyncio.wait_for(reader.read(), LONG)
    writer.close()
    return [line[:3].decode() for line in answer.splitlines() if line[3:4] != b"-"]


async def by_original(octets: bytes) -> tuple[list[str], list[tuple[str, list[str], bytes]]]:
    loop, handler = asyncio.get_running_loop(), Original()
    server = await loop.create_server(
        lambda: SMTP(handler, hostname="relay.test", loop=loop, data_size_limit=35 << 20), "127.0.0.1", 0
    )
    async with server:
        return await replies(server.sockets[0].getsockname()[1], octets), handler.mails


async def by_us(octets: bytes) -> tuple[list[str], list[tuple[str, list[str], bytes]]]:
    async with running() as house:
        codes = await replies(house.port, octets)
        return codes, [(mail.sender, list(mail.recipients), text_of(mail.content)) for mail in house.spool.arrivals]


def test_this_is_the_version_that_was_read() -> None:
    assert __version__ == "1.4.6"


@pytest.mark.parametrize(
    "command",
    [*SAME, b"FOO\r\n", b"FOO\r\n" * 6, b"HELO x\r\nRCPT TO:<a@b>\r\n"],
    ids=lambda command: repr(command[:40]),
)
def test_one_command(command: bytes) -> None:
    async def run() -> None:
        assert (await by_us(GREETING + command))[0] == (await by_original(GREETING + command))[0]

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(SAME), max_size=12))
def test_any_dialogue(commands: list[bytes]) -> None:
    octets = GREETING + b"".join(commands)

    async def run() -> None:
        ours, original = await by_us(octets), await by_original(octets)
        assert [code.replace("554", "503") for code in ours[0]] == original[0]  # DATA without recipients, see DIFFERENT
        assert [mail[:2] for mail in ours[1]] == [mail[:2] for mail in original[1]]
        for kept, sent in zip(ours[1], original[1], strict=True):
            assert kept[2].endswith(sent[2])  # repairs may add fields in front

    asyncio.run(run())


@pytest.mark.parametrize(("before", "command", "original", "ours"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_differs_on_purpose(before: bytes, command: bytes, original: str, ours: str) -> None:
    async def run() -> None:
        assert (await by_original(before + command))[0][-2:] == [original, "221"]
        assert (await by_us(before + command))[0][-2:] == [ours, "221"]

    asyncio.run(run())


ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
ADDRESS = rf"{ATOM}(\.{ATOM})?@[a-z0-9]+(-[a-z0-9]+)*(\.[A-Z0-9_]+)*"


@given(st.from_regex(rf"\A(<{ADDRESS}>|{ADDRESS})( SIZE=[0-9]+)?\Z"))
def test_a_plain_address_is_read_as_the_original_reads_it(argument: str) -> None:
    def never(text: str) -> tuple[str | None, str | None]:
        raise AssertionError(f"{text} is plain")

    assert parse(argument, never) == SMTP._getaddr(object.__new__(SMTP), argument)


def test_nothing_is_left_out_of_the_short_lists_of_names() -> None:
    nothing: Any = None
    handler = Handler(Limits(), nothing, lambda _sender: None, "relay.test", lambda: 0.0, Numbers())
    assert {name for name in vars(Handler) if name.startswith("handle_")} == {
        f"handle_{name}" for name in handler.hooks
    }
    commands = {f"smtp_{name}" for name in Dialogue.methods}
    assert {name for name in vars(Dialogue) if name.startswith("smtp_")} <= commands
    original = {name for name in vars(SMTP) if name.startswith("smtp_")}
    assert original - commands == {"smtp_AUTH", "smtp_STARTTLS"}


def test_a_new_connection_has_all_that_the_original_sets_up() -> None:
    """But for what belongs to its stream, and to the call limits that are not asked for."""

    async def run() -> tuple[set[str], Dialogue, set[str]]:
        async with running() as house:
            common: Common = house.intake._common
            loop = asyncio.get_running_loop()
            stream = asyncio.StreamReaderProtocol(asyncio.StreamReader(), lambda _reader, _writer: None)
            original = SMTP(Original(), hostname="relay.test", loop=loop)
            return set(vars(original)), Dialogue(common, (), loop), set(vars(stream))

    original, ours, stream = asyncio.run(run())
    made_with_the_connection = {"session", "envelope", "_handler_coroutine"}
    missing = {name for name in original - stream - made_with_the_connection if not hasattr(ours, name)}
    assert missing == set()


@pytest.mark.parametrize("group", [1, 2, 30])
def test_replies_to_a_group_of_commands_go_out_together_and_in_order(group: int) -> None:
    """One client write of a whole group, as RFC 2920 has it; the original answers each in a write of its own."""

    async def run() -> list[bytes]:
        async with running() as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            await reader.readline()
            writer.write(GREETING)
            await reader.readuntil(b"250 HELP\r\n")
            mail = START + b"".join(b"RCPT TO:<klant%d@example.org>\r\n" % number for number in range(group))
            writer.write(mail + b"DATA\r\n")
            first = await reader.readuntil(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            writer.write(MAIL + b".\r\nNOOP\r\nQUIT\r\n")
            rest = await reader.read()
            writer.close()
            return [*first.splitlines(), *rest.splitlines()]

    codes = [line[:9] for line in asyncio.run(run())]
    assert codes == [b"250 2.1.0", *[b"250 2.1.5"] * group, b"354 End d", b"250 2.0.0", b"250 2.0.0", b"221 2.0.0"]


def test_commands_have_their_help() -> None:
    async def run() -> str:
        async with running() as house, house.client() as client:
            return await client.say("HELP")

    offered = asyncio.run(run())
    assert re.findall(r"[A-Z]{4}", offered) == [
        "DATA",
        "EHLO",
        "HELO",
        "HELP",
        "MAIL",
        "NOOP",
        "QUIT",
        "RCPT",
        "RSET",
        "VRFY",
    ]
