"""A plain `type: smtp` that leads to a provider: its replies, its limits, and no orders of CallPro's to it."""

from __future__ import annotations

import asyncio

import pytest

from config.credentials import Secret
from config.rules import Rate
from routing.outcome import Stage, Word
from tests.fakes.smtp import FakeSmtp
from tests.upstreams.smtp_kit import mail, ours
from upstreams.smtp import KIND, ProviderSmtp, SmtpSettings
from upstreams.smtp_login import PasswordLogin
from upstreams.smtp_pool import SmtpLimits
from upstreams.smtp_providers import provider_of
from upstreams.smtp_replies import Reply
from upstreams.traits import traits_of

LOGIN = {"username": "u", "password": Secret("env:X", "hunter2")}
KEPT = b"From: a@acme.nl\r\nX-Mail: stays\r\n"
BODY = b"\r\nX-Mailgun-Drop-Message: yes, in the text\r\n"


@pytest.mark.parametrize(
    ("host", "order"),
    [
        ("smtp.eu.mailgun.org", b"X-Mailgun-Drop-Message: yes\r\n"),
        ("smtp.mailgun.org", b'x-mailgun-variables :\r\n {"a": 1}\r\n'),
        ("smtp.sendgrid.net", b'X-SMTPAPI: {"to": ["thief@example.org"]}\r\n'),
        ("SMTP.api.createsend.com.", b"X-Cmail-GroupName: other\r\n"),
    ],
)
def test_an_order_to_the_provider_never_leaves(host, order):
    async def go(provider):
        async with FakeSmtp() as server:
            way = SmtpSettings(host=server.host, port=server.port, tls="none").way()
            built = ProviderSmtp("acme", ours(), way, SmtpLimits(), provider)
            results = await built.send(mail(content=order + KEPT + order + BODY))
            await built.close()
            return server.received[0].content, results["b@x.nl"].word

    assert asyncio.run(go(provider_of(host))) == (KEPT + BODY, Word.SENT)
    unknown, word = asyncio.run(go(provider_of("smtp.acme.nl")))
    assert (unknown, word) == (order + KEPT + order + BODY, Word.SENT)


@pytest.mark.parametrize(
    ("host", "connections", "recipients"),
    [("smtp.api.createsend.com", 5, 25), ("smtp.office365.com", 3, 100), ("smtp.acme.nl", 5, 100)],
)
def test_a_providers_limits_hold_whatever_the_default(host, connections, recipients):
    built = KIND.build("acme", SmtpSettings(host=host, **LOGIN), ours())
    assert (built.concurrency, built.recipients_limit) == (connections, recipients)


REPLIES = [
    ("smtp.office365.com", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "Send As"),
    ("smtp.office365.com", "554 5.2.252 SendAsDenied; info@acme.nl not allowed to send as x@acme.nl", "Send As"),
    ("smtp.office365.com", "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", "10,000"),
    ("smtp.office365.com", "554 5.2.2 STOREDRV.Submission.Exception:QuotaExceededException", "full"),
    ("smtp.office365.com", "550 5.1.8 Access denied, bad outbound sender", "Defender"),
    ("smtp.office365.com", "550 5.7.233 tenant external recipient rate limit", "24 hours"),
    ("acme-nl.mail.protection.outlook.com", "550 5.7.64 TenantAttribution; Relay Access Denied", "connector"),
    ("acme-nl.a-v1.mx.microsoft", "550 5.7.68 TenantInboundAttribution; Direct Send not allowed", "connector"),
    ("smtp.sendgrid.net", "403 You are not authorized to send from that email address", "verify"),
    ("smtp.eu.sendgrid.net", "451 Authentication failed: Maximum credits exceeded", "credits"),
    ("smtp.sendgrid.net", "550 The from address does not match a verified Sender Identity.", "verify"),
    ("smtp.mailgun.org", "550 Domain acme.nl is not allowed to send: recipient limit exceeded", "Mailgun"),
    ("smtp.eu.mailgun.org", "554 5.7.1 Domain acme.nl is not allowed to send", "Mailgun"),
]


@pytest.mark.parametrize(("host", "line", "hint"), REPLIES)
def test_what_a_provider_says_of_the_route_bounces_nothing(host, line, hint):
    outcome = provider_of(host).replies.classify(Reply(int(line[:3]), line[4:]), Stage.CONTENT)
    assert outcome.word is Word.CONFIG
    assert hint in str(outcome.hint)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("550 5.7.30 Basic authentication is not supported for Client Submission.", "smtp_oauth"),
        ("535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", "SMTP AUTH"),
        ("535 5.7.3 Authentication unsuccessful", "password"),
    ],
)
def test_a_password_that_microsoft_does_not_take_says_why(line, hint):
    outcome = provider_of("smtp.office365.com").replies.classify(Reply(int(line[:3]), line[4:]), Stage.LOGIN)
    assert outcome.word is Word.CONFIG
    assert hint in str(outcome.hint)


def test_a_mailbox_with_a_password_brings_its_pace_and_is_signed_by_the_tenant():
    traits = traits_of(SmtpSettings(host="smtp.office365.com", **LOGIN))
    assert traits.rate == Rate(per_minute=30, per_day=10_000)
    assert not traits.takes_signature(always=True)


@pytest.mark.parametrize(
    ("host", "kind"), [("smtp.sendgrid.net", "sendgrid"), ("acme-nl.mail.protection.outlook.com", "connector")]
)
def test_check_names_the_type_that_knows_the_host_better(host, kind):
    (fault,) = SmtpSettings(host=host, port=25).faults()
    assert fault.warning
    assert kind in fault.mend


def test_campaign_monitors_token_is_user_name_and_password_and_stands_nowhere():
    settings = SmtpSettings(host="smtp.api.createsend.com", password=Secret("env:CM", "t0ken"))
    assert list(settings.faults()) == []
    assert settings.way().login == PasswordLogin("t0ken", Secret("env:CM", "t0ken"))
    assert "t0ken" not in repr(settings) + repr(settings.way())
    assert [fault.key for fault in SmtpSettings(host="smtp.acme.nl", password=Secret("env:CM", "x")).faults()] == [
        "password"
    ]
