"""A customer's mail server (smtp-login.md, sections 2 and 3): with a login, pipelined and not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Place, Setting
from tests.conformance.smtp_place import PASSWORD, SmtpPlace, quoted_at_login, said, smtp_steps
from tests.fakes.smtp import FakeSmtp
from upstreams.base import Host
from upstreams.smtp import KIND, SmtpSettings

USER = "callpro@acme.nl"
PLAIN = ("SIZE 36700160", "8BITMIME", "ENHANCEDSTATUSCODES")


@asynccontextmanager
async def place(keywords: tuple[str, ...], setting: Setting) -> AsyncIterator[Place]:
    tls = setting.authority.server_context()
    async with FakeSmtp(starttls=tls, users={USER: PASSWORD}, keywords=keywords) as server:
        settings = SmtpSettings(
            host="localhost",
            port=server.port,
            username=USER,
            password=Secret("env:ACME", PASSWORD),
            timeout=Duration(setting.timeout),
            data_timeout=Duration(setting.timeout),
        )
        upstream = KIND.build("acme", settings, Host("relay.example"))
        try:
            yield SmtpPlace(server, upstream, USER, PASSWORD)
        finally:
            await upstream.close()


REPLIES = (
    *said(
        "AUTH",
        Word.CONFIG,
        "432 4.7.12 A password transition is needed",
    ),
    *said(
        "AUTH",
        Word.RETRY,
        "454 4.7.0 Temporary authentication failure",
        "454 4.7.0 Too many login attempts, please try again later",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "500 5.5.6 Authentication Exchange line is too long",
        "501 5.5.2 Cannot decode argument",
        "504 5.5.4 Unrecognized authentication type",
        "530 5.7.0 Authentication required",
        "530 5.7.0 Must issue a STARTTLS command first",
        "534 5.7.9 Application-specific password required",
        "535 5.7.8 Username and Password not accepted",
        "538 5.7.11 Encryption required for requested authentication mechanism",
        "535 no",
        "550 go away",
    ),
    *said(
        "AUTH",
        Word.RETRY,
        "421 4.7.0 try later",
    ),
    *said(
        "MAIL",
        Word.RETRY,
        "421 4.3.2 shutting down",
    ),
    *said(
        ".",
        Word.RETRY,
        "421 4.7.0 slow down",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "450 4.2.0 mailbox busy",
        "450 4.2.1 mailbox busy",
        "450 4.7.1 greylisted",
    ),
    *said(
        ".",
        Word.RETRY,
        "451 4.3.0 local error",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "451 4.7.1 greylisted",
    ),
    *said(
        "MAIL",
        Word.RETRY,
        "451 4.7.651 policy delay",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "452 4.2.2 full for now",
    ),
    *said(
        "MAIL",
        Word.RETRY,
        "452 4.3.1 no storage",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "452 4.5.3 too many recipients",
    ),
    *said(
        "STARTTLS",
        Word.RETRY,
        "454 4.7.0 TLS not available",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "500 5.5.2 what?",
        "501 5.5.4 bad argument",
    ),
    *said(
        ".",
        Word.REJECT,
        "502 5.5.1 not implemented",
        "503 5.5.1 bad sequence",
    ),
    *said(
        "MAIL",
        Word.REJECT,
        "504 5.5.4 parameter not implemented",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "521 does not accept mail",
        "556 5.1.10 domain does not accept mail",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "530 5.7.0 Authentication required",
        "535 5.7.8 not logged in",
        "550 5.7.1 authentication required",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.1 Unable to relay",
        "550 5.7.1 sending as this domain is not permitted",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "550 5.1.1 no such user",
        "550 5.1.2 no such domain",
        "550 5.1.3 bad syntax",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "550 5.1.7 bad sender",
        "550 5.1.8 bad sender",
        "553 5.1.8 sender refused",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "553 5.7.1 Sender address rejected: not owned by user",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.4.5 Daily user sending limit exceeded",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "551 5.1.6 not local",
        "553 5.1.3 name not allowed",
        "552 5.2.2 mailbox full",
    ),
    *said(
        ".",
        Word.REJECT,
        "552 5.3.4 too big",
        "554 5.7.1 message looks like spam",
    ),
)

CASES = tuple(
    Case(
        name=name,
        open=partial(place, keywords),
        limit=100,
        replies=REPLIES,
        steps=smtp_steps(),
        echoes={"AUTH": quoted_at_login},
    )
    for name, keywords in (("smtp", ("PIPELINING", *PLAIN)), ("smtp-command-by-command", PLAIN))
)
