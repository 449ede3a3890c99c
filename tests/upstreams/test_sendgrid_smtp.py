"""SendGrid by SMTP: the login, our X-SMTPAPI and nobody else's, the settings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from config.credentials import Secret
from config.fields import Duration
from routing.headers import split, unfold, values
from routing.mail import Outgoing
from routing.outcome import Word
from tests.fakes.smtp import FakeSmtp
from upstreams.base import Host, Upstream
from upstreams.sendgrid import KIND, SendGridSettings
from upstreams.sendgrid_smtp import LINE_LIMIT, instructions, with_instructions

KEY = "SG.very-secret.key-of-acme"
BODY = "Subject: één\r\nX-Last: 1\r\n\r\n.hi\r\nX-SMTPAPI: in the text\r\n".encode()


def mail(content: bytes = b"From: anna@acme.nl\r\n" + BODY, route: str = "acme.nl") -> Outgoing:
    return Outgoing("01JQ", route, "anna@acme.nl", ("a@x.nl", "b@x.nl"), content)


def on_the_wire(act: Callable[[Upstream, FakeSmtp], Awaitable[object]], authority, **script: object) -> object:
    async def run() -> object:
        async with FakeSmtp(
            starttls=authority.server_context(),
            users={"apikey": KEY},
            replies=script.get("replies"),
            faults_expected=False,
        ) as server:
            settings = SendGridSettings(
                api_key=Secret("env:KEY", str(script.get("key", KEY))),
                host="localhost",
                port=server.port,
                timeout=Duration(30),
            )
            upstream = KIND.build("our-sendgrid", settings, Host("relay.test"))
            try:
                return await act(upstream, server)
            finally:
                await upstream.close()

    return asyncio.run(run())


def test_the_mail_goes_as_it_is_with_our_instructions_on_top(authority):
    async def act(upstream, server):
        results = await upstream.send(mail())
        return results, server.received[0]

    results, received = on_the_wire(act, authority, replies={".": "250 Ok: queued as ABCdef-123_x"})
    assert {outcome.word for outcome in results.values()} == {Word.SENT}
    assert {outcome.upstream_id for outcome in results.values()} == {"ABCdef-123_x"}
    assert (received.user, received.tls, received.recipients) == ("apikey", True, ("a@x.nl", "b@x.nl"))
    first, _, rest = received.content.partition(b"\r\nFrom:")
    assert b"From:" + rest == mail().content
    assert first.startswith(b"X-SMTPAPI: {")


FORGED = [
    b'X-SMTPAPI: {"to": ["thief@example.net"]}\r\n',
    b'x-smtpapi: {"to":\r\n ["thief@example.net"]}\r\n',
    b'X-Smtpapi \t: {"to":\r\n\t["thief@example.net"]}\r\nX-SMTPAPI:\r\n {"to": ["thief@example.net"]}\r\n',
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("place", ["first", "last", "alone"])
def test_every_other_instruction_is_stripped(forged, place):
    content = {"first": forged + BODY, "last": BODY.replace(b"X-Last: 1\r\n", forged), "alone": forged + b"\r\nhi\r\n"}
    sent = with_instructions(mail(content[place]), tracking=False).content
    head, body = split(sent)
    assert b"thief" not in head
    assert len(values(head, "X-SMTPAPI")) == 1
    assert body == split(content[place])[1]


@pytest.mark.parametrize("route", ["acme.nl", "info@acme.nl", "bücher.nl", "een zin met spaties " * 9, "<>"])
@pytest.mark.parametrize("tracking", [False, True])
def test_the_instructions_are_short_ascii_lines_of_json_without_recipients(route, tracking):
    value = instructions(mail(route=route), tracking)
    assert value.isascii()
    assert max(map(len, (b"X-SMTPAPI: " + value).split(b"\r\n"))) <= LINE_LIMIT
    said = json.loads(unfold(value))
    assert said["unique_args"] == {"relay_id": "01JQ"}
    assert said["category"] == ["acme.nl" if "@" in route else route[:255]]
    assert set(said) == {"unique_args", "category"} | (set() if tracking else {"filters"})
    if not tracking:
        off = {"settings": {"enable": 0}}
        assert said["filters"] == dict.fromkeys(("clicktrack", "opentrack", "subscriptiontrack", "ganalytics"), off)


def test_probe_logs_in_and_a_wrong_key_is_tried_once(authority):
    async def probe(upstream, server):
        return await upstream.probe(), server.logins, server.received

    outcome, logins, received = on_the_wire(probe, authority)
    assert (outcome.word, logins, received) == (Word.SENT, [("apikey", True)], [])
    outcome, logins, _ = on_the_wire(probe, authority, key="SG.another")
    assert (outcome.word, logins) == (Word.CONFIG, [("apikey", False)])


def settings(**given: object) -> SendGridSettings:
    return SendGridSettings(api_key=Secret("env:KEY", KEY), **given)


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({}, []),
        ({"region": "eu"}, []),
        ({"method": "api"}, []),
        ({"method": "api", "base_url": "http://127.0.0.1:8080"}, []),
        ({"method": "api", "base_url": "http://api.sendgrid.com"}, ["base_url"]),
        ({"method": "api", "base_url": "https://api.sendgrid.com/v3"}, ["base_url"]),
        ({"method": "api", "base_url": "api.sendgrid.com"}, ["base_url"]),
        ({"method": "api", "base_url": "https://[api.sendgrid.com"}, ["base_url"]),
        ({"method": "api", "base_url": "https://api.sendgrid.com:99999"}, ["base_url"]),
        ({"method": "api", "host": "smtp.sendgrid.net", "port": 587, "tls": "implicit"}, ["host", "port", "tls"]),
        ({"base_url": "https://api.sendgrid.com"}, ["base_url"]),
        ({"method": "api", "data_timeout": 60.0}, ["data_timeout"]),
        ({"data_timeout": 60.0}, []),
        ({"tls": "none"}, ["tls"]),
        ({"tls": "none", "host": "127.0.0.1"}, []),
    ],
)
def test_settings_that_do_nothing_or_leak_are_faults(given, keys):
    assert [fault.key for fault in settings(**given).faults()] == keys


def test_a_key_that_is_no_single_word_is_a_fault():
    for wrong in ("SG.a b", "SG.a\nb", "SG.é"):
        assert [f.key for f in SendGridSettings(api_key=Secret("env:K", wrong)).faults()] == ["api_key"]


def test_the_region_sets_both_hosts_and_loopback_means_the_method_in_use():
    assert (settings().server, settings().url) == ("smtp.sendgrid.net", "https://api.sendgrid.com")
    assert (settings(region="eu").server, settings(region="eu").url) == (
        "smtp.eu.sendgrid.net",
        "https://api.eu.sendgrid.com",
    )
    assert settings(host="localhost").loopback()
    assert not settings(method="api", host="localhost").loopback()
    assert settings(method="api", base_url="http://[::1]:1").loopback()
