"""One connection of the look-alike SMTP server: reads strictly, answers by script or as usual, notes every breach."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fakes.smtp_script import Cut, Raw, Stall

if TYPE_CHECKING:
    from tests.fakes.smtp import FakeSmtp


@dataclass(frozen=True, slots=True)
class Received:
    """One mail that the server took. `content` is after removing dot-stuffing; `parameters` those of MAIL."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: dict[str, str]
    connection: int
    peer: str
    ehlo: str
    tls: bool
    user: str | None


@dataclass(slots=True)
class Session:
    """What the server knows of one connection."""

    number: int
    peer: str
    ehlo: str = ""
    tls: bool = False
    user: str | None = None
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)


class HangUp(Exception):
    """The conversation is over."""


_PATH = re.compile(r"<([^<>\s]*|\"[^\"]*\"@[^<>\s]+)>((?: [A-Za-z0-9][A-Za-z0-9-]*(?:=[!-<>-~]+)?)*)\Z")
_EHLO = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f.:IPv]+\])\Z")
_XOAUTH2 = re.compile(r"user=([^\x00-\x20]+)\x01auth=Bearer ([!-~]+)\x01\x01\Z")
_COMMANDS = ("EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT")
_MUST_BE_LAST = ("EHLO", "HELO", "STARTTLS", "DATA", "AUTH", "QUIT", "NOOP")
"""Commands that may only end a pipelined group (RFC 2920 3.1)."""


class Conversation:
    """One connection from greeting to farewell."""

    def __init__(
        self, server: FakeSmtp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.buffer = bytearray()
        self.session = Session(number, writer.get_extra_info("peername")[0], tls=server.implicit_tls is not None)
        self._note_resumption()

    async def run(self) -> None:
        await self.answer("220 fake.example ESMTP", "CONNECT")
        while True:
            line = await self.line()
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            self.server.commands.append("AUTH ***" if verb == "AUTH" else line)
            self._check_grouping(verb)
            command = getattr(self, f"_{verb.lower()}") if verb in _COMMANDS else None
            if command is None:
                await self.fault("500 5.5.2", f"unknown command {line!r}")
            else:
                await command(rest)

    # ---- reading and answering

    async def _more(self) -> None:
        data = await self.reader.read(1 << 18)
        if not data:
            raise HangUp
        self.buffer += data

    async def line(self) -> str:
        """The next command line, without CRLF."""
        while (end := self.buffer.find(b"\n")) < 0:
            await self._more()
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            self.server.faults.append(f"line without a proper CRLF: {line!r}")
        return line.rstrip(b"\r\n").decode("utf-8", "replace")

    async def answer(self, usual: str, *steps: str) -> bool:
        """Give the scripted or the usual reply. True when it was positive (2xx or 3xx)."""
        action = self.server.scripted(*steps) or usual
        if isinstance(action, Cut):
            self._cut(action)
        if isinstance(action, Stall):
            await self._stall(action)
        if isinstance(action, Raw):
            return await self._raw(action)
        assert isinstance(action, str)
        self.writer.write(_wire(action))
        await self.writer.drain()
        if action.startswith("421"):
            raise HangUp
        return action[0] in "23"

    def _cut(self, cut: Cut) -> None:
        if cut.reset:
            self.writer.transport.abort()
        raise HangUp

    async def _stall(self, stall: Stall) -> None:
        self.server.stalled += 1
        if stall.deaf:
            await self.server.hearing.wait()
        while True:
            await self._more()

    async def _raw(self, raw: Raw) -> bool:
        for packet in raw.packets:
            self.writer.write(packet)
            await self.writer.drain()
            await asyncio.sleep(0.005)
        if raw.hang_up:
            raise HangUp
        return raw.packets[0][:1] in (b"2", b"3")

    async def fault(self, code: str, what: str) -> None:
        self.server.faults.append(what)
        await self.answer(f"{code} {what.encode('ascii', 'replace').decode()}")

    def _check_grouping(self, verb: str) -> None:
        if self.buffer and "PIPELINING" not in self.server.keywords:
            self.server.faults.append(f"{verb} was not waited for, and PIPELINING is not offered")
        elif self.buffer and verb in _MUST_BE_LAST:
            self.server.faults.append(f"{verb} must end a group (RFC 2920)")

    # ---- opening

    async def _ehlo(self, name: str) -> None:
        if not _EHLO.match(name):
            await self.fault("501 5.5.4", f"EHLO with a bad name {name!r}")
        elif await self.answer("250-fake.example\n" + "\n".join(self._offers()), "EHLO"):
            self._forget()
            self.session.ehlo = name

    async def _helo(self, name: str) -> None:
        if await self.answer("250 fake.example", "HELO"):
            self._forget()
            self.session.ehlo = name

    def _offers(self) -> list[str]:
        offers = list(self.server.keywords)
        if self.server.starttls and self.server.advertise_starttls and not self.session.tls:
            offers.append("STARTTLS")
        if self._wants_login and not self._needs_tls:
            offers.append("AUTH " + " ".join(self.server.mechanisms))
        return offers or ["HELP"]

    @property
    def _wants_login(self) -> bool:
        return bool(self.server.users or self.server.bearer)

    @property
    def _needs_tls(self) -> bool:
        return self.server.starttls is not None and not self.session.tls

    async def _starttls(self, rest: str) -> None:
        context = self.server.starttls
        if context is None or self.session.tls or rest:
            await self.fault("503 5.5.1", "STARTTLS that was not offered")
        elif await self.answer("220 2.0.0 go ahead", "STARTTLS"):
            if self.buffer:
                self.server.faults.append("clear text after STARTTLS")
            try:
                await self.writer.start_tls(context)
            except (ssl.SSLError, OSError) as error:
                raise HangUp from error
            self.session = Session(self.session.number, self.session.peer, tls=True)
            self._note_resumption()

    def _note_resumption(self) -> None:
        tls = self.writer.get_extra_info("ssl_object")
        self.server.resumed += bool(tls and tls.session_reused)

    # ---- login

    async def _auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if self._needs_tls:
            await self.fault("538 5.7.11", "AUTH before TLS: the password went in clear")
        elif not self._wants_login or mechanism.upper() not in self.server.mechanisms:
            await self.fault("504 5.5.4", f"AUTH {mechanism} was not offered")
        elif self.session.user or self.session.sender is not None:
            await self.fault("503 5.5.1", "AUTH a second time or within a mail")
        else:
            await self._verdict(*await self._credentials(mechanism.upper(), initial))

    async def _credentials(self, mechanism: str, initial: str) -> tuple[str, str]:
        try:
            if mechanism == "PLAIN":
                _, user, password = _base64(initial or await self._challenge("")).split("\0")
                return user, password
            if mechanism == "XOAUTH2":
                match = _XOAUTH2.match(_base64(initial or await self._challenge("")))
                if match is None:
                    raise ValueError("not a SASL XOAUTH2 initial response")
                return match[1], match[2]
            user = _base64(initial or await self._challenge("VXNlcm5hbWU6"))
            return user, _base64(await self._challenge("UGFzc3dvcmQ6"))
        except (binascii.Error, UnicodeDecodeError, ValueError):
            await self.fault("501 5.5.2", "AUTH argument that cannot be read")
            raise HangUp from None

    async def _challenge(self, prompt: str) -> str:
        await self.answer(f"334 {prompt}")
        return await self.line()

    async def _verdict(self, user: str, password: str) -> None:
        judge = self.server.bearer
        right = judge(user, password) if judge else self.server.users.get(user) == password
        self.server.logins.append((user, right))
        refused = "535 5.7.3 Authentication unsuccessful" if judge else "535 5.7.8 bad user name or password"
        if judge and not right and await self._explanation():
            return
        if await self.answer("235 2.7.0 welcome" if right else refused, "AUTH") and right:
            self.session.user = user

    async def _explanation(self) -> bool:
        """XOAUTH2 may say why in a 334 first, when scripted (EXPLAIN); the client answers with an empty line."""
        why = self.server.scripted("EXPLAIN")
        if why is not None and await self._challenge(str(why)):
            await self.fault("501 5.5.2", "an explanation was not answered with an empty line")
            return True
        return False

    # ---- a mail

    async def _mail(self, rest: str) -> None:
        sender, parameters = _path(rest, "FROM:")
        trouble = self._mail_trouble(sender, parameters)
        if sender is None or trouble:
            await self.fault("501 5.5.4", trouble or f"MAIL {rest!r}")
        elif not self.session.ehlo or self.session.sender is not None:
            await self.fault("503 5.5.1", "MAIL out of place")
        elif self._needs_tls:
            await self.fault("530 5.7.0", "MAIL before STARTTLS")
        elif self._wants_login and not self.session.user:
            await self.answer("530 5.7.0 authentication required", f"MAIL {sender}", "MAIL")
        elif self._too_big(parameters):
            await self.answer("552 5.3.4 message too big", f"MAIL {sender}", "MAIL")
        elif await self.answer("250 2.1.0 sender ok", f"MAIL {sender}", "MAIL"):
            self.session.sender, self.session.parameters = sender, parameters

    def _mail_trouble(self, sender: str | None, parameters: dict[str, str]) -> str | None:
        for name, value in parameters.items():
            offered = {"BODY": "8BITMIME"}.get(name, name)
            if not any(keyword.split()[0] == offered for keyword in self.server.keywords):
                return f"MAIL parameter {name} was not offered"
            if (name == "SIZE" and not value.isdigit()) or (name == "BODY" and value not in ("7BIT", "8BITMIME")):
                return f"MAIL parameter {name}={value}"
        if sender and not sender.isascii() and "SMTPUTF8" not in parameters:
            return "MAIL with an address in UTF-8 without SMTPUTF8"
        return None

    def _too_big(self, parameters: dict[str, str]) -> bool:
        limit = next((k.split()[1] for k in self.server.keywords if k.startswith("SIZE ")), None)
        return limit is not None and int(parameters.get("SIZE", "0")) > int(limit) > 0

    async def _rcpt(self, rest: str) -> None:
        recipient, parameters = _path(rest, "TO:")
        if not recipient or parameters:
            await self.fault("501 5.5.4", f"RCPT {rest!r}")
        elif self.session.sender is None:
            await self.answer("503 5.5.1 MAIL first", f"RCPT {recipient}", "RCPT")
        elif await self.answer("250 2.1.5 recipient ok", f"RCPT {recipient}", "RCPT"):
            self.session.recipients.append(recipient)

    async def _data(self, rest: str) -> None:
        if rest:
            await self.fault("501 5.5.4", "DATA takes no argument")
        elif not self.session.recipients:
            if await self.answer("503 5.5.1 no valid recipients", "DATA"):
                await self._take_content()
                await self.answer("554 5.5.1 no valid recipients")
                self._forget()
        elif await self.answer("354 end with a dot alone", "DATA"):
            await self._keep(await self._take_content())

    async def _take_content(self) -> bytes:
        """The content as sent, up to and without the final dot's line."""
        action = self.server.scripted("CONTENT")
        while True:
            if isinstance(action, Stall):
                await self._stall(action)
            if isinstance(action, Cut) and len(self.buffer) >= action.after:
                self._cut(action)
            if self.buffer.startswith(b".\r\n"):
                end = 0
            else:
                end = self.buffer.find(b"\r\n.\r\n") + 2
                if end < 2:
                    await self._more()
                    continue
            content = bytes(self.buffer[:end])
            del self.buffer[: end + 3]
            return content

    async def _keep(self, stuffed: bytes) -> None:
        content = self._unstuffed(stuffed)
        session = self.session
        self._check_content(content)
        assert session.sender is not None
        envelope = (session.sender, tuple(session.recipients), content, session.parameters)
        mail = Received(*envelope, session.number, session.peer, session.ehlo, session.tls, session.user)
        self.server.doubtful.append(mail)
        good = await self.answer(f"250 2.0.0 ok: queued as FAKE{len(self.server.received) + 1}", ".")
        self.server.doubtful.remove(mail)
        if good:
            self.server.received.append(mail)
        self._forget()

    def _unstuffed(self, stuffed: bytes) -> bytes:
        for line in stuffed.split(b"\r\n"):
            if line.startswith(b".") and not line.startswith(b".."):
                self.server.faults.append(f"a line that starts with a dot was not stuffed: {line[:20]!r}")
        return re.sub(rb"(?m)^\.", b"", stuffed)

    def _check_content(self, content: bytes) -> None:
        if re.search(rb"(?<!\r)\n|\r(?!\n)", content):
            self.server.faults.append("a bare CR or LF in the content")
        declared = self.session.parameters.get("SIZE")
        if declared is not None and int(declared) != len(content):
            self.server.faults.append(f"SIZE={declared} declared, {len(content)} octets sent")
        offered = "8BITMIME" in self.server.keywords
        if offered and not content.isascii() and self.session.parameters.get("BODY") != "8BITMIME":
            self.server.faults.append("8-bit content without BODY=8BITMIME")

    # ---- the small ones

    async def _rset(self, rest: str) -> None:
        if await self.answer("250 2.0.0 ok", "RSET"):
            self._forget()

    async def _noop(self, rest: str) -> None:
        await self.answer("250 2.0.0 ok", "NOOP")

    async def _quit(self, rest: str) -> None:
        await self.answer("221 2.0.0 bye", "QUIT")
        raise HangUp

    def _forget(self) -> None:
        self.session.sender = None
        self.session.recipients, self.session.parameters = [], {}


def _wire(text: str) -> bytes:
    """`250-a\\nb` or `250 a\\nb` as reply lines."""
    first, *rest = text.split("\n")
    code = first[:3]
    lines = [first[4:], *rest]
    last = len(lines) - 1
    return b"".join(f"{code}{' ' if n == last else '-'}{line}\r\n".encode() for n, line in enumerate(lines))


def _base64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def _path(text: str, keyword: str) -> tuple[str | None, dict[str, str]]:
    """The address and the parameters of `FROM:<a@b> SIZE=1`; None when the syntax is wrong."""
    if text[: len(keyword)].upper() != keyword:
        return None, {}
    match = _PATH.match(text[len(keyword) :])
    return (match[1], dict(_parameters(match[2]))) if match else (None, {})


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for parameter in text.split():
        name, _, value = parameter.partition("=")
        yield name.upper(), value
