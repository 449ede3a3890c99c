"""Mailgun's messages.mime (mailgun.md, section 2)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Documented, Place, Setting
from tests.conformance.http_place import http_steps, key_place
from tests.fakes.http_server import Response
from tests.fakes.mailgun import FakeMailgun, said
from upstreams.base import Host, Upstream
from upstreams.mailgun import KIND, MailgunSettings

KEY = "key-very-secret-of-acme"


def place(setting: Setting) -> AbstractAsyncContextManager[Place]:
    def build(fake: FakeMailgun) -> Upstream:
        settings = MailgunSettings(
            api_key=Secret("env:KEY", KEY), domain=fake.domain, base_url=fake.url, timeout=Duration(setting.timeout)
        )
        return KIND.build("our-mailgun", settings, Host("relay.example"))

    return key_place(FakeMailgun(key=KEY, tls=setting.authority.server_context()), build)


def quoted(text: str) -> Response:
    return said(403, f"there is no such thing as {text}")


BAD_ADDRESS = "to parameter is not a valid address. please check documentation"
ACCOUNT = "Domain mg.acme.nl is not allowed to send: The domain is unverified and requires DNS configuration."
REPLIES = (
    Documented(said(400, "from parameter is missing"), "request", Word.REJECT),
    Documented(said(400, "to parameter is missing"), "request", Word.REJECT),
    Documented(said(400, "'message' parameter is not a file"), "request", Word.REJECT),
    Documented(said(400, BAD_ADDRESS), "request", Word.REJECT),
    Documented(said(400, ACCOUNT), "request", Word.CONFIG),
    Documented(said(400, "domain mg.acme.nl is disabled"), "request", Word.CONFIG),
    Documented(said(400, "Account x is not allowed to send: disabled"), "request", Word.CONFIG),
    Documented(Response(401, {}, b"Forbidden"), "request", Word.CONFIG),
    Documented(said(402, "payment required"), "request", Word.CONFIG),
    Documented(said(403, "Domain mg.acme.nl is not allowed to send large batches yet"), "request", Word.CONFIG),
    Documented(said(404, "Domain not found"), "request", Word.CONFIG),
    Documented(said(405, "method not allowed"), "request", Word.CONFIG),
    Documented(Response(408), "request", Word.RETRY),
    Documented(said(413, "request size exceeds 52.4MiB limit"), "request", Word.REJECT),
    Documented(said(418, "teapot"), "request", Word.REJECT),
    Documented(said(429, "too many"), "request", Word.RETRY),
    Documented(said(500, "Internal Server Error"), "request", Word.RETRY),
    Documented(Response(502, {}, b"<html>bad gateway</html>"), "request", Word.RETRY),
    Documented(Response(503), "request", Word.RETRY),
    Documented(Response(504), "request", Word.RETRY),
    Documented(Response(302, {"Location": "https://elsewhere.example"}), "request", Word.CONFIG),
    Documented(Response(202), "request", Word.CONFIG),
    Documented(Response(200, {}, b'{"id": "<cut'), "request", Word.UNKNOWN),
    Documented(Response(200, {}, b"<html>hotel wifi</html>"), "request", Word.UNKNOWN),
    Documented(Response(200, {}, b'{"id": 7}'), "request", Word.UNKNOWN),
    Documented(Response(400, {}, b"\xff{"), "request", Word.REJECT),
    Documented(Response(400, {}, b'{"message": ["\\ud800"]}'), "request", Word.REJECT),
)

CASES = (
    Case(
        name="mailgun",
        open=place,
        limit=1000,
        replies=REPLIES,
        steps=http_steps(reply=Word.UNKNOWN),
        echoes={"request": quoted},
    ),
)
