"""SendGrid (sendgrid.md, sections 1 and 2), by its SMTP server and by its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Documented, Place, Setting
from tests.conformance.http_place import http_steps, key_place
from tests.conformance.smtp_place import SmtpPlace, quoted_at_login, said, smtp_steps
from tests.fakes.http_server import Response
from tests.fakes.sendgrid import FakeSendGrid, error
from tests.fakes.smtp import FakeSmtp
from upstreams.base import Host, Upstream
from upstreams.sendgrid import KIND, SendGridSettings

KEY = "SG.very-secret.key-of-acme"
SECRET = Secret("env:KEY", KEY)


@asynccontextmanager
async def smtp(setting: Setting) -> AsyncIterator[Place]:
    async with FakeSmtp(starttls=setting.authority.server_context(), users={"apikey": KEY}) as server:
        timeout = Duration(setting.timeout)
        settings = SendGridSettings(
            api_key=SECRET, host="localhost", port=server.port, timeout=timeout, data_timeout=timeout
        )
        upstream = KIND.build("our-sendgrid", settings, Host("relay.example"))
        try:
            yield SmtpPlace(server, upstream, "apikey", KEY)
        finally:
            await upstream.close()


def api(setting: Setting) -> AbstractAsyncContextManager[Place]:
    def build(fake: FakeSendGrid) -> Upstream:
        timeout = Duration(setting.timeout)
        settings = SendGridSettings(api_key=SECRET, method="api", base_url=fake.url, timeout=timeout)
        return KIND.build("our-sendgrid", settings, Host("relay.example"))

    return key_place(FakeSendGrid(key=KEY, tls=setting.authority.server_context()), build)


def quoted(text: str) -> Response:
    return error(403, f"there is no such thing as {text}")


SMTP_REPLIES = (
    *said(
        "MAIL",
        Word.CONFIG,
        "403 You are not authorized to send from that email address",
    ),
    *said(
        "RCPT",
        Word.CONFIG,
        "403 You are not authorized to send from that email address",
    ),
    *said(
        ".",
        Word.CONFIG,
        "403 You are not authorized to send from that email address",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "451 Authentication failed: Maximum credits exceeded",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "451 Authentication failed: Maximum credits exceeded",
    ),
    *said(
        "AUTH",
        Word.CONFIG,
        "535 Authentication failed: Bad username / password",
    ),
    *said(
        "MAIL",
        Word.CONFIG,
        "550 Unauthenticated Senders Not Allowed",
    ),
    *said(
        ".",
        Word.CONFIG,
        "550 The from address does not match a verified Sender Identity. Mail cannot be sent",
    ),
    *said(
        "MAIL",
        Word.RETRY,
        "421 Message from (192.0.2.1) temporarily deferred",
        "450 try again later",
        "451 try again later",
    ),
    *said(
        ".",
        Word.RETRY,
        "452 too busy",
    ),
    *said(
        ".",
        Word.REJECT,
        "552 message exceeds 30MB",
    ),
    *said(
        "RCPT",
        Word.REJECT,
        "553 invalid address",
    ),
    *said(
        ".",
        Word.REJECT,
        "554 policy",
    ),
    *said(
        "CONNECT",
        Word.CONFIG,
        "554 go away",
    ),
)

NOT_VERIFIED = (
    "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved."
)
API_REPLIES = (
    Documented(error(400, "The from email does not contain a valid address.", "from.email"), "request", Word.REJECT),
    Documented(error(401, "The provided authorization grant is invalid, expired, or revoked"), "request", Word.CONFIG),
    Documented(error(401, "Maximum credits exceeded"), "request", Word.CONFIG),
    Documented(error(400, "Maximum credits exceeded"), "request", Word.CONFIG),
    Documented(error(403, NOT_VERIFIED, "from"), "request", Word.CONFIG),
    Documented(error(403, "access forbidden"), "request", Word.CONFIG),
    Documented(error(404, "not found"), "request", Word.CONFIG),
    Documented(error(405, "method not allowed"), "request", Word.CONFIG),
    Documented(error(413, "content too large"), "request", Word.REJECT),
    Documented(Response(413, {}, b"<html>too large</html>"), "request", Word.REJECT),
    Documented(error(429, "too many requests"), "request", Word.RETRY),
    Documented(Response(408), "request", Word.RETRY),
    Documented(Response(422), "request", Word.REJECT),
    Documented(error(500, "internal server error"), "request", Word.RETRY),
    Documented(error(500, "Maximum credits exceeded"), "request", Word.RETRY),
    Documented(Response(502, {}, b"<html>bad gateway</html>"), "request", Word.RETRY),
    Documented(Response(503), "request", Word.RETRY),
    Documented(Response(200), "request", Word.CONFIG),
    Documented(Response(302, {"Location": "https://elsewhere.example"}), "request", Word.CONFIG),
    Documented(Response(400, {}, b"\xff{"), "request", Word.REJECT),
    Documented(Response(400, {}, b'{"errors": {"a": 1}}'), "request", Word.REJECT),
    Documented(Response(400, {}, b'{"errors": [1, null]}'), "request", Word.REJECT),
    Documented(Response(400, {}, b"[]"), "request", Word.REJECT),
)

CASES = (
    Case(
        name="sendgrid-smtp",
        open=smtp,
        limit=1000,
        replies=SMTP_REPLIES,
        steps=smtp_steps(),
        echoes={"AUTH": quoted_at_login},
    ),
    Case(
        name="sendgrid-api",
        open=api,
        limit=1000,
        replies=API_REPLIES,
        steps=http_steps(reply=Word.SENT),
        echoes={"request": quoted},
    ),
)
