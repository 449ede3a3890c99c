"""The kind `smtp_oauth`: trouble at each step, cancellation, secrets that stay secret, and settings."""

from __future__ import annotations

import asyncio
import base64
import logging

import pytest

from config.credentials import Secret
from config.fields import Duration
from routing.outcome import Stage, Word
from tests.fakes.smtp import CUT, STALL
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


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("what", [CUT, STALL, "421 4.3.2 Service not available"], ids=["cut", "stall", "421"])
def test_trouble_at_any_step_is_retry_and_in_doubt_only_after_the_final_dot(authority, stage, what):
    async def story(place):
        place.server.script({stage: [what]})
        doubtful = stage == "." and not isinstance(what, str)
        assert (await place.sent()).word is (Word.UNKNOWN if doubtful else Word.RETRY)
        assert (await place.sent()).word is Word.SENT

    impatient = {"timeout": Duration(0.3)} if what is STALL else {}
    if (what, stage) != (STALL, "."):  # the reply to the final dot has a longer time of its own
        at(authority, story, **impatient)


def test_a_refused_recipient_is_alone(authority):
    async def story(place):
        place.server.script({"RCPT c@x.nl": "550 5.1.1 no such user"})
        results = await place.way.send(MAIL)
        assert {recipient: outcome.word for recipient, outcome in results.items()} == {
            "b@x.nl": Word.SENT,
            "c@x.nl": Word.REJECT,
        }

    at(authority, story)


@pytest.mark.parametrize("step", ["token", "CONNECT", "STARTTLS", "AUTH", "MAIL", "."])
def test_a_cancelled_send_leaves_no_connection(authority, step):
    async def story(place):
        if step == "token":
            place.entra.before_answer.clear()
        else:
            place.server.script({step: [STALL]})
        sending = asyncio.create_task(place.sent())
        await place.until(lambda: place.server.stalled or (step == "token" and place.entra.token_calls))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        place.entra.before_answer.set()
        await place.until(lambda: not place.server.open_connections)
        assert (await place.sent()).word is Word.SENT
        assert (place.entra.token_calls, len(place.server.received), place.way._pool._busy) == (1, 1, 0)

    at(authority, story)


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
