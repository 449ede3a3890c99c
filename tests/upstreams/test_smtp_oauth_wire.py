"""The kind `smtp_oauth`: TLS and XOAUTH2 or nothing, tokens that are quoted, and settings."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from config.credentials import Secret
from routing.outcome import Stage, Word
from tests.upstreams.smtp_oauth_kit import INFO, MAIL, SECRET, at
from upstreams.base import Host
from upstreams.smtp_oauth import KIND, SmtpOauthSettings, XoauthLogin

# ---- what the server does


@pytest.mark.parametrize(
    ("fake", "stage"),
    [({"advertise_starttls": False}, Stage.TLS), ({"mechanisms": ("LOGIN",)}, Stage.LOGIN)],
    ids=["no STARTTLS", "no XOAUTH2"],
)
def test_the_token_is_said_over_tls_and_by_xoauth2_or_not_at_all(authority, fake, stage):
    async def story(place):
        outcome = await place.sent()
        assert (outcome.word, outcome.stage) == (Word.CONFIG, stage)
        assert "AUTH ***" not in place.server.commands

    at(authority, story, fake=fake)


# ---- secrets


def test_neither_secret_nor_token_nor_content_is_shown_anywhere(authority, caplog):
    """Also where the server echoes the login, whole, cut, or so late that we cut it."""

    async def story(place):
        shown = [repr(await place.way.send(MAIL))]
        token = place.entra.given[0].token
        said = base64.b64encode(f"user={INFO}\x01auth=Bearer {token}\x01\x01".encode()).decode()
        await place.server.hang_up()
        for echo in (token, said, said[:90], f"{'x ' * 463}{said}"):
            place.server.script({"AUTH": [f"501 5.5.4 what is {echo}"]})
            shown.append(repr(await place.way.send(MAIL)))
        shown += [repr(vars(place.way)), repr(place.way._way_as(INFO, token)), repr(place.way._tokens._app)]
        return token, said, "\n".join(shown)

    with caplog.at_level(logging.DEBUG):
        token, said, shown = at(authority, story)
    fields = [repr(getattr(record, "fields", "")) + repr(record.args) for record in caplog.records]
    everything = "\n".join([shown, caplog.text, *fields])
    assert shown.count("what is ***") == 2 * 3
    for hidden in (SECRET, token, said, said[:60], "a dot"):
        assert hidden not in everything


@pytest.mark.parametrize("token", ["short.to.ken", "x" * 64])
def test_a_token_of_any_shape_is_taken_out_of_a_reply(token):
    login = XoauthLogin(INFO, Secret("entra", token))
    said = base64.b64encode(f"user={INFO}\x01auth=Bearer {token}\x01\x01".encode()).decode()
    assert login.scrub(f"what is {token}, and {said}?") == "what is ***, and ***?"
    assert token not in repr(login)
    usual = "5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com 08DD0A1B2C3D4E5F]"
    assert login.scrub(usual) == usual


# ---- settings


@pytest.mark.parametrize(
    ("changes", "key", "warning"),
    [
        ({"mailbox": "info"}, "mailbox", False),
        ({"mailbox": "a\x01b@initech.nl"}, "mailbox", False),
        ({"client_secret": None}, "", False),
        ({"tenant": "common"}, "tenant", False),
        ({"host": "40.99.1.2"}, "host", False),
        ({"host": "initech-nl.mail.protection.outlook.com"}, "host", False),
        ({"port": 465}, "port", False),
        ({"authority": "https://login.microsoftonline.us"}, "authority", True),
    ],
)
def test_faults_name_their_key(changes, key, warning):
    given = {"tenant": "initech.nl", "client_id": "00001111", "client_secret": Secret("env:X", SECRET)}
    assert list(SmtpOauthSettings(**given).faults()) == []
    faults = list(SmtpOauthSettings(**{**given, **changes}).faults())
    assert [(fault.key, fault.warning) for fault in faults] == [(key, warning)]


def test_the_kind_builds_from_its_settings_alone():
    settings = SmtpOauthSettings(tenant="initech.nl", client_id="0000", client_secret=Secret("env:X", SECRET))
    built = KIND.build("initech-oauth", settings, Host("relay.example"))
    assert (KIND.name, built.name, built.concurrency) == ("smtp_oauth", "initech-oauth", 3)
    asyncio.run(built.close())
