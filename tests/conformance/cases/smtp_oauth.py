"""Client submission with a token (microsoft-365-smtp-oauth.md, section 6), beside look-alikes of Entra and Exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Place, Setting
from tests.conformance.entra_step import TOKEN_REPLIES, TOKEN_STEP, AfterEntra, quoted_by_entra
from tests.conformance.harness import SENDER
from tests.conformance.smtp_place import SmtpPlace, login_secrets, quoted_at_login, said, smtp_steps
from tests.upstreams import smtp_oauth_kit as kit


class OauthPlace(AfterEntra, SmtpPlace):
    """The SMTP server, with Entra before it."""

    def __init__(self, made: kit.Place) -> None:
        super().__init__(made.server, made.way)
        self.entra = made.entra

    def secrets(self, step: str) -> tuple[str, ...]:
        if step == "token":
            return (kit.SECRET,)
        given = [each.token for each in self.entra.given[:1]]
        return login_secrets(given[0], f"user={SENDER}\x01auth=Bearer {given[0]}\x01\x01") if given else ()


@asynccontextmanager
async def place(setting: Setting) -> AsyncIterator[Place]:
    async with kit.opened(
        setting.authority, timeout=Duration(setting.timeout), data_timeout=Duration(setting.timeout)
    ) as made:
        made.mailboxes.add(SENDER)
        yield OauthPlace(made)


REPLIES = (
    *said(
        "AUTH",
        Word.CONFIG,
        "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]",
        hint="app",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled",
        hint="Set-CASMailbox",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "535 5.7.139 Authentication unsuccessful, something new",
        hint="sign-in log",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        hint="password",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "550 5.7.30 Basic authentication is not supported for Client Submission.",
        hint="password",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "530 5.7.57 Client not authenticated to send mail",
        "550 5.7.57 SMTP; Client was not authenticated",
        hint="fault of this relay",
    ),
    *said(
        "AUTH",
        Word.RETRY,
        "454 4.7.0 Temporary authentication failure",
        hint="nobody",
    ),
    *said(
        "CONNECT",
        Word.RETRY,
        "421 4.3.2 Service not available",
        hint="connections",
    ),
    *said(
        "AUTH",
        Word.RETRY,
        "432 4.3.2 Concurrent connections limit exceeded",
        hint="connections",
    ),
    *said(
        ".",
        Word.RETRY,
        "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
        hint="connections",
    ),
    *said(
        "AUTH",
        Word.RETRY,
        "432 Concurrent connections limit exceeded",
        hint="nobody",
    ),
    *said(
        ".",
        Word.RETRY,
        "451 4.7.0 Temporary server error",
        hint="pace",
    ),
    *said(
        "MAIL",
        Word.RETRY,
        "451 4.7.500 Server busy",
        "451 4.7.699 Server busy",
        hint="pace",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        "554 5.2.252 SendAsDenied; info@initech.nl not allowed to send as x@initech.nl",
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed",
        hint="Send As",
    ),
    *said(
        ".",
        Word.CONFIG,
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message",
        hint="10,000",
    ),
    *said(
        ".",
        Word.CONFIG,
        "554 5.2.2 STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
        hint="full",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.1.8 Access denied, bad outbound sender",
        hint="Defender",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.233 tenant external recipient rate limit",
        hint="24 hours",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.501 Access denied, spam abuse detected",
        "550 5.7.502 Access denied, banned sender",
        "550 5.7.503 Access denied, banned sender",
        hint="Defender",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        "550 5.7.708 Access denied, traffic not accepted from this IP",
        hint="tenant",
    ),
    *said(
        "MAIL",
        Word.REJECT,
        "552 5.3.4 Message size exceeds fixed maximum message size",
        hint="larger",
    ),
    *said(
        ".",
        Word.REJECT,
        "552 5.2.3 Message too large",
        hint="larger",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "550 5.1.1 no such user",
        hint="address",
    ),
    *said(
        ".",
        Word.REJECT,
        "554 5.2.0 STOREDRV.Submission.Exception:SomethingElse",
    ),
)

CASES = (
    Case(
        name="smtp_oauth",
        open=place,
        limit=500,
        replies=TOKEN_REPLIES + REPLIES,
        steps=(TOKEN_STEP, *smtp_steps()),
        echoes={"token": quoted_by_entra, "AUTH": quoted_at_login},
    ),
)
