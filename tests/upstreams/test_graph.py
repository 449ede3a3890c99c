"""Mail through the look-alike of Graph, over real sockets: who gets it, and what every trouble on the way means."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from config.credentials import Secret
from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Stage, Word
from tests.fakes.entra import FakeEntra, aadsts
from tests.fakes.graph import FakeGraph, error
from tests.fakes.http_server import Fault, Response
from tests.waiting import until
from upstreams.base import Host
from upstreams.graph import KIND, REQUEST_LIMIT, Graph, GraphSettings
from upstreams.graph_client import scope_of

SECRET = "s3cr~et.Value+/=8Q"
SENDER = "info@initech.nl"
CONTENT = (
    b"From: Initech <info@initech.nl>\r\nTo: Jan <jan@example.nl>, spy@example.nl\r\nBcc: old@example.nl\r\n"
    b"Message-ID: <1@initech.nl>\r\nSubject: =?utf-8?q?Factuur_=E2=82=AC?=\r\n\r\nBeste Jan,\r\n.\r\n\xe2\x82\xac 5\r\n"
)
MAIL = Outgoing("0123456789ABC", "initech.nl", SENDER, ("jan@example.nl", "els@example.nl"), CONTENT)


def settings_for(entra: FakeEntra, graph: FakeGraph, **changes) -> GraphSettings:
    given = {
        "tenant": entra.tenant,
        "client_id": entra.client_id,
        "client_secret": Secret("file:x", SECRET),
        "authority": entra.authority,
        "base_url": graph.base_url,
        "timeout": Duration(5),
    }
    return GraphSettings(**{**given, **changes})


class Place:
    """The look-alikes and a way out through them."""

    def __init__(self, entra: FakeEntra, graph: FakeGraph, way: Graph) -> None:
        self.entra, self.graph, self.way = entra, graph, way

    async def sent(self, mail: Outgoing = MAIL):
        """The one outcome that all recipients share."""
        results = await self.way.send(mail)
        assert tuple(results) == mail.recipients
        assert len(set(results.values())) == 1
        return results[mail.recipients[0]]


@asynccontextmanager
async def opened(authority, *, tls=False, **changes):
    context = authority.server_context() if tls else None
    async with (
        FakeEntra(authority.server_context(), secret=SECRET) as entra,
        FakeGraph(entra, {SENDER, "o'neil#x@initech.nl"}, tls=context) as graph,
    ):
        settings = settings_for(entra, graph, **changes)
        assert list(settings.faults()) == []
        way = KIND.build("initech-graph", settings, Host("relay.example"))
        try:
            yield Place(entra, graph, way)
        finally:
            await way.close()
        assert graph.server.problems + graph.drafts.uploads.problems + graph.drafts.problems == []


def at(authority, story, **changes):
    async def run():
        async with opened(authority, **changes) as place:
            return await story(place)

    return asyncio.run(run())


@pytest.mark.parametrize("tls", [False, True])
def test_the_envelope_gets_it_and_nobody_else(authority, tls):
    async def story(place):
        outcome = await place.sent()
        sent = place.graph.sent[0]
        assert (outcome.word, outcome.code, outcome.upstream_id) == (Word.SENT, 202, sent.request_id)
        assert "1 address(es)" in str(outcome.hint)
        assert set(place.graph.inboxes) == {"jan@example.nl", "els@example.nl"} == sent.recipients
        assert sent.mailbox == SENDER
        delivered = place.graph.inboxes["els@example.nl"][0]
        assert b"els@" not in delivered
        assert b"Message-ID: <1@initech.nl>\r\nSubject: =?utf-8?q?Factuur_=E2=82=AC?=" in delivered
        assert delivered.endswith(CONTENT[CONTENT.index(b"\r\n\r\n") :])
        assert uuid.UUID(sent.client_request_id)

    at(authority, story, tls=tls)


def test_a_mail_whose_header_says_the_envelope_has_no_remark(authority):
    async def story(place):
        outcome = await place.sent(replace(MAIL, recipients=("jan@example.nl", "Spy@Example.nl")))
        assert (outcome.word, outcome.hint) == (Word.SENT, None)

    at(authority, story)


def test_one_token_and_kept_connections_serve_many_mails(authority):
    async def story(place):
        outcomes = [await place.sent() for _ in range(5)]
        assert {outcome.word for outcome in outcomes} == {Word.SENT}
        assert (place.entra.token_calls, place.graph.server.connections) == (1, 1)
        assert len({sent.client_request_id for sent in place.graph.sent}) == 1

    at(authority, story)


def test_a_mailbox_gets_four_requests_at_one_time_on_one_token_call(authority):
    async def story(place):
        assert (place.way.concurrency, place.way.recipients_limit) == (12, 500)
        place.graph.open.clear()
        own = [asyncio.create_task(place.sent()) for _ in range(9)]
        await until(lambda: place.graph.calls == 4)
        other = replace(MAIL, sender="o'neil#x@initech.nl", content=CONTENT.replace(b"<info@", b"<o'neil#x@"))
        others = [asyncio.create_task(place.sent(other)) for _ in range(3)]
        await until(lambda: place.graph.calls == 7)
        place.graph.open.set()
        assert {outcome.word for outcome in await asyncio.gather(*own, *others)} == {Word.SENT}
        assert (place.entra.token_calls, place.graph.most) == (1, 4)

    at(authority, story, concurrency=12)


def test_being_throttled_says_for_how_long(authority):
    async def story(place):
        place.graph.parallel = 0
        outcome = await place.sent()
        assert (outcome.word, outcome.wait, outcome.enhanced) == (Word.WAIT, 10.0, "ApplicationThrottled")

    at(authority, story)


def test_an_expired_token_is_replaced_once(authority):
    async def story(place):
        await place.sent()
        place.entra.revoked.add(place.entra.given[0].token)
        assert (await place.sent()).word is Word.SENT
        assert (place.entra.token_calls, len(place.graph.sent), place.graph.calls) == (2, 2, 3)

    at(authority, story)


def test_a_fresh_token_that_is_refused_too_is_config(authority):
    async def story(place):
        place.graph.script += [error(401, "InvalidAuthenticationToken")] * 2
        outcome = await place.sent()
        assert (outcome.word, outcome.code) == (Word.CONFIG, 401)
        assert (place.entra.token_calls, place.graph.calls) == (2, 2)

    at(authority, story)


def test_a_token_refusal_is_not_asked_twice(authority):
    async def story(place):
        place.entra.script.append(aadsts(7000222))
        outcome = await place.sent()
        assert (outcome.word, outcome.stage, outcome.enhanced) == (Word.CONFIG, Stage.LOGIN, "AADSTS7000222")
        assert (place.entra.token_calls, place.graph.calls) == (1, 0)

    at(authority, story)


@pytest.mark.parametrize(
    ("answer", "word", "delivered"),
    [
        (Fault.CUT, Word.UNKNOWN, 1),
        (Fault.STALL, Word.UNKNOWN, 1),
        (Fault.CUT_IN_REPLY, Word.SENT, 1),
        (Response(200), Word.UNKNOWN, 0),
        (Response(504), Word.UNKNOWN, 0),
        (Response(503, {"Retry-After": "3"}), Word.WAIT, 0),
        (error(403, "ErrorAccessDenied"), Word.CONFIG, 0),
        (error(413, ""), Word.REJECT, 0),
    ],
    ids=["cut", "stall", "cut in reply", "200", "504", "503", "403", "413"],
)
def test_what_graph_does_instead_of_202(authority, answer, word, delivered):
    async def story(place):
        await place.sent()
        place.graph.script.append(answer)
        assert (await place.sent()).word is word
        assert len(place.graph.doubtful) == delivered
        assert (await place.sent()).word is Word.SENT

    at(authority, story, timeout=Duration(1) if answer is Fault.STALL else Duration(30))


def test_a_mailbox_of_its_own_sends_and_is_quoted(authority):
    async def story(place):
        content = CONTENT.replace(b"info@initech.nl>\r\nTo", b"o'neil#x@initech.nl>\r\nTo")
        assert (await place.sent(replace(MAIL, content=content))).word is Word.SENT
        assert place.graph.sent[0].mailbox == "o'neil#x@initech.nl"

    at(authority, story, mailbox="o'neil#x@initech.nl")


def test_another_from_or_an_unknown_mailbox_is_config(authority):
    async def story(place):
        other = await place.sent(replace(MAIL, content=CONTENT.replace(b"<info@", b"<boss@")))
        assert (other.word, other.enhanced) == (Word.CONFIG, "ErrorSendAsDenied")
        unknown = await place.sent(replace(MAIL, sender="nobody@initech.nl"))
        assert (unknown.word, unknown.enhanced) == (Word.CONFIG, "ErrorInvalidUser")

    at(authority, story)


def test_the_largest_mail_goes_and_one_octet_more_is_told_apart_before_it_is_sent(authority):
    async def story(place):
        head = b"From: info@initech.nl\r\nTo: jan@example.nl\r\n\r\n"
        body = b"x" * (REQUEST_LIMIT // 4 * 3 - len(head) - 2) + b"\r\n"
        mail = replace(MAIL, recipients=("jan@example.nl",))
        assert (await place.sent(replace(mail, content=head + body))).word is Word.SENT
        over = await place.sent(replace(mail, content=head + b"x" + body))
        assert (over.word, over.stage, over.enhanced) == (Word.REJECT, Stage.PREPARE, "5.3.4")
        assert place.graph.calls == 1

    at(authority, story, timeout=Duration(20))


def test_the_null_sender_is_refused_with_the_way_out(authority):
    async def story(place):
        outcome = await place.sent(replace(MAIL, sender=""))
        assert (outcome.word, outcome.stage) == (Word.REJECT, Stage.PREPARE)
        assert "<>" in str(outcome.hint)
        assert outcome.only_here, "the route's next upstream may take it"
        assert (place.entra.token_calls, place.graph.calls) == (0, 0)

    at(authority, story)


def test_an_address_no_header_can_say_does_not_stop_the_others(authority):
    async def story(place):
        results = await place.way.send(replace(MAIL, recipients=("jan@example.nl", "andré@example.nl", "a@b>,<c@d")))
        words = {recipient: outcome.word for recipient, outcome in results.items()}
        assert words == {"jan@example.nl": Word.SENT, "andré@example.nl": Word.REJECT, "a@b>,<c@d": Word.REJECT}
        assert set(place.graph.inboxes) == {"jan@example.nl"}
        alone = await place.sent(replace(MAIL, recipients=("andré@example.nl",)))
        assert (alone.word, alone.only_here, place.graph.calls) == (Word.REJECT, True, 1)

    at(authority, story)


def test_a_probe_needs_a_token_and_an_answer(authority):
    async def story(place):
        ready = await place.way.probe()
        assert (ready.word, ready.stage) == (Word.SENT, Stage.LOGIN)
        assert (place.entra.token_calls, place.graph.calls, len(place.graph.sent)) == (1, 0, 0)

    async def refused(place):
        place.entra.script.append(aadsts(7000215))
        assert (await place.way.probe()).word is Word.CONFIG

    at(authority, story)
    at(authority, refused)


def test_a_wrong_request_is_logged_as_our_fault(authority, caplog):
    async def story(place):
        place.graph.script.append(error(400, "BadRequest", "no"))
        assert (await place.sent()).word is Word.REJECT

    at(authority, story)
    found = [record for record in caplog.records if record.getMessage() == "graph_request_wrong"]
    assert [(r.levelno, r.fields["id"], r.fields["upstream"]) for r in found] == [
        (logging.ERROR, MAIL.id, "initech-graph")
    ]


def test_neither_secret_nor_token_nor_content_is_shown_anywhere(authority, caplog):
    async def story(place):
        shown = [repr(await place.way.send(MAIL))]
        token = place.entra.given[0].token
        place.graph.script += [error(403, "X", f"your token {token}"), Fault.CUT, error(400, "BadRequest", token)]
        shown += [repr(await place.way.send(MAIL)) for _ in range(3)]
        shown += [repr(vars(place.way)), repr(place.way._client._tokens._app)]
        return token, shown

    with caplog.at_level(logging.DEBUG):
        token, shown = at(authority, story)
    fields = [repr(getattr(record, "fields", "")) + repr(record.args) for record in caplog.records]
    everything = "\n".join([*shown, caplog.text, *fields])
    for hidden in (SECRET, token, "Beste Jan", "Factuur"):
        assert hidden not in everything


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"mailbox": "info"}, "mailbox"),
        ({"mailbox": "a@b/../c"}, "mailbox"),
        ({"save_to_sent_items": False}, "save_to_sent_items"),
        ({"save_to_sent_items": True}, "save_to_sent_items"),
        ({"base_url": "http://graph.example/v1.0"}, "base_url"),
        ({"base_url": "https://user@graph.example/v1.0"}, "base_url"),
        ({"base_url": "graph.microsoft.com"}, "base_url"),
        ({"base_url": "https://graph.example/v1.0?x=1"}, "base_url"),
        ({"base_url": "https://[broken/v1.0"}, "base_url"),
        ({"authority": "https://[broken"}, "authority"),
        ({"tenant": "common"}, "tenant"),
        ({"base_url": "https://graph.microsoft.us/v1.0"}, "authority"),
        ({"authority": "https://login.chinacloudapi.cn"}, "authority"),
    ],
)
def test_faults_name_their_key(changes, key):
    given = {"tenant": "initech.nl", "client_id": "00001111", "client_secret": Secret("env:X", SECRET)}
    assert list(GraphSettings(**given, mailbox="aaaabbbb-0000-cccc-1111-dddd2222eeee").faults()) == []
    assert [fault.key for fault in GraphSettings(**{**given, **changes}).faults()] == [key]


@pytest.mark.parametrize(
    ("graph", "login"),
    [
        ("graph.microsoft.com", "login.microsoftonline.com"),
        ("graph.microsoft.us", "login.microsoftonline.us"),
        ("dod-graph.microsoft.us", "login.microsoftonline.us"),
        ("microsoftgraph.chinacloudapi.cn", "login.chinacloudapi.cn"),
    ],
)
def test_each_cloud_has_its_own_hosts_and_the_token_is_for_its_graph(graph, login):
    given = {"tenant": "initech.nl", "client_id": "00001111", "client_secret": Secret("env:X", SECRET)}
    settings = GraphSettings(**given, base_url=f"https://{graph}/v1.0", authority=f"https://{login}")
    assert list(settings.faults()) == []
    (fault,) = replace(settings, base_url=f"https://{graph}/").faults()
    assert (fault.key, fault.mend, fault.warning) == ("base_url", f"write {settings.base_url}", False)
    assert scope_of(settings.base_url) == f"https://{graph}/.default"
    assert scope_of(f"https://{graph.upper()}:443/v1.0/") == f"https://{graph}/.default"
