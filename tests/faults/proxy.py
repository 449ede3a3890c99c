"""A proxy between the relay and a look-alike that does one thing wrong, once, at one step; then it only passes on.

It ends TLS on both sides, so that it can strike between any command and its reply.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_plus

HUGE = 10 << 20
_PACKETS = 12
_BETWEEN_PACKETS = 0.001


class Fault(Enum):
    """What goes wrong. Those at a reply happen instead of the reply or to it."""

    REFUSE = "nobody listens, until `open`"
    RESET = "a TCP reset instead of the reply"
    STALL = "no reply, until the relay goes"
    TRICKLE = "the reply, so slowly that its time is over before it is"
    GARBAGE = "octets that are no reply"
    SPLIT = "the reply in a dozen packets"
    HUGE = "a line of 10 MB in front of the reply"
    SAY_421 = "421 and the end of the connection"
    THEN_RESET = "the reply, and a TCP reset right behind it"
    WRONG_CERTIFICATE = "a certificate for another name"
    EXPIRED_CERTIFICATE = "a certificate that was good until yesterday"
    STRIPPED = "EHLO without STARTTLS, as an attacker would have it"
    CHUNK_CUT = "a reply in chunks, cut within one"
    LARGE_BODY = "a reply with a body of 10 MB"
    ECHO = "a refusal that quotes the secret it was told"


@dataclass(frozen=True, slots=True)
class Certificates:
    """TLS for the relay's side, and for the look-alike's."""

    good: ssl.SSLContext
    wrong: ssl.SSLContext
    expired: ssl.SSLContext
    client: ssl.SSLContext


@dataclass(slots=True)
class Side:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, octets: bytes) -> None:
        self.writer.write(octets)
        await self.writer.drain()

    def reset(self) -> None:
        """End it with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Over(Exception):
    """This connection has come to its end."""


class FaultProxy:
    """Listens on `port` for the relay and leads to `target`, a port of this machine. `fault` is made at `step`, once
    each time it is armed; `slow` is the seconds between the octets of a trickle.
    """

    steps: tuple[str, ...] = ()

    def __init__(self, target: int, certificates: Certificates, fault: Fault, step: str, slow: float = 0.3) -> None:
        self.fault, self.step = fault, step
        self.struck = 0
        self.connected: set[asyncio.Task[None]] = set()
        self.port = 0
        self._target = target
        self._certificates = certificates
        self._slow = slow
        self._armed = False
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None

    @property
    def name(self) -> str:
        return f"{self.step} {self.fault.name}"

    async def arm(self) -> None:
        """Make the fault the next time its step comes, on a new connection: those that are open are closed."""
        self._armed = True
        for task in tuple(self.connected):
            task.cancel()
        await asyncio.gather(*self.connected, return_exceptions=True)
        if self._server is None:
            await self.open()
        if self.fault is Fault.REFUSE:
            assert self._server
            self._server.close()
            self._server = None
            self._kept = self._port_of_its_own()

    async def open(self) -> None:
        """Listen, on the same port as before."""
        if self._server is None:
            listening, self._kept = self._kept or self._port_of_its_own(), None
            self._server = await asyncio.start_server(self._accept, sock=listening, limit=1 << 22)
            self.port = listening.getsockname()[1]

    def _port_of_its_own(self) -> socket.socket:
        """Bound and not listening: connections are refused, and nobody else gets the port."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", self.port))
        return made

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self.connected):
            task.cancel()
        await asyncio.gather(*self.connected, return_exceptions=True)

    def due(self, step: str) -> Fault | None:
        """The fault, when it is its turn."""
        if not self._armed or step != self.step:
            return None
        self._armed = False
        self.struck += 1
        return self.fault

    async def secure(self, relay: Side) -> None:
        """TLS with the relay, or what goes wrong at it."""
        papers, fault = self._certificates, self.due("TLS")
        if fault is Fault.GARBAGE:
            await relay.reader.read(1)  # what comes before the relay has begun with TLS is not read as TLS
        if fault in (Fault.RESET, Fault.STALL, Fault.GARBAGE):
            await self.reply(relay, b"", fault)
        bad = {Fault.WRONG_CERTIFICATE: papers.wrong, Fault.EXPIRED_CERTIFICATE: papers.expired}
        await relay.writer.start_tls(bad.get(fault, papers.good) if fault else papers.good)

    async def reply(self, relay: Side, octets: bytes, fault: Fault | None) -> None:
        """Give the relay a reply, with what goes wrong at it."""
        match fault:
            case Fault.RESET:
                relay.reset()
                raise Over
            case Fault.STALL:
                await self.wait_until_gone(relay)
            case Fault.TRICKLE:
                for octet in octets:
                    await relay.say(bytes((octet,)))
                    await asyncio.sleep(self._slow)
            case Fault.GARBAGE:
                await relay.say(b"\xff\x00 not what you expect\r\n\r\n")
                await self.wait_until_gone(relay)
            case Fault.SPLIT:
                width = max(1, len(octets) // _PACKETS)
                for start in range(0, len(octets), width):  # nothing is awaited behind the last: TLS may follow at once
                    await asyncio.sleep(_BETWEEN_PACKETS)
                    await relay.say(octets[start : start + width])
            case Fault.THEN_RESET:
                await relay.say(octets)
                await asyncio.sleep(0.05)
                relay.reset()
                raise Over
            case _:
                await relay.say(octets)

    async def wait_until_gone(self, relay: Side) -> None:
        while await relay.reader.read(1 << 16):
            pass
        raise Over

    async def converse(self, relay: Side) -> None:
        """One connection, from its first octet on."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def target(self, tls: ssl.SSLContext | None) -> AsyncIterator[Side]:
        """A connection to the look-alike."""
        name = "localhost" if tls else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._target, ssl=tls, server_hostname=name, limit=1 << 22
        )
        try:
            yield Side(reader, writer)
        finally:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.connected.add(task)
        relay = Side(reader, writer)
        try:
            with contextlib.suppress(Over, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.converse(relay)
        finally:
            self.connected.discard(task)
            writer.close()


class SmtpProxy(FaultProxy):
    """Steps: CONNECT, EHLO, STARTTLS, TLS, AUTH, MAIL, RCPT, DATA and `.`, each at its reply."""

    steps = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", ".")
    _told = b""

    async def converse(self, relay: Side) -> None:
        async with self.target(None) as server:
            await self._pass_reply(relay, server, "CONNECT")
            while line := await relay.reader.readline():
                verb = line[:4].upper().decode("latin-1")
                step = {"STAR": "STARTTLS", "HELO": "EHLO"}.get(verb, verb.strip())
                await server.say(line)
                self._told = line
                reply = await self._pass_reply(relay, server, step)
                if step == "STARTTLS" and reply.startswith(b"220"):
                    await self.secure(relay)
                    await server.writer.start_tls(self._certificates.client, server_hostname="localhost")
                while reply.startswith(b"334"):
                    self._told = await relay.reader.readline()
                    await server.say(self._told)
                    reply = await self._pass_reply(relay, server, step)
                if step == "DATA" and reply.startswith(b"354"):
                    await server.say(await relay.reader.readuntil(b"\r\n.\r\n"))
                    await self._pass_reply(relay, server, ".")

    async def _pass_reply(self, relay: Side, server: Side, step: str) -> bytes:
        reply = b""
        while True:
            line = await server.reader.readline()
            if not line:
                raise Over
            reply += line
            if line[3:4] != b"-":
                break
        fault = self.due(step)
        match fault:
            case Fault.SAY_421:
                await relay.say(b"421 4.3.2 shutting down\r\n")
                raise Over
            case Fault.HUGE:
                await relay.say(reply[:3] + b"-" + b"x" * HUGE + b"\r\n" + reply)
            case Fault.ECHO:
                await relay.say(b"535 5.7.8 there is no such thing as %s\r\n" % self._told.rstrip())
                raise Over
            case Fault.STRIPPED:
                kept = [line for line in reply.splitlines(keepends=True) if b"STARTTLS" not in line]
                await relay.say(b"".join(kept[:-1]) + kept[-1].replace(b"-", b" ", 1))
            case _:
                await self.reply(relay, reply, fault)
        return reply


class HttpProxy(FaultProxy):
    """Steps: CONNECT (before TLS), TLS, HEADER (the request's header is in), REPLY (the look-alike has answered).

    `method` narrows HEADER and REPLY to requests of one method.
    """

    method: str | None = None

    async def converse(self, relay: Side) -> None:
        fault = self.due("CONNECT")
        if fault is not None:
            await self.reply(relay, b"", fault)
        await self.secure(relay)
        while head := await self._head(relay.reader):
            concerned = self.method is None or head.startswith(self.method.encode())
            if concerned and (fault := self.due("HEADER")):
                await self.reply(relay, b"", fault)
            body = await relay.reader.readexactly(_length(head))
            async with self.target(self._certificates.client) as server:
                await server.say(head + body)
                answer = await self._head(server.reader)
                content = await server.reader.readexactly(_length(answer))
            due = self.due("REPLY") if concerned else None
            if due is Fault.ECHO:
                answer, content = _echo(head, body if self.method else b"", token=self.method is not None)
            here, there = f"localhost:{self.port}".encode(), f"localhost:{self._target}".encode()
            await self._answer(relay, answer, content.replace(there, here), due)

    async def _head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""

    async def _answer(self, relay: Side, head: bytes, content: bytes, fault: Fault | None) -> None:
        lines = [line for line in head.rstrip(b"\r\n").split(b"\r\n") if not line.lower().startswith(b"content-length")]
        if fault is Fault.CHUNK_CUT:
            await relay.say(b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b"ff", b"only this"]))
            raise Over
        if fault is Fault.HUGE:
            lines.insert(1, b"X-Huge: " + b"x" * HUGE)
        if fault is Fault.LARGE_BODY:
            content += b" " * HUGE
        lines.append(b"Content-Length: %d" % len(content))
        await self.reply(relay, b"\r\n".join([*lines, b"", content]), fault)


def _echo(head: bytes, body: bytes, *, token: bool) -> tuple[bytes, bytes]:
    """A refusal, in every provider's shape at once, that quotes the credential of the request."""
    key = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization:")), b"")
    told = key.rpartition(b" ")[2].decode()
    with contextlib.suppress(ValueError):
        told += " " + base64.b64decode(told, validate=True).decode()
    text = f"there is no such thing as {told} {' '.join(unquote_plus(body.decode()).split('&'))}"
    said: dict[str, object] = {"message": text, "Message": text, "errors": [{"message": text}]}
    said |= (
        {"error": "invalid_client", "error_description": text} if token else {"error": {"code": "X", "message": text}}
    )
    return b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n", json.dumps(said).encode()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
