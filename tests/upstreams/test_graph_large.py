"""Mail over the limit of one request, over real sockets: every step by draft and upload, and every trouble at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Stage, Word
from tests.fakes.graph import error
from tests.fakes.http_server import Fault, Response
from tests.upstreams.test_entra import app
from tests.upstreams.test_graph import MAIL, SENDER, at, opened
from tests.waiting import until
from upstreams.graph_client import GraphClient
from upstreams.graph_large import CHUNK
from upstreams.tls import Trust

STEPS = ("create", "attach", "session", "chunk", "send")


def mail_with(
    *files: int, text: str = "Beste Jan,\r\n\u20ac 5\r\n", html: str = "", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A mail with files of these many octets, each different all the way."""
    mail = EmailMessage(policy=policy.SMTP)
    mail["From"] = "Initech <info@initech.nl>"
    mail["To"] = "Jan <jan@example.nl>, spy@example.nl"
    mail["Message-ID"] = "<1@initech.nl>"
    mail["Subject"] = "Factuur \u20ac"
    for name, value in headers:
        mail[name] = value
    mail.set_content(text)
    if html:
        mail.add_alternative(html, subtype="html")
    for number, size in enumerate(files):
        mail.add_attachment(octets(size), maintype="application", subtype="pdf", filename=f"factuur-{number}.pdf")
    return mail.as_bytes()


def octets(size: int) -> bytes:
    return b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]


LARGE = replace(MAIL, content=mail_with(3_200_000))
MIXED = replace(MAIL, content=mail_with(4_000_000, 2_200_000, 1_100_000))
"""One file to upload, one inside the draft, one to post: every step occurs."""


def by_draft(authority, story, **changes):
    return at(authority, story, large="draft", **{"timeout": Duration(20), **changes})


def test_a_large_mail_goes_by_draft_to_the_envelope_and_nobody_else(authority):
    async def story(place):
        outcome = await place.sent(MIXED)
        sent = place.graph.sent[0]
        assert (outcome.word, outcome.code, outcome.upstream_id) == (Word.SENT, 202, sent.request_id)
        assert "1 address(es)" in str(outcome.hint)
        assert set(place.graph.inboxes) == {"jan@example.nl", "els@example.nl"} == sent.recipients
        assert place.graph.done == ["create", "attach", "session", "send"]
        assert place.graph.calls == 4
        assert [(file.name, file.how) for file in sent.draft.files] == [
            ("factuur-1.pdf", "inside"),
            ("factuur-2.pdf", "posted"),
            ("factuur-0.pdf", "uploaded"),
        ]
        assert [file.content for file in sent.draft.files] == [octets(2_200_000), octets(1_100_000), octets(4_000_000)]
        assert {file.content_type for file in sent.draft.files} == {"application/pdf"}
        assert place.graph.drafts.chunks == [CHUNK, 4_000_000 - CHUNK]
        assert place.graph.drafts.open == {} == {draft.id: 1 for draft in place.graph.drafts.deleted}

    by_draft(authority, story)
    by_draft(authority, story, tls=True)


def test_the_draft_says_what_the_mail_says(authority):
    headers = [
        ("Cc", "Els <els@example.nl>"),
        ("Reply-To", "klant@initech.nl"),
        ("Importance", "High"),
        ("X-CallPro-Id", "42"),
        ("List-Unsubscribe", "<https://initech.nl/u>"),
    ]

    async def story(place):
        recipients = ("jan@example.nl", "els@example.nl", "stil@example.nl")
        content = mail_with(3_400_000, headers=headers)
        assert (await place.sent(replace(MAIL, content=content, recipients=recipients))).word is Word.SENT
        said = place.graph.sent[0].draft.message
        assert said == {
            "subject": "Factuur €",
            "body": {"contentType": "Text", "content": "Beste Jan,\r\n€ 5\r\n"},
            "from": {"emailAddress": {"name": "Initech", "address": SENDER}},
            "toRecipients": [{"emailAddress": {"name": "Jan", "address": "jan@example.nl"}}],
            "ccRecipients": [{"emailAddress": {"name": "Els", "address": "els@example.nl"}}],
            "bccRecipients": [{"emailAddress": {"address": "stil@example.nl"}}],
            "replyTo": [{"emailAddress": {"address": "klant@initech.nl"}}],
            "internetMessageId": "<1@initech.nl>",
            "importance": "high",
            "internetMessageHeaders": [{"name": "X-CallPro-Id", "value": "42"}],
            "singleValueExtendedProperties": [{"id": "String 0x1045", "value": "<https://initech.nl/u>"}],
        }
        got = message_from_bytes(place.graph.inboxes["stil@example.nl"][0], policy=policy.SMTP)
        assert (got["Message-ID"], got["Bcc"], got["Subject"]) == ("<1@initech.nl>", None, "Factuur €")

    by_draft(authority, story)


def test_without_the_setting_a_large_mail_is_for_the_next_upstream(authority):
    async def story(place):
        outcome = await place.sent(LARGE)
        assert (outcome.word, outcome.stage, outcome.only_here) == (Word.REJECT, Stage.PREPARE, True)
        assert "large: draft" in str(outcome.hint)
        assert (place.graph.calls, place.entra.token_calls) == (0, 0)

    at(authority, story)


def test_a_mail_that_graph_itself_finds_too_large_goes_by_draft(authority):
    async def story(place):
        place.graph.script.append(error(400, "BadRequest", "The maximum request length supported is 4MB."))
        assert (await place.sent()).word is Word.SENT
        assert place.graph.done == ["create", "send"]

    by_draft(authority, story)


def test_what_a_draft_cannot_hold_is_named_and_left_to_the_next_upstream(authority):
    async def story(place):
        content = LARGE.content.replace(b"multipart/mixed", b"multipart/signed", 1)
        outcome = await place.sent(replace(LARGE, content=content))
        assert (outcome.stage, outcome.only_here, place.graph.calls) == (Stage.PREPARE, True, 0)
        assert "multipart/signed" in outcome.reply

    by_draft(authority, story)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", list(Fault))
def test_a_cut_or_a_stall_is_only_in_doubt_at_send(authority, step, fault):
    """A reply that is cut behind its headers has said 202, which only `send` means by success."""

    async def story(place):
        await place.sent()
        place.graph.done.clear()
        place.graph.steps[step].append(fault)
        outcome = await place.sent(MIXED)
        taken = step == "send" and fault is Fault.CUT_IN_REPLY
        in_doubt = step == "send" and not taken
        assert outcome.word is (Word.SENT if taken else Word.UNKNOWN if in_doubt else Word.RETRY)
        assert len(place.graph.doubtful) == (step == "send")
        if step in ("attach", "session", "chunk"):
            await until(lambda: place.graph.drafts.deleted)
            assert place.graph.drafts.open == {}
            assert "send" not in place.graph.done
        elif step == "send":
            assert "delete" not in place.graph.done
        assert (await place.sent(MIXED)).word is Word.SENT

    by_draft(authority, story, timeout=Duration(3) if fault is Fault.STALL else Duration(20))


ANSWERS = (
    (Response(429, {"Retry-After": "7"}), Word.WAIT),
    (Response(503), Word.RETRY),
    (Response(504), Word.RETRY),
    (Response(204), Word.RETRY),
    (error(403, "ErrorQuotaExceeded"), Word.CONFIG),
    (error(400, "ErrorInvalidRecipients"), Word.REJECT),
    (error(400, "ErrorMessageSizeExceeded"), Word.REJECT),
    (error(404, "ErrorItemNotFound"), Word.CONFIG),
)


def word_at(step: str, answer: Response, word: Word) -> Word:
    if step == "send" and answer.status in (504, 204):
        return Word.UNKNOWN
    session_is_over = step == "chunk" and word is Word.CONFIG  # which says nothing against the route
    draft_is_gone = step != "create" and answer.status == 404  # the mailbox is not
    return Word.RETRY if session_is_over or draft_is_gone else word


@pytest.mark.parametrize("step", STEPS)
def test_every_answer_has_its_word_at_every_step(authority, step):
    async def story(place):
        for answer, general in ANSWERS:
            word, deleted = word_at(step, answer, general), len(place.graph.drafts.deleted)
            place.graph.steps[step].append(answer)
            outcome = await place.sent(MIXED)
            assert (outcome.word, outcome.wait) == (word, 7.0 if word is Word.WAIT else None), answer
            assert outcome.only_here == (b"SizeExceeded" in answer.body)
            if step != "create" and word is not Word.UNKNOWN:
                await until(lambda before=deleted: len(place.graph.drafts.deleted) > before)
            assert len(place.graph.drafts.open) == (word is Word.UNKNOWN)
            place.graph.drafts.open.clear()
        assert place.graph.sent == []

    by_draft(authority, story)


def test_without_mail_readwrite_the_hint_asks_for_it_and_small_mail_goes(authority):
    async def story(place):
        place.graph.writes = False
        outcome = await place.sent(LARGE)
        assert (outcome.word, outcome.enhanced) == (Word.CONFIG, "ErrorAccessDenied")
        assert "Mail.ReadWrite" in str(outcome.hint)
        assert (await place.sent()).word is Word.SENT

    by_draft(authority, story)


@pytest.mark.parametrize(
    "said",
    [
        b'{"uploadUrl":"http://graph.example/x","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"file:///etc/passwd","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"https://user@graph.example/x","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"https://[broken/x","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"https://exa mple/x","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"https://graph.example:99999/x","nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":7,"nextExpectedRanges":["0-"]}',
        b'{"nextExpectedRanges":["0-"]}',
        b'{"uploadUrl":"http://127.0.0.1:9/x","nextExpectedRanges":["5-"]}',
        b'{"uploadUrl":"http://127.0.0.1:9/x","nextExpectedRanges":[]}',
        b'{"uploadUrl":"http://127.0.0.1:9/x"}',
        b"[]",
        b"[" * 100_000,
        b"<html>",
    ],
    ids=lambda said: repr(said[:60]),
)
def test_an_upload_goes_only_where_and_when_it_should(authority, said):
    async def story(place):
        place.graph.steps["session"].append(Response(201, {}, said))
        outcome = await place.sent(LARGE)
        assert (outcome.word, outcome.stage) == (Word.RETRY, Stage.REQUEST)
        assert "named no https address" in outcome.reply or "not the one expected next" in outcome.reply
        assert place.graph.drafts.uploads.requests == []
        await until(lambda: place.graph.drafts.deleted)

    by_draft(authority, story)


def test_this_machine_takes_an_upload_only_when_graph_is_here_too():
    async def put(base_url: str):
        client = GraphClient(app(), base_url, 1, 1, Trust())
        try:
            return await client.put(SENDER, "http://127.0.0.1:9/x", {}, b"x")
        finally:
            await client.close()

    assert asyncio.run(put("http://127.0.0.1:8/v1.0")).word is Word.RETRY
    with pytest.raises(ValueError, match="https"):
        asyncio.run(put("https://graph.microsoft.com/v1.0"))


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, {}, b'{"nextExpectedRanges":["0-"]}'),
        Response(200, {}, b'{"nextExpectedRanges":["\xd9\xa3"]}'),
        Response(200),
        Response(201),
    ],
    ids=["behind", "no digits", "no range", "done too early"],
)
def test_a_piece_that_was_not_taken_whole_ends_the_attempt(authority, answer):
    async def story(place):
        place.graph.steps["chunk"].append(answer)
        assert (await place.sent(MIXED)).word is Word.RETRY
        await until(lambda: place.graph.drafts.deleted)
        assert "send" not in place.graph.done

    by_draft(authority, story)


def test_a_draft_that_cannot_be_deleted_is_in_the_log(authority, caplog):
    async def story(place):
        place.graph.steps["session"].append(Response(503))
        place.graph.steps["delete"].append(Response(503))
        assert (await place.sent(LARGE)).word is Word.RETRY

    by_draft(authority, story)
    found = [record for record in caplog.records if record.getMessage() == "graph_draft_left"]
    assert [(r.levelno, r.fields["id"], r.fields["upstream"]) for r in found] == [
        (logging.WARNING, MAIL.id, "initech-graph")
    ]


@pytest.mark.parametrize(("step", "deleted"), [("attach", 1), ("chunk", 1), ("send", 0)])
def test_a_cancelled_send_deletes_its_draft_unless_it_may_be_sent(authority, step, deleted):
    async def story(place):
        place.graph.steps[step].append(Fault.STALL)
        sending = asyncio.create_task(place.sent(MIXED))
        await until(lambda: (place.graph.done or [""])[-1] == step or place.graph.drafts.uploads.requests)
        if step == "send":
            await until(lambda: place.graph.doubtful)
        sending.cancel()
        assert isinstance((await asyncio.gather(sending, return_exceptions=True))[0], asyncio.CancelledError)
        await place.way.close()
        assert len(place.graph.drafts.deleted) == deleted

    by_draft(authority, story)


def test_an_expired_token_is_replaced_within_the_steps(authority):
    async def story(place):
        await place.sent()
        place.graph.steps["attach"].append(error(401, "InvalidAuthenticationToken"))
        assert (await place.sent(MIXED)).word is Word.SENT
        assert place.entra.token_calls == 2

    by_draft(authority, story)


def test_the_steps_of_many_mails_keep_to_four_at_one_time(authority):
    async def story(place):
        results = await asyncio.gather(*(place.sent(LARGE) for _ in range(6)))
        assert {outcome.word for outcome in results} == {Word.SENT}
        assert place.graph.most <= 4

    by_draft(authority, story, concurrency=8)


def test_neither_token_nor_upload_address_nor_content_is_shown_anywhere(authority, caplog):
    async def story(place):
        place.graph.steps["chunk"] += [Fault.CUT, Response(400, {}, b"no")]
        shown = [repr(await place.way.send(MIXED)) for _ in range(3)]
        return [given.token for given in place.entra.given], shown

    with caplog.at_level(logging.DEBUG):
        tokens, shown = by_draft(authority, story)
    fields = [repr(getattr(record, "fields", "")) + repr(record.args) for record in caplog.records]
    everything = "\n".join([*shown, caplog.text, *fields])
    for hidden in (*tokens, "authtoken", "Beste Jan", "factuur-0"):
        assert hidden not in everything


ADDRESSES = st.sampled_from(
    ["jan@example.nl", "Els@Example.nl", "els@example.nl", "piet@b\u00fccher.de", "kees@x.nl", '"q q"@x.nl']
)


def test_the_envelope_is_exactly_who_gets_a_large_mail(authority):
    """Many mails through one connection: the draft is made and sent each time."""
    file = octets(3_200_000)

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(ADDRESSES, max_size=4), st.lists(ADDRESSES, max_size=3), st.lists(ADDRESSES, min_size=1, unique=True)
    )
    def every(to, cc, envelope):
        head = f"From: info@initech.nl\r\nTo: {', '.join(to)}\r\nCc: {', '.join(cc)}\r\nBcc: evil@x.nl\r\n".encode()
        content = head + b"Content-Type: application/pdf; name=a.pdf\r\n\r\n" + file
        mail = Outgoing("1", "initech.nl", SENDER, tuple(envelope), content)

        async def run():
            async with opened(authority, large="draft", timeout=Duration(20)) as place:
                results = await place.way.send(mail)
                assert {outcome.word for outcome in results.values()} == {Word.SENT}
                assert set(results) == set(envelope)
                assert place.graph.sent[0].recipients == {canonical(address) for address in envelope}

        asyncio.run(run())

    every()


def canonical(address: str) -> str:
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.encode('idna').decode()}".lower()
