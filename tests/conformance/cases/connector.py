"""Exchange Online as a smart host (microsoft-365-connector.md, sections 4 and 5): TLS, no login, so no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Place, Setting
from tests.conformance.smtp_place import SmtpPlace, said, smtp_steps
from tests.fakes.smtp import FakeSmtp
from upstreams.base import Host
from upstreams.connector import KIND, ConnectorSettings


@asynccontextmanager
async def place(setting: Setting) -> AsyncIterator[Place]:
    async with FakeSmtp(starttls=setting.authority.server_context()) as server:
        timeout = Duration(setting.timeout)
        settings = ConnectorSettings(host="localhost", port=server.port, timeout=timeout, data_timeout=timeout)
        upstream = KIND.build("globex-365", settings, Host("relay.example"))
        try:
            yield SmtpPlace(server, upstream)
        finally:
            await upstream.close()


REPLIES = (
    *said(
        "MAIL",
        Word.RETRY,
        "421 4.3.2 Service not available",
    ),
    *said(
        ".",
        Word.RETRY,
        "432 4.3.2 STOREDRV; concurrent limit",
    ),
    *said(
        "RCPT",
        Word.WAIT,
        "451 4.7.500 Access denied, please try again later",
        "451 4.7.699 Access denied, please try again later",
        "451 4.7.850 Access denied, please try again later",
        "451 4.7.899 Access denied, please try again later",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "452 4.5.3 Too many recipients (AS780090)",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "450 4.7.25 sending IPv6 address must have a reverse record",
    ),
    *said(
        ".",
        Word.CONFIG,
        "450 4.7.26 message over IPv6 must pass SPF or DKIM",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "451 4.4.3 Temporary server error",
        "451 4.7.0 Temporary server error",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.64 TenantAttribution; Relay Access Denied",
        "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization",
        "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "530 5.7.57 SMTP; Client was not authenticated to send anonymous mail",
        "550 5.7.57 SMTP; Client was not authenticated",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.1 Unable to relay",
        "554 5.4.1 Relay access denied",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "550 5.4.1 Recipient address rejected: Access denied",
        "550 5.1.1 no such recipient",
        "550 5.1.10 RESOLVER.ADR.RecipientNotFound",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.1.8 Access denied, bad outbound sender",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.501 Access denied, spam abuse detected",
        "550 5.7.502 Access denied, banned sender",
        "550 5.7.503 Access denied, banned sender",
        "550 5.7.506 Access denied, bad HELO",
        "550 5.7.508 Access denied, permitted limits exceeded",
        "550 5.7.510 Access denied, recipient does not accept email over IPv6",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.23 The message was rejected because of SPF violation",
        "550 5.7.509 Access denied, sending domain does not pass DMARC",
        "550 5.7.515 Access denied, required authentication level",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.511 Access denied, banned sender; write to delist@",
    ),
    *said(
        ".",
        Word.REJECT,
        "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "550 5.7.513 Service unavailable, client host blocked by recipient",
        "550 5.7.504 Recipient address rejected: Access denied",
        "550 5.7.505 Access denied, banned recipient",
        "550 5.7.507 Access denied, rejected by recipient",
        "550 5.7.12 sender was not authenticated by organization",
        "550 5.7.124 sender not in allowed-senders list",
        "550 5.7.133 sender not authenticated for group",
        "550 5.7.134 sender was not authenticated for mailbox",
        "550 5.7.135 sender was not authenticated for public folder",
        "550 5.7.136 sender was not authenticated for mail user",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.4.6 Hop count exceeded",
        "550 5.4.14 Hop count exceeded",
    ),
    *said(
        "RCPT",
        Word.RETRY,
        "550 5.2.121 recipient limit from this sender",
        "550 5.2.122 recipient limit",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.606 Access denied, banned sending IP [203.0.113.10]",
        "550 5.7.649 Access denied, banned sending IP [203.0.113.10]",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        "550 5.7.708 Access denied, traffic not accepted from this IP",
        "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.233 tenant external recipient rate limit",
    ),
    *said(
        ".",
        Word.REJECT,
        "550 5.6.11 message contains bare linefeeds",
        "552 5.3.4 message size exceeds limit",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "550 5.7.999 something new",
    ),
)

CASES = (
    Case(
        name="connector",
        open=place,
        limit=100,
        replies=REPLIES,
        steps=smtp_steps(login=False),
        echoes={},
    ),
)
