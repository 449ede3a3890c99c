"""The kind `smtp_oauth` beside look-alikes of Entra and of client submission: tokens counted, mailboxes kept apart."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest

from routing.outcome import Stage, Word
from tests.fakes.entra import aadsts
from tests.fakes.http_server import Fault, Response
from tests.fakes.smtp import CUT
from tests.upstreams.smtp_kit import CONTENT
from tests.upstreams.smtp_oauth_kit import INFO, MAIL, SALES, at
from tests.waiting import until

REFUSED = "535 5.7.3 Authentication unsuccessful [fake.example]"
OFF = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
    "Visit https://aka.ms/smtp_auth_disabled for more information."
)


# ---- tokens and connections


def test_one_token_and_one_login_for_many_mails(authority):
    async def story(place):
        assert {(await place.sent(replace(MAIL, id=str(n)))).word for n in range(5)} == {Word.SENT}
        assert (place.entra.token_calls, place.server.connections) == (1, 1)
        assert place.server.logins == [(INFO, True)]
        got = place.server.received[0]
        assert (got.sender, got.recipients, got.content) == (INFO, MAIL.recipients, CONTENT)
        assert (got.user, got.tls) == (INFO, True)

    at(authority, story)


def test_three_at_one_time_share_one_token_call(authority):
    async def story(place):
        assert (place.way.concurrency, place.way.recipients_limit) == (3, 500)
        place.entra.before_answer.clear()
        under_way = [asyncio.create_task(place.sent(replace(MAIL, id=str(n)))) for n in range(3)]
        await until(lambda: place.entra.token_calls)
        assert place.server.connections == 0, "no connection waits for a token"
        place.entra.before_answer.set()
        assert {outcome.word for outcome in await asyncio.gather(*under_way)} == {Word.SENT}
        assert (place.entra.token_calls, place.server.connections) == (1, 3)

    at(authority, story)


def test_a_renewed_token_ends_the_use_of_connections_opened_with_the_old(authority):
    async def story(place):
        await place.sent()
        place.clock.now += 3599 - 301
        await place.sent()
        assert (place.entra.token_calls, place.server.connections) == (1, 1)
        place.clock.now += 2
        assert (await place.sent()).word is Word.SENT
        assert (place.entra.token_calls, place.server.connections) == (2, 2)

    at(authority, story)


def test_no_connection_is_used_after_the_end_of_its_token(authority):
    """While Entra is down the token serves to its end, and not a second more."""

    async def story(place):
        await place.sent()
        place.entra.script += [Response(503), Response(503)]
        place.clock.now += 3599 - 10
        assert (await place.sent()).word is Word.SENT
        place.clock.now += 11
        late = await place.sent()
        assert (late.word, late.stage) == (Word.RETRY, Stage.LOGIN)
        assert (len(place.server.received), place.server.connections) == (2, 1)
        assert (await place.sent()).word is Word.SENT
        assert place.server.connections == 2

    at(authority, story)


def test_a_token_revoked_in_mid_life_is_replaced_once(authority):
    async def story(place):
        await place.sent()
        place.entra.revoked.add(place.entra.given[0].token)
        await place.server.hang_up()
        assert (await place.sent()).word is Word.SENT
        assert [right for _, right in place.server.logins] == [True, False, True]
        assert (place.entra.token_calls, len(place.server.received)) == (2, 2)

    at(authority, story)


def test_many_that_meet_a_revoked_token_share_the_fresh_one(authority):
    async def story(place):
        await place.sent()
        place.entra.revoked.add(place.entra.given[0].token)
        await place.server.hang_up()
        outcomes = await asyncio.gather(*(place.sent(replace(MAIL, id=str(n))) for n in range(3)))
        assert {outcome.word for outcome in outcomes} == {Word.SENT}
        assert place.entra.token_calls == 2

    at(authority, story)


@pytest.mark.parametrize("explained", [False, True])
def test_a_fresh_token_that_is_refused_too_is_config(authority, explained):
    async def story(place):
        place.mailboxes.clear()
        if explained:
            said = b'{"status":"401","schemes":"Bearer"}'
            place.server.script({"EXPLAIN": base64.b64encode(said).decode()})
        outcome = await place.sent()
        assert (outcome.word, outcome.stage, outcome.code, outcome.enhanced) == (
            *(Word.CONFIG, Stage.LOGIN, 535),
            "5.7.3",
        )
        assert "enterprise application" in str(outcome.hint)
        assert (place.entra.token_calls, len(place.server.logins)) == (2, 2)
        place.mailboxes.add(INFO)
        assert (await place.way.probe()).word is Word.SENT
        assert (await place.sent()).word is Word.SENT

    at(authority, story)


def test_a_server_that_hangs_up_after_its_refusal_is_config_too(authority):
    """The fresh token goes over a new connection, so the end of the first one says nothing."""

    async def story(place):
        place.server.script({"AUTH": [REFUSED, REFUSED], "QUIT": CUT})
        outcome = await place.sent()
        assert (outcome.word, outcome.enhanced) == (Word.CONFIG, "5.7.3")
        assert (place.entra.token_calls, place.server.connections) == (2, 2)

    at(authority, story)


def test_switched_off_smtp_auth_is_not_asked_twice(authority):
    async def story(place):
        place.server.script({"AUTH": OFF})
        outcome = await place.sent()
        assert (outcome.word, outcome.enhanced) == (Word.CONFIG, "5.7.139")
        assert "SmtpClientAuthenticationDisabled" in str(outcome.hint)
        assert (place.entra.token_calls, place.server.connections) == (1, 1)

    at(authority, story)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (aadsts(7000222), Word.CONFIG),
        (Response(429, {"Retry-After": "17"}), Word.WAIT),
        (Response(503), Word.RETRY),
        (Fault.CUT, Word.RETRY),
    ],
    ids=str,
)
def test_without_a_token_nothing_is_said_to_the_server(authority, answer, word):
    async def story(place):
        place.entra.script += [answer] * 2
        assert [outcome.word for outcome in (await place.sent(), await place.way.probe())] == [word, word]
        assert (place.entra.token_calls, place.server.connections) == (2, 0)

    at(authority, story)


# ---- mailboxes


def test_two_mailboxes_never_share_a_connection(authority):
    async def story(place):
        mails = [replace(MAIL, id=str(n), sender=(INFO, SALES)[n % 2]) for n in range(12)]
        for mail in mails[:6]:
            assert (await place.sent(mail)).word is Word.SENT
        assert (place.server.connections, place.entra.token_calls) == (2, 1)
        for start in (6, 9):
            await asyncio.gather(*map(place.sent, mails[start : start + 3]))
        assert len(place.server.received) == 12
        assert all(got.user == got.sender for got in place.server.received)

    at(authority, story)


def test_a_mailbox_of_its_own_logs_in_for_every_sender(authority):
    async def story(place):
        await place.sent()
        await place.sent(replace(MAIL, sender=SALES))
        assert [(got.user, got.sender) for got in place.server.received] == [(SALES, INFO), (SALES, SALES)]
        assert place.server.connections == 1

    at(authority, story, mailbox=SALES)


def test_one_mailbox_without_permission_does_not_stop_the_other(authority):
    async def story(place):
        place.mailboxes.remove(SALES)
        assert (await place.sent()).word is Word.SENT
        assert (await place.sent(replace(MAIL, sender=SALES))).word is Word.CONFIG
        assert (await place.sent()).word is Word.SENT
        assert {got.user for got in place.server.received} == {INFO}

    at(authority, story)


@pytest.mark.parametrize("mailbox", [None, INFO])
def test_the_null_sender_is_refused_with_the_way_out(authority, mailbox):
    async def story(place):
        outcome = await place.sent(replace(MAIL, sender=""))
        assert (outcome.word, outcome.stage) == (Word.REJECT, Stage.PREPARE)
        assert "<>" in str(outcome.hint)
        assert outcome.only_here, "the route's next upstream may take it"
        assert (place.entra.token_calls, place.server.connections) == (0, 0)

    at(authority, story, mailbox=mailbox)


@pytest.mark.parametrize("sender", ["a\x01auth=Bearer x@initech.nl", "info", "a b@initech.nl", "a\r\nRSET@initech.nl"])
def test_a_sender_that_cannot_be_said_in_a_login_is_not_tried(authority, sender):
    async def story(place):
        outcome = await place.sent(replace(MAIL, sender=sender))
        assert (outcome.word, outcome.stage) == (Word.REJECT, Stage.PREPARE)
        assert outcome.reply.isprintable()
        assert place.server.connections == 0

    at(authority, story)


# ---- probes


def test_a_probe_logs_in_as_the_mailbox_and_sends_nothing(authority):
    async def story(place):
        ready = await place.way.probe()
        assert (ready.word, ready.hint, place.server.logins) == (Word.SENT, None, [(SALES, True)])
        assert not any(command.startswith("MAIL") for command in place.server.commands)

    at(authority, story, mailbox=SALES)


def test_a_probe_before_the_first_mail_has_no_mailbox_and_says_so(authority):
    async def story(place):
        early = await place.way.probe()
        assert (early.word, place.entra.token_calls, place.server.logins) == (Word.SENT, 1, [])
        assert "mailbox" in str(early.hint)
        await place.sent()
        assert ((await place.way.probe()).hint, len(place.server.logins)) == (None, 2)

    at(authority, story)


def test_a_probe_replaces_a_revoked_token(authority):
    async def story(place):
        await place.sent()
        place.entra.revoked.add(place.entra.given[0].token)
        assert ((await place.way.probe()).word, place.entra.token_calls) == (Word.SENT, 2)
        place.mailboxes.clear()
        assert ((await place.way.probe()).word, place.entra.token_calls) == (Word.CONFIG, 3)

    at(authority, story)
