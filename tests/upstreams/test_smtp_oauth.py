"""The kind `smtp_oauth` beside look-alikes of Entra and of client submission: tokens counted, mailboxes kept apart."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from config.credentials import Secret
from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Outcome, Stage, Word
from tests.fakes.entra import FakeEntra, aadsts
from tests.fakes.http_server import Fault, Response
from tests.fakes.smtp import CUT, STALL, FakeSmtp
from tests.upstreams.smtp_kit import CONTENT
from upstreams.base import Host
from upstreams.smtp_oauth import KIND, SCOPE, SmtpOauth, SmtpOauthSettings

SECRET = "s3cr~et.Value+/=8Q"
INFO, SALES = "info@initech.nl", "sales@initech.nl"
MAIL = Outgoing("1", "initech.nl", INFO, ("b@x.nl", "c@x.nl"), CONTENT)
REFUSED = "535 5.7.3 Authentication unsuccessful [fake.example]"
OFF = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
    "Visit https://aka.ms/smtp_auth_disabled for more information."
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """The look-alikes and a way out through them."""

    def __init__(self, entra: FakeEntra, server: FakeSmtp, way: SmtpOauth, clock: Clock) -> None:
        self.entra, self.server, self.way, self.clock = entra, server, way, clock
        self.mailboxes = {INFO, SALES}

    def lets_in(self, mailbox: str, token: str) -> bool:
        return mailbox in self.mailboxes and self.entra.knows(token, SCOPE)

    async def sent(self, mail: Outgoing = MAIL) -> Outcome:
        """The one outcome that all recipients share."""
        results = await self.way.send(mail)
        assert tuple(results) == mail.recipients
        assert len(set(results.values())) == 1
        return results[mail.recipients[0]]

    async def until(self, what) -> None:
        while not what():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(authority, *, fake=None, **changes):
    async with FakeEntra(authority.server_context(), secret=SECRET) as entra:
        server = FakeSmtp(
            **{
                "starttls": authority.server_context(),
                "mechanisms": ("LOGIN", "XOAUTH2"),
                "bearer": lambda mailbox, token: place.lets_in(mailbox, token),
                **(fake or {}),
            }
        )
        async with server:
            given = {
                "tenant": entra.tenant,
                "client_id": entra.client_id,
                "client_secret": Secret("file:x", SECRET),
                "authority": entra.authority,
                "host": "localhost",
                "port": server.port,
                "timeout": Duration(5),
            }
            settings = SmtpOauthSettings(**{**given, **changes})
            assert list(settings.faults()) == []
            clock = Clock()
            place = Place(entra, server, SmtpOauth("initech-oauth", settings, Host("relay.example"), clock), clock)
            try:
                yield place
            finally:
                await place.way.close()
        assert entra.server.problems == []


def at(authority, story, **changes):
    async def run():
        async with opened(authority, **changes) as place:
            return await story(place)

    return asyncio.run(run())


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
        await place.until(lambda: place.entra.token_calls)
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
        assert "enterprise application" in outcome.hint
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
        assert "SmtpClientAuthenticationDisabled" in outcome.hint
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
        assert "<>" in outcome.hint
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
        assert "mailbox" in early.hint
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


# ---- secrets


def test_neither_secret_nor_token_nor_content_is_shown_anywhere(authority, caplog):
    """Also where the server echoes the login, whole or cut."""

    async def story(place):
        shown = [repr(await place.way.send(MAIL))]
        token = place.entra.given[0].token
        said = base64.b64encode(f"user={INFO}\x01auth=Bearer {token}\x01\x01".encode()).decode()
        await place.server.hang_up()
        for echo in (token, said, said[:90], f"{'long words ' * 90}{said}"):
            place.server.script({"AUTH": [f"501 5.5.4 what is {echo}"]})
            shown.append(repr(await place.way.send(MAIL)))
        shown += [repr(vars(place.way)), repr(place.way._way_as(INFO, token)), repr(place.way._tokens._app)]
        return token, said, "\n".join(shown)

    with caplog.at_level(logging.DEBUG):
        token, said, shown = at(authority, story)
    fields = [repr(getattr(record, "fields", "")) + repr(record.args) for record in caplog.records]
    everything = "\n".join([shown, caplog.text, *fields])
    assert shown.count("what is ***") >= 2 * 3
    for hidden in (SECRET, token, said, said[:64], "a dot"):
        assert hidden not in everything


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
