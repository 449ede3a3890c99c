"""aiosmtpd's server without what it costs: one buffer for what comes in, a start that looks nothing up, and a loop over
commands that formats nothing for a log that nobody keeps.

Stands on private names of aiosmtpd 1.4.6 (pinned; tests compare it with the original). What is said to which command
is decided by the subclass and the original. Must never run two commands at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, cast

from aiosmtpd.smtp import BOGUS_LIMIT, SMTP

from intake.handler import Client, Handler, Transaction
from intake.inbound import Inbound

COMMAND_OCTETS: Final = 2048
"""RFC 5321 4.5.3.1.4 says 512 and lets every extension add to it; ENVID, ORCPT and AUTH add more than 1000."""

_SHOWN: Final = 20
"""A longer word, or one with anything but letters and digits, is not said back: a reply must stay one line."""

_WEB: Final = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI"])
"""What HTTP begins with (RFC 9110 9, RFC 9113 3.4). A page in a browser, or a service that fetches what strangers name,
can be made to send it here with commands of ours behind it.
"""

Method = Callable[[Any, str | None], Awaitable[None]]


class Connection(SMTP):
    """One connection. The subclass says what `session` and `envelope` are, and lists its `methods` by command."""

    methods: Mapping[str, Method] = {}

    # What the original sets at each connection, and is the same at all of ours.
    __ident__ = "ESMTP callpro-relay"
    enable_SMTPUTF8 = True  # only so that 8-bit arguments are decoded and answered by name; not advertised
    tls_context = None
    require_starttls = None
    _decode_data = False
    _tls_handshake_okay = True
    _tls_protocol = None
    _original_transport = None
    _auth_require_tls = True
    _auth_required = False
    _auth_callback = None
    _authenticator = None
    _auth_methods: Mapping[str, Any] = {}  # type: ignore[assignment]
    _proxy_timeout = None
    _ehlo_hook_ver = None
    _over_ssl = False
    _enforce_call_limit = False

    envelope: Transaction
    session: Client
    transport: asyncio.Transport | None
    _handler_coroutine: asyncio.Task[None]
    _timeout_handle: asyncio.TimerHandle | None

    def _create_session(self) -> Client:
        session = Client(self.loop)
        session.extended_smtp = True  # parameters after HELO, or after no greeting at all, are read all the same
        return session

    def _set_post_data_state(self) -> None:
        self.envelope = Transaction()

    def __init__(
        self, handler: Handler, hostname: str, size_limit: int, idle: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        # Not the original's: it looks through all names of itself and its handler, and makes a stream we do not use.
        self.loop = loop
        self.event_handler = handler
        self.hostname = hostname
        self.data_size_limit = size_limit
        self._timeout_duration = idle
        self._timeout_handle = None
        self._handle_hooks = handler.hooks  # type: ignore[assignment]
        self._smtp_methods = self.methods  # type: ignore[assignment]
        self.transport = None
        self.client: Any = None
        """Who the client is, where a load balancer in front says it; set before `connection_made`."""
        self._unsaid = b""
        self._bogus = 0
        self._over = False
        """Leave was taken: what the client says behind that is not read."""
        self._room: asyncio.Future[None] | None = None

    # ---- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.session = self._create_session()
        self.session.peer = self.client or transport.get_extra_info("peername")
        self._set_post_data_state()
        self.inbound = Inbound(self.transport, self.loop)
        self._reset_timeout()
        self._handler_coroutine = self.loop.create_task(self._handle_client())

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if not (self.inbound.whole_line(data) and self._answered(data)):
            self.inbound.feed(data)

    def eof_received(self) -> bool:
        """A client that closes its side early still gets answers to what it sent; the original would drop it all. TLS
        knows no half of a connection.
        """
        self.inbound.end()
        return not self._over_ssl

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by the loop."""
        self.inbound.end()
        self.resume_writing()
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self.transport = None

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._room = self.loop.create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    # ---- out

    def _write(self, reply: str) -> None:
        """Say it now, behind what is unsaid."""
        if self.transport is not None:
            self.transport.write(self._unsaid + reply.encode("ascii", "replace") + b"\r\n")
            self._unsaid = b""

    async def _say(self, reply: str, *, now: bool = True) -> None:
        """Send a reply, and wait while the client takes none."""
        self._answer(reply, now=now)
        if self._room is not None and not self._unsaid:
            await self._room

    def _answer(self, reply: str, *, now: bool) -> None:
        """Send a reply; one that need not be said `now` waits for that to a command which is here already (RFC 2920 3.2
        lets a server answer a group of commands in one write).
        """
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if not now and self.inbound.line_ahead:
            self._unsaid += reply.encode("ascii", "replace") + b"\r\n"
        else:
            self._write(reply)

    def _close(self) -> None:
        """Close, once all that was said is out."""
        if self.transport is not None:
            if self._unsaid and not self.transport.is_closing():
                self.transport.write(self._unsaid)
                self._unsaid = b""
            self.transport.close()

    # ---- commands

    async def _converse(self) -> None:
        """Greet, then one command after the other until the client is gone."""
        await self._say(f"220 {self.hostname} {self.__ident__}")
        while self.transport is not None and not self._over:
            line = await self.inbound.line()
            try:
                reply = self._at_once(line) if line is not None and len(line) <= COMMAND_OCTETS else None
                if reply is None:
                    await self._obey(line)
                elif reply[0] != "2" or self._room is not None:
                    await self.push(reply)
                else:
                    self._answer(reply, now=False)
            except ConnectionResetError:
                raise
            except Exception as error:
                await self.push(await self.handle_exception(error))

    def _at_once(self, _line: bytes) -> str | None:
        """The whole answer to a command that the subclass can answer without waiting; None for any other. Asking twice
        is as asking once.
        """
        return None

    def _answered(self, line: bytes) -> bool:
        """Whether a command, that the dialogue waits for, could be answered here and now: to wake a task for each costs
        more than the answer. A refusal is the dialogue's to say.
        """
        if self._room is not None or len(line) > COMMAND_OCTETS:
            return False
        try:
            reply = self._at_once(line)
        except Exception:  # a bug of ours: the dialogue meets it too, and answers for it
            return False
        if reply is None or reply[0] != "2":
            return False
        self.inbound.saw(line)
        self._write(reply)
        return True

    async def _obey(self, line: bytes | None) -> None:
        """Do as a command line says. None is one that was too long to be kept."""
        if line is None or len(line) > COMMAND_OCTETS + 2:
            await self.push("500 Command line too long")
            return
        word, _, rest = line.rstrip(b"\r\n").partition(b" ")
        if not (word or rest) or not word.isascii():
            await self.push("500 Error: bad syntax")
            return
        name = word.upper().decode("ascii")
        method = self.methods.get(name)
        if method is None:
            await self._turn_down(name)
            return
        self._reset_timeout()
        await method(self, str(rest.strip(), "utf-8", "surrogateescape") if rest else None)

    async def _turn_down(self, name: str) -> None:
        self._bogus += 1
        if name in _WEB:
            reply = "502 5.5.1 This is no web server, goodbye"
        elif self._bogus >= BOGUS_LIMIT:
            reply = "502 5.5.1 Too many unrecognized commands, goodbye."
        else:
            shown = name if name.isalnum() and len(name) <= _SHOWN else "that"
            await self.push(f'500 Error: command "{shown}" not recognized')
            return
        self._over = True
        await self.push(reply)


def methods_of(dialogue: type[Connection], commands: Iterable[str]) -> dict[str, Method]:
    """The methods of a class by command."""
    return {name: getattr(dialogue, f"smtp_{name}") for name in commands}
