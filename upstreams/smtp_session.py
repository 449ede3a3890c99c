"""Opens a connection to an SMTP server up to the point where mail may be said: TCP, greeting, EHLO, TLS, login.

aiosmtplib does the talking, one step at a time, so that each failure has its stage. It must never go on in clear text
where TLS was asked for, and never try a password twice.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import aiosmtplib

from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.base import Host
from upstreams.resolving import SLOW, addresses
from upstreams.smtp_replies import Reply, ReplyTable
from upstreams.smtp_tls import ResumingContext, resuming_context
from upstreams.smtp_wire import Wire, one_line

_NEXT_ADDRESS: Final = 5.0
"""Seconds for an address of a host that has others. A connection beyond the ocean takes a third of a second, and three
with a packet lost.
"""

_Place = tuple[int, tuple[object, ...]]

Tls = Literal["starttls", "implicit", "none"]
"""How a connection is encrypted; `starttls` is required, never a try."""


class Login(Protocol):
    """A way to say who we are. Equal logins may share a connection: a login hashes and compares by its credential."""

    async def log_in(self, client: aiosmtplib.SMTP) -> Outcome | None:
        """Log in once on an open client. None when in; an outcome when it cannot even be tried.

        A refusal is raised as aiosmtplib's SMTPResponseException.
        """

    def scrub(self, text: str) -> str:
        """`text` without any form of the secret, for servers that echo."""


@dataclass(frozen=True, slots=True)
class SmtpWay:
    """Where a connection goes and as whom. Two mails of one route with equal ways may share a connection.

    `source_address` is an IPv4 or IPv6 address of this machine to send from.
    """

    host: str
    port: int
    tls: Tls = "starttls"
    login: Login | None = None
    ipv4_only: bool = False
    source_address: str | None = None

    def connects_to(self, timeout: float) -> str:
        """See `Upstream.connects_to`: all that decides whether a connect succeeds within `timeout` seconds, and no
        login.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host.lower()
        ip = " IPv4" if self.ipv4_only else ""
        source = f" from {self.source_address}" if self.source_address else ""
        return f"{host}:{self.port} {self.tls}{ip}{source} in {timeout:g} s"


@dataclass(frozen=True, slots=True)
class Offers:
    """What the server's EHLO offers that we use."""

    pipelining: bool
    size: bool
    eight_bit: bool
    utf8: bool


@dataclass(slots=True, eq=False)
class Session:
    """An open, logged-in connection. Times are the event loop's seconds."""

    wire: Wire
    offers: Offers
    opened: float
    mails: int = 0
    """Transactions begun on it."""
    idle_since: float = 0.0
    unfinished: bool = False
    """True while the server may still hold a mail that was not ended: RSET first."""
    spent: bool = False
    """True when it must not be used again."""


class _Stopped(Exception):
    """An opening that ends in an outcome of ours."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.word)
        self.outcome = outcome


class Opener:
    """Opens sessions for one upstream. `host` is who we are; `timeout` is in seconds and for each step."""

    def __init__(self, host: Host, timeout: float, replies: ReplyTable) -> None:
        self._host = host
        self._timeout = timeout
        self._replies = replies
        self._tls: ResumingContext | None = None

    async def open(self, way: SmtpWay) -> Session | Outcome:
        """A session, or what went wrong: never an exception for anything the other side does."""
        if self._tls is None and way.tls != "none":
            context = await asyncio.to_thread(resuming_context, self._host.trust)  # may read the trust store
            self._tls = self._tls or context
        opening = _Opening(way, self._host.hostname, self._timeout, self._tls)
        try:
            session = await _obeying(opening.run())
        except _Stopped as stopped:
            return stopped.outcome
        except aiosmtplib.SMTPResponseException as refusal:
            # Scrubbed before it is cut to length: half a secret would not be recognised.
            text = way.login.scrub(refusal.message) if way.login else refusal.message
            if refusal.code < 0:  # the library's mark for what is no reply at all
                return Outcome(Word.RETRY, f"what answers there does not speak SMTP: {one_line(text)}", opening.stage)
            return self._replies.classify(Reply(refusal.code, one_line(text)), opening.stage)
        except (OSError, aiosmtplib.SMTPException) as error:
            return _trouble(error, opening.stage, way, self._timeout)
        self._host.trust.saw(f"{way.host}:{way.port}", session.wire.transport.get_extra_info("ssl_object"))
        return session

    def remember(self, session: Session, way: SmtpWay) -> None:
        """Keep the TLS session of a connection that has spoken, for the next one."""
        tls = session.wire.transport.get_extra_info("ssl_object")
        if tls is not None and self._tls is not None:
            self._tls.remember(way.host, tls, asyncio.get_running_loop().time())


async def _obeying(opening: Coroutine[Any, Any, Session]) -> Session:
    """The session, unless we are cancelled. aiosmtplib waits by `asyncio.wait_for`, which in Python 3.11 forgets a
    cancellation that comes together with what it waits for, so it is told again until it listens.
    """
    task = asyncio.get_running_loop().create_task(opening)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.01)
        if not task.cancelled() and task.exception() is None:
            task.result().wire.abort()
        raise
    return task.result()


class _Opening:
    """One opening, with the stage it has reached."""

    def __init__(self, way: SmtpWay, hostname: str, timeout: float, tls: ResumingContext | None) -> None:
        self.stage = Stage.CONNECT
        self._way = way
        self._hostname = hostname
        self._timeout = timeout
        self._tls = tls if way.tls != "none" else None

    async def run(self) -> Session:
        client = aiosmtplib.SMTP(
            hostname=self._way.host,
            sock=await _dial(self._way, self._timeout),
            local_hostname=self._hostname,
            timeout=self._timeout,
            use_tls=self._way.tls == "implicit",
            start_tls=False,
            tls_context=self._tls,
        )
        try:
            return await self._converse(client)
        except BaseException:
            _drop(client)
            raise

    async def _converse(self, client: aiosmtplib.SMTP) -> Session:
        await client.connect()
        await self._greet(client)
        if self._way.tls == "starttls":
            await self._start_tls(client)
        if self._way.login is not None:
            self.stage = Stage.LOGIN
            if (outcome := await self._way.login.log_in(client)) is not None:
                raise _Stopped(outcome)
        offered = client.supports_extension
        offers = Offers(offered("pipelining"), offered("size"), offered("8bitmime"), offered("smtputf8"))
        if client.transport is None:
            raise aiosmtplib.SMTPServerDisconnected("Connection lost")
        return Session(Wire.take_over(client.transport), offers, asyncio.get_running_loop().time())

    async def _greet(self, client: aiosmtplib.SMTP) -> None:
        """EHLO; HELO for servers that know no EHLO, where nothing depends on what EHLO offers (RFC 5321 3.2)."""
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError as refusal:
            plain = self._way.tls != "starttls" and self._way.login is None
            if refusal.code // 100 != 5 or not plain or not client.is_connected:
                raise
            await client.helo()

    async def _start_tls(self, client: aiosmtplib.SMTP) -> None:
        self.stage = Stage.TLS
        if not client.supports_extension("starttls"):
            raise _Stopped(
                Outcome(
                    Word.CONFIG,
                    "the server does not offer STARTTLS",
                    Stage.TLS,
                    hint=Hint(
                        Who.CUSTOMER,
                        f"{self._way.host} must offer STARTTLS on port {self._way.port}: its administrator must switch "
                        "it on, as mail and password are not sent in clear text.",
                        f"{self._way.host} moet STARTTLS aanbieden op poort {self._way.port}: de beheerder moet dat "
                        "aanzetten, want mail en wachtwoord versturen we niet onversleuteld.",
                    ),
                )
            )
        await client.starttls()
        await client.ehlo()


def _drop(client: aiosmtplib.SMTP) -> None:
    transport = client.transport
    client.close()
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


# ---- TCP


async def _dial(way: SmtpWay, seconds: float) -> socket.socket:
    """A connected socket; name servers and addresses have `seconds` each. Raises OSError."""
    _check_name(way.host)
    try:
        async with asyncio.timeout(seconds):
            found = await addresses(way.host, way.port, socket.AF_INET if way.ipv4_only else socket.AF_UNSPEC)
    except TimeoutError:
        raise socket.gaierror(socket.EAI_AGAIN, SLOW) from None
    if way.source_address is not None:
        found = [entry for entry in found if (entry[0] == socket.AF_INET6) == (":" in way.source_address)]
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, f"no address of {way.host} can be reached from the source address")
    return await _first_that_answers([(entry[0], entry[4]) for entry in found], way.source_address, seconds)


async def _first_that_answers(places: Sequence[_Place], source: str | None, seconds: float) -> socket.socket:
    """Each in turn: one that does not answer, such as the IPv6 of a machine that has none, costs `_NEXT_ADDRESS`."""
    until = asyncio.get_running_loop().time() + seconds
    *others, last = places
    for family, address in others:
        try:
            async with asyncio.timeout(min(_NEXT_ADDRESS, seconds / len(places))):
                return await _connected(family, address, source)
        except OSError:  # TimeoutError is one
            continue
    async with asyncio.timeout_at(until):
        return await _connected(*last, source)


def _check_name(host: str) -> None:
    """Raise what a resolver says of an unknown name for one that it cannot even be asked about."""
    try:
        host.encode("idna")
    except UnicodeError:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None


async def _connected(family: int, address: tuple[object, ...], source: str | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if source is not None:
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


# ---- what went wrong


def _trouble(error: Exception, stage: Stage, way: SmtpWay, timeout: float) -> Outcome:
    """The outcome of a step that ended without a reply."""
    cause = error.__cause__ if isinstance(error, aiosmtplib.SMTPConnectError) and error.__cause__ else error
    if isinstance(cause, ssl.SSLError):
        return _tls_trouble(cause, way)
    if isinstance(cause, socket.gaierror):
        return _name_trouble(cause, way)
    if isinstance(cause, TimeoutError):
        return Outcome(Word.RETRY, f"no answer within {timeout:g} seconds", stage, hint=_silence_hint(stage, way))
    if isinstance(cause, OSError) and cause.errno == errno.EADDRNOTAVAIL and way.source_address:
        return Outcome(
            Word.CONFIG,
            f"cannot send from {way.source_address}: {os.strerror(cause.errno)}",
            stage,
            hint=Hint(
                Who.US,
                f"{way.source_address} must be an address of this machine that reaches {way.host}.",
                f"{way.source_address} moet een adres van deze machine zijn dat {way.host} bereikt.",
            ),
        )
    if isinstance(cause, OSError) and cause.errno:
        return Outcome(Word.RETRY, f"cannot connect to {way.host} port {way.port}: {os.strerror(cause.errno)}", stage)
    return Outcome(Word.RETRY, "the server closed the connection", stage)


def _silence_hint(stage: Stage, way: SmtpWay) -> Hint | None:
    if stage is Stage.CONNECT and way.tls != "implicit":
        return Hint(
            Who.US,
            f"Is port {way.port} of {way.host} open from here, and does it speak first? (port 465: `tls: implicit`)",
            f"Is poort {way.port} van {way.host} van hieruit open, en zegt de server daar als eerste iets? "
            "(poort 465: `tls: implicit`)",
        )
    return None


def _name_trouble(error: socket.gaierror, way: SmtpWay) -> Outcome:
    missing = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return Outcome(
        Word.CONFIG if missing else Word.RETRY,
        f"cannot find {way.host}: {error.strerror}",
        Stage.CONNECT,
        hint=_other_name(way.host) if missing else None,
    )


def _other_name(host: str) -> Hint:
    return Hint(
        Who.US,
        f"Compare `host: {host}` with what the customer gave us; if it is the same, their DNS has lost that name.",
        f"Vergelijk `host: {host}` met wat de klant ons gaf; klopt het, dan is die naam uit hun DNS verdwenen.",
    )


_BREAKS: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def _tls_trouble(error: ssl.SSLError, way: SmtpWay) -> Outcome:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Outcome(
            Word.CONFIG,
            f"the certificate of {way.host} is not good: {one_line(error.verify_message)}",
            Stage.TLS,
            hint=Hint(
                Who.CUSTOMER,
                f"The administrator of {way.host} must install a valid certificate for that name, "
                "or `host` must be the name that the certificate is for.",
                f"De beheerder van {way.host} moet een geldig certificaat voor die naam installeren, "
                "of `host` moet de naam zijn waarvoor het certificaat is.",
            ),
        )
    if isinstance(error, _BREAKS):
        return Outcome(Word.RETRY, "the server broke off the TLS handshake", Stage.TLS)
    return Outcome(
        Word.CONFIG,
        f"no TLS with {way.host} port {way.port}: {one_line(error.reason or str(error))}",
        Stage.TLS,
        hint=Hint(
            Who.US,
            f"Does port {way.port} want `tls: implicit` or `tls: starttls`, and does the server speak TLS 1.2?",
            f"Wil poort {way.port} `tls: implicit` of `tls: starttls`, en spreekt de server TLS 1.2?",
        ),
    )
