"""The kind `smtp`: its settings, its probe, and that the one list of kinds has it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config.credentials import Secret
from routing.outcome import Stage, Word
from tests.fakes.smtp import CUT, STALL, FakeSmtp
from tests.upstreams.smtp_kit import PASSWORD, secured, upstream, with_login
from upstreams import KINDS
from upstreams.smtp import SmtpSettings

LOGIN: dict[str, Any] = {"username": "u", "password": Secret("env:X", PASSWORD)}


@pytest.mark.parametrize("kind", ["smtp", "connector", "maildir"])
def test_the_list_of_kinds(kind):
    assert KINDS[kind].name == kind


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({}, []),
        (LOGIN, []),
        ({"username": "u"}, ["username"]),
        ({"password": LOGIN["password"]}, ["password"]),
        ({"tls": "none"}, []),
        ({"tls": "none", **LOGIN}, ["tls"]),
        ({"tls": "none", "host": "127.0.0.1", **LOGIN}, []),
        ({"tls": "none", "host": "localhost", **LOGIN}, []),
    ],
)
def test_faults(given, keys):
    settings = SmtpSettings(**{"host": "smtp.acme.nl", **given})
    errors = [fault for fault in settings.faults() if not fault.warning]
    assert [fault.key for fault in errors] == keys
    assert PASSWORD not in repr(errors) + repr(settings)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"port": 465}, "tls"),
        ({"port": 587, "tls": "implicit"}, "tls"),
        ({"host": "smtp.office365.com", **LOGIN}, "password"),
    ],
)
def test_warnings(given, key):
    settings = SmtpSettings(**{"host": "smtp.acme.nl", **given})
    assert [(fault.key, fault.warning) for fault in settings.faults()] == [(key, True)]


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("implicit", 465), ("none", 25)])
def test_default_port(tls, port):
    assert SmtpSettings(host="smtp.acme.nl", tls=tls).way().port == port


def test_probe_logs_in_and_takes_leave(authority):
    async def go():
        async with (
            secured(authority.server_context()) as server,
            upstream(server, tls="starttls", **with_login()) as way,
        ):
            outcome = await way.probe()
            while server.open_connections:
                await asyncio.sleep(0.01)
            return server, outcome

    server, outcome = asyncio.run(go())
    assert outcome.word is Word.SENT
    assert server.logins == [("callpro@acme.nl", True)]
    assert server.commands[-2:] == ["NOOP", "QUIT"]
    assert not any(line.startswith("MAIL") for line in server.commands)


@pytest.mark.parametrize(
    ("replies", "word"),
    [
        ({"AUTH": "535 5.7.8 no"}, Word.CONFIG),
        ({"NOOP": CUT}, Word.RETRY),
        ({"NOOP": STALL}, Word.RETRY),
        ({"NOOP": "421 4.3.2 bye"}, Word.RETRY),
        ({"NOOP": "550 5.7.1 go away"}, Word.CONFIG),
    ],
)
def test_probe_that_fails(authority, replies, word):
    async def go():
        server = secured(authority.server_context(), replies=replies)
        async with server, upstream(server, tls="starttls", timeout=1.0, **with_login()) as way:
            return await way.probe()

    outcome = asyncio.run(go())
    assert (outcome.word, outcome.stage) == (word, Stage.LOGIN)


def test_limits_reach_the_upstream():
    async def go():
        async with upstream(FakeSmtp(port=1), connections=7, recipients=42) as way:
            return way.concurrency, way.recipients_limit

    assert asyncio.run(go()) == (7, 42)
