"""For every kind: its look-alike, the YAML that leads to it past a fault proxy, and what must come of each fault.

A fault that has no word for a kind is not tried with it.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from routing.outcome import Word
from tests.conformance.case import cases_of
from tests.fakes.authority import Authority
from tests.fakes.campaign_monitor import FakeCampaignMonitor
from tests.fakes.entra import FakeEntra
from tests.fakes.graph import FakeGraph
from tests.fakes.mailgun import FakeMailgun
from tests.fakes.sendgrid import FakeSendGrid
from tests.fakes.smtp import FakeSmtp
from tests.faults.proxy import Certificates, Fault, FaultProxy, HttpProxy, SmtpProxy

SECRETS = {
    "SMTP_PASSWORD": "mArKeD-smtp-Pa55/+=word",
    "ENTRA_SECRET": "mArKeD~entra.s3cret",
    "SENDGRID_KEY": "SG.mArKeD-sendgrid.key",
    "MAILGUN_KEY": "mArKeD-mailgun-key",
    "STATUS_TOKEN": "mArKeD-status-token-0123456789abcdef",
    "CM_KEY": "mArKeD-campaign-monitor-key",
}
OUTLOOK = "https://outlook.office365.com/.default"
SENDER = "info@stark.nl"
TIMEOUT = "5s"
Words = dict[tuple[str, Fault], Word]


@dataclass(slots=True)
class Place:
    """One kind. `upstream(port)` and `by_token(port)` are its YAML with the proxy at that port in front of the service,
    or of the token endpoint. `delivered()` are the recipients so far, one entry for each mail.
    """

    upstream: Callable[[int], str]
    target: int
    delivered: Callable[[], list[str]]
    words: Words
    proxy: type[FaultProxy]
    by_token: Callable[[int], str] | None = None
    token_target: int = 0
    secrets: Callable[[], list[str]] = field(default=list)


# ---- what must come of what


def smtp_words(*, login: bool) -> Words:
    words: Words = {("CONNECT", Fault.REFUSE): Word.RETRY}
    steps = [step for step in SmtpProxy.steps if login or step != "AUTH"]
    for step in steps:
        doubt = Word.UNKNOWN if step == "." else Word.RETRY
        for fault in (Fault.RESET, Fault.STALL, Fault.TRICKLE, Fault.GARBAGE, Fault.HUGE):
            words[step, fault] = doubt
        words[step, Fault.SPLIT] = Word.SENT
        words[step, Fault.SAY_421] = Word.RETRY
    words[".", Fault.THEN_RESET] = Word.SENT
    if login:
        words["AUTH", Fault.ECHO] = Word.CONFIG
    words["EHLO", Fault.STRIPPED] = Word.CONFIG
    words |= {("TLS", fault): Word.RETRY for fault in (Fault.RESET, Fault.STALL)}
    words |= {("TLS", fault): Word.CONFIG for fault in (*_CERTIFICATES, Fault.GARBAGE)}
    return words


_CERTIFICATES = (Fault.WRONG_CERTIFICATE, Fault.EXPIRED_CERTIFICATE)


def http_words(cut: Word, doubt: Word = Word.UNKNOWN) -> Words:
    """`cut`: the status was a success and its body was not whole. `doubt`: the request may have counted."""
    words: Words = {("CONNECT", fault): Word.RETRY for fault in (Fault.REFUSE, Fault.RESET, Fault.STALL, Fault.GARBAGE)}
    words |= {("TLS", fault): Word.RETRY for fault in (Fault.RESET, Fault.STALL, Fault.GARBAGE)}
    words |= {("TLS", fault): Word.CONFIG for fault in _CERTIFICATES}
    words |= {("HEADER", fault): doubt for fault in (Fault.RESET, Fault.STALL, Fault.GARBAGE)}
    broken = (Fault.RESET, Fault.STALL, Fault.TRICKLE, Fault.GARBAGE, Fault.HUGE)
    words |= {("REPLY", fault): doubt for fault in broken}
    words |= {("REPLY", fault): Word.SENT for fault in (Fault.SPLIT, Fault.LARGE_BODY, Fault.THEN_RESET)}
    words["REPLY", Fault.CHUNK_CUT] = cut
    words["REPLY", Fault.ECHO] = Word.CONFIG
    return words


def token_words() -> Words:
    """Until there is a token nobody has heard of the mail."""
    return http_words(Word.RETRY, Word.RETRY)


def _cut(kind: str, case: str) -> Word:
    found = next(each for each in cases_of(kind) if each.name == case)
    word = next(step for step in found.steps if step.name == "reply").cut
    assert word
    return word


# ---- the kinds


@asynccontextmanager
async def smtp(authority: Authority, *, pipelining: bool = True) -> AsyncIterator[Place]:
    keywords = (*(("PIPELINING",) if pipelining else ()), "SIZE 36700160", "8BITMIME", "ENHANCEDSTATUSCODES")
    users = {"callpro": SECRETS["SMTP_PASSWORD"]}
    tls = authority.server_context()
    async with FakeSmtp(starttls=tls, users=users, keywords=keywords) as server:

        def upstream(port: int) -> str:
            return (
                f"type: smtp, host: localhost, port: {port}, username: callpro, password: 'env:SMTP_PASSWORD', "
                f"timeout: {TIMEOUT}, data_timeout: {TIMEOUT}"
            )

        yield Place(upstream, server.port, _mailed(server), smtp_words(login=True), SmtpProxy)


@asynccontextmanager
async def connector(authority: Authority) -> AsyncIterator[Place]:
    async with FakeSmtp(starttls=authority.server_context()) as server:

        def upstream(port: int) -> str:
            return f"type: connector, host: localhost, port: {port}, timeout: {TIMEOUT}, data_timeout: {TIMEOUT}"

        yield Place(upstream, server.port, _mailed(server), smtp_words(login=False), SmtpProxy)


@asynccontextmanager
async def sendgrid_smtp(authority: Authority) -> AsyncIterator[Place]:
    users = {"apikey": SECRETS["SENDGRID_KEY"]}
    async with FakeSmtp(starttls=authority.server_context(), users=users) as server:

        def upstream(port: int) -> str:
            return (
                f"type: sendgrid, host: localhost, port: {port}, api_key: 'env:SENDGRID_KEY', "
                f"timeout: {TIMEOUT}, data_timeout: {TIMEOUT}"
            )

        yield Place(upstream, server.port, _mailed(server), smtp_words(login=True), SmtpProxy)


@asynccontextmanager
async def smtp_oauth(authority: Authority) -> AsyncIterator[Place]:
    tls = authority.server_context()
    async with AsyncExitStack() as stack:
        entra = await stack.enter_async_context(FakeEntra(tls, secret=SECRETS["ENTRA_SECRET"], expires_in=1))
        server = FakeSmtp(
            starttls=tls, mechanisms=("XOAUTH2",), bearer=lambda _mailbox, token: entra.knows(token, OUTLOOK)
        )
        await stack.enter_async_context(server)

        def upstream(port: int, authority_port: int = entra.server.port) -> str:
            return (
                f"type: smtp_oauth, host: localhost, port: {port}, timeout: {TIMEOUT}, data_timeout: {TIMEOUT}, "
                f"{_app(entra, authority_port)}"
            )

        words = smtp_words(login=True)
        words["AUTH", Fault.ECHO] = Word.SENT  # a token that is refused is fetched anew, once
        yield Place(
            upstream, server.port, _mailed(server), words, SmtpProxy,
            lambda port: upstream(server.port, port), entra.server.port, lambda: [given.token for given in entra.given],
        )  # fmt: skip


@asynccontextmanager
async def graph(authority: Authority) -> AsyncIterator[Place]:
    tls = authority.server_context()
    async with (
        AnyScope(tls, secret=SECRETS["ENTRA_SECRET"], expires_in=1) as entra,
        FakeGraph(entra, {SENDER}, tls=tls) as server,
    ):

        def upstream(port: int, authority_port: int = entra.server.port) -> str:
            base = server.base_url.replace(str(server.server.port), str(port))
            return f"type: graph, base_url: '{base}', timeout: {TIMEOUT}, {_app(entra, authority_port)}"

        yield Place(
            upstream, server.server.port, lambda: [to for mail in server.sent for to in mail.recipients],
            http_words(_cut("graph", "graph")), HttpProxy, lambda port: upstream(server.server.port, port),
            entra.server.port, lambda: [given.token for given in entra.given],
        )  # fmt: skip


class AnyScope(FakeEntra):
    """The scope of a token names the port that the relay knows, and behind a proxy that is another one."""

    def knows(self, token: str, scope: str) -> bool:
        return token in [given.token for given in self.given]


def _app(entra: FakeEntra, port: int) -> str:
    return (
        f"tenant: {entra.tenant}, client_id: {entra.client_id}, client_secret: 'env:ENTRA_SECRET', "
        f"authority: 'https://localhost:{port}', pace: {{per_minute: 100000}}"
    )


@asynccontextmanager
async def sendgrid_api(authority: Authority) -> AsyncIterator[Place]:
    tls = authority.server_context()
    async with FakeSendGrid(key=SECRETS["SENDGRID_KEY"], verified=("stark.nl",), tls=tls) as server:

        def upstream(port: int) -> str:
            base = f"https://localhost:{port}"
            return f"type: sendgrid, method: api, base_url: '{base}', api_key: 'env:SENDGRID_KEY', timeout: {TIMEOUT}"

        words = http_words(_cut("sendgrid", "sendgrid-api"))
        yield Place(upstream, server.port, lambda: list(server.recipients), words, HttpProxy)


@asynccontextmanager
async def mailgun(authority: Authority) -> AsyncIterator[Place]:
    async with FakeMailgun(
        key=SECRETS["MAILGUN_KEY"], domain="mg.callcenter.nl", tls=authority.server_context()
    ) as server:

        def upstream(port: int) -> str:
            return (
                f"type: mailgun, domain: mg.callcenter.nl, base_url: 'https://localhost:{port}', "
                f"api_key: 'env:MAILGUN_KEY', timeout: {TIMEOUT}"
            )

        words = http_words(_cut("mailgun", "mailgun"))
        yield Place(upstream, server.port, lambda: list(server.recipients), words, HttpProxy)


@asynccontextmanager
async def campaign_monitor(authority: Authority) -> AsyncIterator[Place]:
    async with FakeCampaignMonitor(key=SECRETS["CM_KEY"], tls=authority.server_context()) as server:

        def upstream(port: int) -> str:
            base = server.base_url.replace(str(server.port), str(port))
            return (
                f"type: campaign_monitor, client_id: {server.client_id}, base_url: '{base}', "
                f"api_key: 'env:CM_KEY', timeout: {TIMEOUT}"
            )

        words = http_words(_cut("campaign_monitor", "campaign_monitor"))
        yield Place(upstream, server.port, lambda: list(server.recipients), words, HttpProxy)


def _mailed(server: FakeSmtp) -> Callable[[], list[str]]:
    return lambda: [to for mail in server.received for to in mail.recipients]


@asynccontextmanager
async def smtp_command_by_command(authority: Authority) -> AsyncIterator[Place]:
    async with smtp(authority, pipelining=False) as place:
        yield place


KINDS = {
    "smtp": smtp,
    "smtp command by command": smtp_command_by_command,
    "connector": connector,
    "smtp_oauth": smtp_oauth,
    "sendgrid by smtp": sendgrid_smtp,
    "sendgrid by its api": sendgrid_api,
    "graph": graph,
    "mailgun": mailgun,
    "campaign_monitor": campaign_monitor,
}


def certificates(authority: Authority) -> Certificates:
    """What proxies show, and what they ask of the look-alikes."""
    client = ssl.create_default_context(cafile=str(authority.bundle))
    return Certificates(
        authority.server_context(), authority.server_context("elsewhere.example"), authority.expired_context(), client
    )
