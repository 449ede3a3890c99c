"""The kind `smtp`: a customer's own mail server, with or without a login.

`SmtpUpstream` carries every kind that speaks SMTP: a kind is its settings, a way (host, TLS, login) and a table of
replies. It must never send a password, or mail that was to be encrypted, in clear text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from config import network
from config.credentials import Secret
from config.fields import Duration, Fault, Settings, is_loopback, setting
from routing.headers import without
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from upstreams.base import Host, Kind, Rehearsal, Upstream
from upstreams.smtp_login import PasswordLogin
from upstreams.smtp_pool import DATA_SECONDS, Shelf, SmtpLimits, SmtpPool
from upstreams.smtp_providers import Provider, provider_of
from upstreams.smtp_rehearsal import rehearse_on
from upstreams.smtp_replies import ReplyTable
from upstreams.smtp_session import Opener, SmtpWay
from upstreams.smtp_transaction import Transaction
from upstreams.smtp_wire import Broken
from upstreams.traits import Traits

WayFor = Callable[[str], SmtpWay | Outcome]
"""Envelope sender -> the way its mail goes, or why there is none."""

_PORTS: Final = {"starttls": 587, "implicit": 465, "none": 25}


class SmtpUpstream(Upstream):
    """An SMTP server as a way out.

    `way` is one for all mail, or chosen by envelope sender. `replies` says what each refusal means. Connections are
    kept per route and way; see `SmtpLimits` for the caps.
    """

    def __init__(self, name: str, host: Host, way: SmtpWay | WayFor, limits: SmtpLimits, replies: ReplyTable) -> None:
        self.name = name
        self.concurrency = limits.connections
        self.recipients_limit = limits.recipients
        self.connects_to = way.connects_to(limits.timeout) if isinstance(way, SmtpWay) else None
        self._way_for: WayFor = (lambda _sender: way) if isinstance(way, SmtpWay) else way
        self._limits = limits
        self._replies = replies
        self._opener = Opener(host, limits.timeout, replies)
        self._pool = SmtpPool(limits, self._opener)
        self._probed_way = self._way_for("")

    async def send(self, mail: Outgoing) -> Results:
        """See `Upstream.send`."""
        way = self._way_for(mail.sender)
        if isinstance(way, Outcome):
            return dict.fromkeys(mail.recipients, way)
        self._probed_way = way
        return await self.send_by(way, mail)

    async def send_by(self, way: SmtpWay, mail: Outgoing) -> Results:
        """`send` by a way that the caller chose. A kept connection that has died unheard is replaced once."""
        shelf = Shelf(mail.route, way)
        results = await self._attempt(shelf, mail, fresh=False)
        if results is None:
            results = await self._attempt(shelf, mail, fresh=True) or {}
        return results

    async def _attempt(self, shelf: Shelf, mail: Outgoing, *, fresh: bool) -> Results | None:
        """The results, or None when a kept connection turned out to be gone before it answered anything."""
        session = await self._pool.borrow(shelf, fresh=fresh)
        if isinstance(session, Outcome):
            return dict.fromkeys(mail.recipients, session)
        kept = session.mails > 0
        transaction = Transaction(session, mail, self._replies, self._limits.timeout, self._limits.data_timeout)
        try:
            results = await transaction.run()
        except BaseException:
            self._pool.drop(session)
            raise
        self._pool.give_back(shelf, session)
        return None if kept and transaction.unheard else results

    async def probe(self) -> Outcome:
        """See `Upstream.probe`: connect, TLS, login, NOOP, QUIT on a connection of its own."""
        way = self._probed_way
        return way if isinstance(way, Outcome) else await self.probe_by(way)

    async def probe_by(self, way: SmtpWay) -> Outcome:
        """`probe` of a way that the caller chose."""
        session = await self._opener.open(way)
        if isinstance(session, Outcome):
            return session
        try:
            session.wire.send(b"NOOP\r\n", 1)
            reply = await session.wire.reply(self._limits.timeout)
        except Broken as broken:
            return Outcome(Word.RETRY, str(broken), Stage.LOGIN)
        finally:
            session.wire.quit()
        if not reply.positive:
            return self._replies.classify(reply, Stage.LOGIN)
        return Outcome(Word.SENT, str(reply), Stage.LOGIN, reply.code, reply.enhanced)

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        """See `Upstream.rehearse`: login, MAIL, RCPT, RSET, QUIT."""
        way = self._way_for(mail.sender)
        return way if isinstance(way, Outcome) else await self.rehearse_by(way, mail)

    async def rehearse_by(self, way: SmtpWay, mail: Rehearsal) -> Outcome:
        """`rehearse` by a way that the caller chose."""
        session = await self._opener.open(way)
        if isinstance(session, Outcome):
            return session
        return await rehearse_on(session, mail, self._replies, self._limits.timeout)

    def keep(self, connections: int) -> None:
        """See `Upstream.keep`."""
        self._pool.keep(connections)

    async def close(self) -> None:
        """See `Upstream.close`."""
        await self._pool.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpCommon(Settings):
    """What every kind that speaks SMTP lets ops set."""

    timeout: Duration = setting(
        default=Duration(60), doc="How long the server may take to connect or to answer a command.", minimum=0.05
    )
    data_timeout: Duration = setting(
        default=Duration(DATA_SECONDS),
        doc="How long it may take to answer after the whole mail; a shorter time makes doubles.",
        minimum=0.05,
    )
    connections: int = setting(default=5, doc="Most connections at one time.", minimum=1)
    messages_per_connection: int = setting(default=100, doc="Mails on one connection before a new one.", minimum=1)
    connection_age: Duration = setting(default=Duration(300), doc="How long a connection is used.", minimum=0)
    connection_idle: Duration = setting(default=Duration(30), doc="How long an idle connection is kept.", minimum=0)
    recipients: int = setting(default=100, doc="Most recipients in one mail; more are split.", minimum=1)

    def limits(self) -> SmtpLimits:
        """These settings as the pool takes them."""
        return SmtpLimits(
            timeout=self.timeout,
            data_timeout=self.data_timeout,
            connections=self.connections,
            age=self.connection_age,
            idle=self.connection_idle,
            mails=self.messages_per_connection,
            recipients=self.recipients,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSettings(SmtpCommon):
    """`type: smtp`."""

    host: str = setting(
        doc="The server's name, as its certificate has it.", example="smtp.acme.nl", check=network.server
    )
    port: int | None = setting(
        default=None, doc="Default: 587 for `starttls`, 465 for `implicit`, 25 for `none`.", minimum=1, maximum=65535
    )
    tls: Literal["starttls", "implicit", "none"] = setting(
        default="starttls", doc="`starttls` (required), `implicit` (TLS from the first byte) or `none`."
    )
    username: str | None = setting(default=None, doc="The login's user name.", example="callpro@acme.nl")
    password: Secret | None = setting(default=None, doc="Its password, by reference.", example="systemd:acme-smtp")

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if self.password is not None and self.username is None and not provider_of(self.host).token:
            yield Fault("password", "a password without a username", "add `username`, or leave `password` out")
        if self.username is not None and self.password is None:
            yield Fault("username", "a username without a password", "add `password`, or leave `username` out")
        if self.tls == "none" and self.password is not None and not is_loopback(self.host):
            yield Fault("tls", "the password would cross the network in clear text", "write `starttls` or `implicit`")
        yield from self._port_faults()
        if kind := provider_of(self.host).kind:
            mend = f"write `type: {kind}`"
            yield Fault("host", f"{self.host} is what `type: {kind}` knows better", mend, warning=True)
        if self.password is not None and provider_of(self.host).ends_passwords:
            yield Fault(
                "password",
                "logs in to Microsoft with a password, which is off by default from the end of December 2026 "
                "(and not offered to later tenants); Microsoft tells the final date in the second half of 2027",
                "move to `type: smtp_oauth` or `type: graph`; till then the customer's admin can switch it on again",
                warning=True,
            )

    def _port_faults(self) -> Iterator[Fault]:
        usual = {465: "implicit", 587: "starttls"}.get(self.port or 0, self.tls)
        if usual != self.tls and not is_loopback(self.host):
            yield Fault("tls", f"port {self.port} with `{self.tls}` is unusual", f"write `{usual}`", warning=True)

    def way(self) -> SmtpWay:
        """Where these settings lead."""
        token = self.password.reveal() if self.password and provider_of(self.host).token else None
        user = self.username or token
        login = PasswordLogin(user, self.password) if user and self.password else None
        return SmtpWay(self.host, self.port or _PORTS[self.tls], self.tls, login)

    def traits(self) -> Traits:
        """See `HasTraits.traits`: without a login it is a server of our own."""
        own_server = self.username is None and not self.loopback()
        return provider_of(self.host).traits or Traits(own_server=own_server)


class ProviderSmtp(SmtpUpstream):
    """An SMTP upstream at a provider that is known: never more than it takes, and no order of CallPro's to it."""

    def __init__(self, name: str, host: Host, way: SmtpWay, limits: SmtpLimits, provider: Provider) -> None:
        narrowed = replace(
            limits,
            connections=int(min(limits.connections, provider.connections)),
            recipients=int(min(limits.recipients, provider.recipients)),
        )
        super().__init__(name, host, way, narrowed, provider.replies)
        self._orders = provider.orders

    async def send(self, mail: Outgoing) -> Results:
        """See `Upstream.send`."""
        if self._orders is not None:
            mail = replace(mail, content=without(mail.content, self._orders))
        return await super().send(mail)


def _build(name: str, settings: SmtpSettings, host: Host) -> Upstream:
    return ProviderSmtp(name, host, settings.way(), settings.limits(), provider_of(settings.host))


KIND: Final = Kind("smtp", SmtpSettings, _build)
