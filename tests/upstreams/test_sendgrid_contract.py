"""Every golden mail, sent by the real upstream, passes SendGrid's own API description (served by Prism)."""

from __future__ import annotations

import asyncio
import json

import pytest

from config.credentials import Secret
from routing.outcome import Outcome, Word
from tests.contracts.prism import HERE, prism
from tests.fakes.sendgrid import FakeSendGrid
from tests.upstreams.sendgrid_cases import cases
from upstreams.base import Host
from upstreams.http_client import HttpClient, Reply
from upstreams.sendgrid import KIND, SendGridSettings

pytestmark = pytest.mark.timeout(180)

DESCRIPTION = HERE / "sendgrid_tsg_mail_v3.json"
BROKEN = {
    "no from": {"from": None},
    "from without an address": {"from": {"name": "Anna"}},
    "an address that is none": {"from": {"email": "anna"}},
    "an empty subject": {"subject": ""},
    "a text without a character": {"content": [{"type": "text/plain", "value": ""}]},
    "an attachment without a name": {"attachments": [{"content": "AAAA"}]},
    "a disposition that is none": {"attachments": [{"content": "AAAA", "filename": "a", "disposition": "x"}]},
    "one reply address as a list": {"reply_to": [{"email": "a@x.nl"}]},
}


def upstream(sendgrid: FakeSendGrid, url: str):
    return KIND.build(
        "sg", SendGridSettings(api_key=Secret("env:K", sendgrid.key), method="api", base_url=url), Host("h")
    )


async def post(client: HttpClient, sendgrid: FakeSendGrid, url: str, body: bytes) -> Reply:
    headers = {"Authorization": f"Bearer {sendgrid.key}", "Content-Type": "application/json"}
    reply = await client.exchange("POST", f"{url}/v3/mail/send", headers, body)
    assert isinstance(reply, Reply), reply
    return reply


def test_every_mail_passes_the_description():
    async def run() -> tuple[dict[str, str], dict[str, str], int]:
        troubles, violations, carried = {}, {}, [case for case in cases() if case.carried]
        async with FakeSendGrid() as sendgrid, prism(DESCRIPTION, sendgrid.url) as url:
            way, client = upstream(sendgrid, url), HttpClient(20, 1)
            for case in carried:
                results: dict[str, Outcome] = await way.send(case.mail)
                if any(outcome.word is not Word.SENT or not outcome.upstream_id for outcome in results.values()):
                    troubles[case.name] = str(results)
                body = sendgrid.requests[-1].body
                reply = await post(client, sendgrid, url, body)
                if "sl-violations" in reply.headers:
                    violations[case.name] = reply.headers["sl-violations"]
            await way.close()
            await client.close()
        return troubles, violations, len(carried)

    troubles, violations, count = asyncio.run(run())
    assert troubles == {}
    assert violations == {}
    assert count >= 25


def test_prism_refuses_a_body_that_breaks_the_description():
    async def run() -> tuple[dict[str, int], int]:
        whole = next(case for case in cases() if case.name == "plain").expected["request"]
        statuses = {}
        async with FakeSendGrid() as sendgrid, prism(DESCRIPTION, sendgrid.url) as url:
            client = HttpClient(20, 1)
            for name, change in BROKEN.items():
                body = {key: value for key, value in {**whole, **change}.items() if value is not None}
                statuses[name] = (await post(client, sendgrid, url, json.dumps(body).encode())).status
            await client.close()
            return statuses, len(sendgrid.requests)

    statuses, forwarded = asyncio.run(run())
    assert statuses == dict.fromkeys(BROKEN, 422)
    assert forwarded == 0
