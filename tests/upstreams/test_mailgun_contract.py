"""Every golden mail, sent by the real upstream, passes Mailgun's own API description (served by Prism)."""

from __future__ import annotations

import asyncio

import pytest

from config.credentials import Secret
from routing.outcome import Word
from tests.contracts.prism import HERE, prism
from tests.fakes.mailgun import FakeMailgun
from tests.upstreams.sendgrid_cases import cases
from upstreams.api_reply import basic
from upstreams.base import Host
from upstreams.http_client import HttpClient, Reply
from upstreams.mailgun import KIND, MailgunSettings
from upstreams.mailgun_request import form, message_of, options

pytestmark = pytest.mark.timeout(180)

DESCRIPTION = HERE / "mailgun_messages_subset_prism.yaml"
BROKEN = {
    "no to": ([("o:tracking", "no")], b"From: a@x.nl\r\n\r\n"),
    "no message": ([("to", "a@x.nl")], None),
    "tracking that is none": ([("to", "a@x.nl"), ("o:tracking", "perhaps")], b"From: a@x.nl\r\n\r\n"),
    "test mode off": ([("to", "a@x.nl"), ("o:testmode", "no")], b"From: a@x.nl\r\n\r\n"),
}


async def post(client: HttpClient, mailgun: FakeMailgun, url: str, filled: tuple[str, bytes], key: str = "") -> Reply:
    headers = {"Authorization": basic("api", key or mailgun.key), "Content-Type": filled[0]}
    reply = await client.exchange("POST", f"{url}/v3/{mailgun.domain}/messages.mime", headers, filled[1])
    assert isinstance(reply, Reply), reply
    return reply


def test_every_mail_passes_the_description_and_arrives_as_it_is():
    async def run() -> tuple[dict[str, str], dict[str, str], int]:
        troubles, violations, sent = {}, {}, 0
        async with FakeMailgun() as mailgun, prism(DESCRIPTION, mailgun.url) as url:
            given = MailgunSettings(domain=mailgun.domain, api_key=Secret("env:K", mailgun.key), base_url=url)
            way, client = KIND.build("mg", given, Host("h")), HttpClient(20, 1)
            for case in cases():
                if b"from:" not in case.mail.content.partition(b"\r\n\r\n")[0].lower():
                    continue
                results = await way.send(case.mail)
                if any(outcome.word is not Word.SENT for outcome in results.values()):
                    troubles[case.name] = str(results)
                elif mailgun.delivered[-1].message != message_of(case.mail.content):
                    troubles[case.name] = "other bytes"
                else:
                    sent += 1
                    people = [("to", each) for each in case.mail.recipients]
                    filled = form([*people, *options("01JQ", tracking=False)], message_of(case.mail.content))
                    violation = (await post(client, mailgun, url, filled)).headers.get("sl-violations")
                    violations |= {case.name: violation} if violation else {}
            await way.close()
            await client.close()
        return troubles, violations, sent

    troubles, violations, sent = asyncio.run(run())
    assert troubles == {}
    assert violations == {}
    assert sent >= 40


def test_prism_refuses_a_form_that_breaks_the_description():
    async def run() -> tuple[dict[str, int], int]:
        statuses = {}
        async with FakeMailgun() as mailgun, prism(DESCRIPTION, mailgun.url) as url:
            client = HttpClient(20, 1)
            for name, (named, message) in BROKEN.items():
                statuses[name] = (await post(client, mailgun, url, form(named, message))).status
            await client.close()
            return statuses, len(mailgun.requests)

    statuses, forwarded = asyncio.run(run())
    assert statuses == dict.fromkeys(BROKEN, 422)
    assert forwarded == 0
