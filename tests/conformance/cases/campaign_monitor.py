"""Campaign Monitor's classic transactional send (campaign-monitor.md, section 1)."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Word
from tests.conformance.case import Case, Documented, Place, Setting
from tests.conformance.http_place import http_steps, key_place
from tests.fakes.campaign_monitor import FakeCampaignMonitor, error
from tests.fakes.http_server import Response
from upstreams.base import Host, Upstream
from upstreams.campaign_monitor import KIND, CampaignMonitorSettings

KEY = "very-secret-key-of-acme"


def place(setting: Setting) -> AbstractAsyncContextManager[Place]:
    def build(fake: FakeCampaignMonitor) -> Upstream:
        settings = CampaignMonitorSettings(
            api_key=Secret("env:KEY", KEY),
            client_id=fake.client_id,
            base_url=fake.base_url,
            timeout=Duration(setting.timeout),
        )
        return KIND.build("our-cm", settings, Host("relay.example"))

    return key_place(FakeCampaignMonitor(key=KEY, tls=setting.authority.server_context()), build)


def entries(*listed: object) -> Response:
    """A success that lists what became of each recipient."""
    return Response(200, {}, json.dumps(listed).encode())


def quoted(text: str) -> Response:
    return error(403, 1, f"there is no such thing as {text}")


REPLIES = (
    Documented(error(400, 993, "You need to set up custom authentication"), "request", Word.CONFIG),
    Documented(error(400, 994, "Your sending domain must match"), "request", Word.CONFIG),
    Documented(error(400, 1, "Invalid Email Address"), "request", Word.REJECT),
    Documented(Response(400, {}, b"\xff{"), "request", Word.REJECT),
    Documented(Response(400, {}, b'{"Code": "993"}'), "request", Word.REJECT),
    Documented(error(401, 121, "Expired OAuth Token"), "request", Word.CONFIG),
    Documented(error(401, 50, "Must supply a valid HTTP Basic Authorization header"), "request", Word.CONFIG),
    Documented(error(401, 100, "Invalid API Key"), "request", Word.CONFIG),
    Documented(error(403, 403, "Forbidden"), "request", Word.CONFIG),
    Documented(error(404, 404, "Not found"), "request", Word.CONFIG),
    Documented(Response(405), "request", Word.CONFIG),
    Documented(Response(408), "request", Word.RETRY),
    Documented(Response(413), "request", Word.REJECT),
    Documented(Response(418), "request", Word.REJECT),
    Documented(error(429, 429, "Rate limit"), "request", Word.RETRY),
    Documented(error(500, 500, "Sorry"), "request", Word.RETRY),
    Documented(Response(502, {}, b"<html>bad gateway</html>"), "request", Word.UNKNOWN),
    Documented(Response(503), "request", Word.RETRY),
    Documented(Response(504), "request", Word.UNKNOWN),
    Documented(Response(302, {"Location": "https://elsewhere.example"}), "request", Word.CONFIG),
    Documented(entries({"Status": "Received", "Recipient": '"Jan" <A0@x.nl>', "MessageID": "1"}), "request", Word.SENT),
    Documented(entries({"Status": "Received", "Recipient": "a0@x.nl"}), "request", Word.SENT),
    Documented(entries({"Status": "Something", "Recipient": "a0@x.nl", "MessageID": "1"}), "request", Word.REJECT),
    Documented(entries({"Status": "\ud800", "Recipient": "a0@x.nl", "MessageID": ["\ud800"]}), "request", Word.REJECT),
    Documented(entries({"Recipient": "a0@x.nl"}), "request", Word.REJECT),
    Documented(entries({"Status": "Received", "Recipient": "another@x.nl"}), "request", Word.UNKNOWN),
    Documented(entries("\ud800", {"Status": "Received", "Recipient": 7}), "request", Word.UNKNOWN),
    Documented(entries(), "request", Word.UNKNOWN),
    Documented(Response(202, {}, b'[{"Status": "Received", "Recip'), "request", Word.UNKNOWN),
    Documented(Response(200, {}, b"<html>hotel wifi</html>"), "request", Word.UNKNOWN),
)

CASES = (
    Case(
        name="campaign_monitor",
        open=place,
        limit=25,
        replies=REPLIES,
        steps=http_steps(reply=Word.UNKNOWN),
        echoes={"request": quoted},
    ),
)
