"""One mail on an open connection: outcomes per recipient, the content octet for octet, trouble at every step."""

from __future__ import annotations

import asyncio

import aiosmtplib
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.outcome import Stage, Word
from tests.fakes.smtp import CUT, STALL, Cut, FakeSmtp, Raw, Stall
from tests.upstreams.smtp_kit import CONTENT, mail, upstream
from upstreams.smtp_transaction import _stuffed

PLAIN = ("SIZE 36700160", "8BITMIME", "ENHANCEDSTATUSCODES")
PIPED = ("PIPELINING", *PLAIN)
KEYWORDS = pytest.mark.parametrize("keywords", [PLAIN, PIPED], ids=["command by command", "pipelined"])


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both event loops that the relay may run on."""
    return request.param


async def _send(server: FakeSmtp, *mails, **given):
    """The results of each mail in turn, on one upstream."""
    async with server, upstream(server, **given) as way:
        return [await way.send(one) for one in mails]


# ---- what the server gets


@KEYWORDS
def test_envelope_and_content_arrive_as_handed_in(run, keywords):
    server = FakeSmtp(keywords=keywords)
    (results,) = run(_send(server, mail("b@x.nl", "c@y.nl")))
    (got,) = server.received
    assert (got.sender, got.recipients, got.content) == ("a@acme.nl", ("b@x.nl", "c@y.nl"), CONTENT)
    assert got.parameters == {"SIZE": str(len(CONTENT))}
    assert {outcome.word for outcome in results.values()} == {Word.SENT}
    assert results["b@x.nl"].upstream_id == "FAKE1"


def test_group_goes_out_in_one_write(run):
    """A server that says nothing before it has read DATA: only a client that pipelines comes that far."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        writer.write(b"220 fake.example\r\n")
        await reader.readline()
        writer.write(b"250-fake.example\r\n250 PIPELINING\r\n")
        groups.append(await reader.readuntil(b"DATA\r\n"))
        writer.write(b"250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n")
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 taken\r\n")
        await reader.readline()
        writer.close()

    async def go():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, upstream(FakeSmtp(port=server.sockets[0].getsockname()[1]), timeout=30.0) as way:
            return await way.send(mail("b@x.nl", "c@x.nl"))

    groups: list[bytes] = []
    results = run(go())
    assert groups == [b"MAIL FROM:<a@acme.nl>\r\nRCPT TO:<b@x.nl>\r\nRCPT TO:<c@x.nl>\r\nDATA\r\n"]
    assert [results["b@x.nl"].word, results["c@x.nl"].word] == [Word.SENT, Word.REJECT]


@pytest.mark.parametrize("content", [b"", b".", b".\r\n", b"..\r\n.\r\n\r\n.x\r\n", b"a\r\n.\r\n", b"no end"])
def test_dots_and_ends(content):
    server = FakeSmtp()
    (results,) = asyncio.run(_send(server, mail(content=content)))
    assert results["b@x.nl"].word is Word.SENT
    expected = content if content.endswith(b"\r\n") else content + b"\r\n"
    assert server.received[0].content == expected


def test_content_without_dots_is_not_copied():
    content = b"Subject: x\r\n\r\nhello.\r\n"
    assert _stuffed(content) is content


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\xc3\xa9"]), max_size=40))
def test_stuffing_is_what_aiosmtplib_does(pieces):
    """The library's own expressions, on content with proper line endings."""
    content = b"".join(pieces) + b"\r\n"
    expected = aiosmtplib.protocol.PERIOD_REGEX.sub(b"..", aiosmtplib.protocol.normalize_message_line_endings(content))
    assert _stuffed(content) == expected


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_large_mail(run, size):
    content = b"Subject: big\r\n\r\n" + b".0123456789abcdef\r\n" * (size // 19)
    server = FakeSmtp()
    (results,) = run(_send(server, mail(content=content)))
    assert results["b@x.nl"].word is Word.SENT
    assert server.received[0].content == content


@pytest.mark.parametrize(("keywords", "body"), [(PIPED, "8BITMIME"), (("PIPELINING",), None)])
def test_eight_bit_content_goes_as_it_is(keywords, body):
    content = "Subject: x\r\n\r\ncafé\r\n".encode()
    server = FakeSmtp(keywords=keywords)
    asyncio.run(_send(server, mail(content=content)))
    assert server.received[0].content == content
    assert server.received[0].parameters.get("BODY") == body


def test_null_sender_and_a_quoted_local_part():
    server = FakeSmtp()
    results = asyncio.run(_send(server, mail('"a b"@x.nl', sender="")))
    assert results[0]['"a b"@x.nl'].word is Word.SENT
    assert server.received[0].sender == ""
    assert server.received[0].recipients == ('"a b"@x.nl',)


@pytest.mark.parametrize(
    "bad", ["b@x.nl>\r\nRCPT TO:<evil@x.nl", "b@x.nl\n", "b@x.nl> SIZE=1", "a b@x.nl", "b\0@x.nl", '"a"b" c"@x.nl']
)
def test_address_that_would_end_early_is_refused_here(bad):
    server = FakeSmtp()
    (results,) = asyncio.run(_send(server, mail("c@x.nl", bad)))
    assert (results[bad].word, results[bad].stage) == (Word.REJECT, Stage.PREPARE)
    assert results["c@x.nl"].word is Word.SENT
    assert server.received[0].recipients == ("c@x.nl",)


def test_addresses_beyond_ascii():
    utf8 = FakeSmtp(keywords=(*PIPED, "SMTPUTF8"))
    (results,) = asyncio.run(_send(utf8, mail("jörg@bücher.nl")))
    assert results["jörg@bücher.nl"].word is Word.SENT
    assert "SMTPUTF8" in utf8.received[0].parameters
    plain = FakeSmtp()
    (results,) = asyncio.run(_send(plain, mail("jörg@bücher.nl", "info@bücher.nl")))
    assert (results["jörg@bücher.nl"].word, results["jörg@bücher.nl"].stage) == (Word.REJECT, Stage.PREPARE)
    assert plain.received[0].recipients == ("info@xn--bcher-kva.nl",)
    assert results["info@bücher.nl"].word is Word.SENT


def test_a_recipient_named_twice_is_said_once():
    server = FakeSmtp()
    (results,) = asyncio.run(_send(server, mail("b@x.nl", "b@x.nl")))
    assert server.received[0].recipients == ("b@x.nl",)
    assert set(results) == {"b@x.nl"}


# ---- what the server says


@KEYWORDS
def test_some_recipients_refused(run, keywords):
    script = {"RCPT bad@x.nl": "550 5.1.1 no such user", "RCPT busy@x.nl": "450 4.2.1 busy"}
    server = FakeSmtp(keywords=keywords, replies=script)
    (results,) = run(_send(server, mail("bad@x.nl", "good@x.nl", "busy@x.nl")))
    assert {recipient: outcome.word for recipient, outcome in results.items()} == {
        "bad@x.nl": Word.REJECT,
        "good@x.nl": Word.SENT,
        "busy@x.nl": Word.RETRY,
    }
    assert server.received[0].recipients == ("good@x.nl",)


@KEYWORDS
def test_too_many_recipients_go_soon_in_another_mail(run, keywords):
    script = {"RCPT c@x.nl": "452 4.5.3 too many recipients", "RCPT d@x.nl": "552 too many recipients"}
    server = FakeSmtp(keywords=keywords, replies=script)
    (results,) = run(_send(server, mail("a@x.nl", "b@x.nl", "c@x.nl", "d@x.nl")))
    assert [results[who].word for who in results] == [Word.RETRY, Word.RETRY, Word.SENT, Word.SENT]
    assert (results["c@x.nl"].wait, results["d@x.nl"].wait) == (0.0, 0.0)
    assert server.received[0].recipients == ("a@x.nl", "b@x.nl")


def test_too_many_at_the_first_recipient_or_without_a_delivery_is_no_hurry():
    first = FakeSmtp(replies={"RCPT a@x.nl": "452 4.5.3 too many recipients"})
    (results,) = asyncio.run(_send(first, mail("a@x.nl", "b@x.nl")))
    assert (results["a@x.nl"].word, results["a@x.nl"].wait) == (Word.RETRY, None)
    refused = FakeSmtp(replies={"RCPT b@x.nl": "452 4.5.3 too many", ".": "451 4.3.0 no"})
    (results,) = asyncio.run(_send(refused, mail("a@x.nl", "b@x.nl")))
    assert (results["b@x.nl"].word, results["b@x.nl"].wait) == (Word.RETRY, None)
    full = FakeSmtp(replies={"RCPT b@x.nl": "552 5.2.2 mailbox full"})
    (results,) = asyncio.run(_send(full, mail("a@x.nl", "b@x.nl")))
    assert results["b@x.nl"].word is Word.REJECT


@KEYWORDS
@pytest.mark.parametrize("data", [None, "354 go on then"])
def test_all_recipients_refused_and_the_connection_lives_on(run, keywords, data):
    """With 354 a lone dot must follow (RFC 2920 3.1); in both cases the next mail goes on the same connection."""
    script = {"RCPT b@x.nl": ["550 5.1.1 no"], "DATA": [data] if data and "PIPELINING" in keywords else []}
    server = FakeSmtp(keywords=keywords, replies=script)
    first, second = run(_send(server, mail(), mail(id="2")))
    assert (first["b@x.nl"].word, second["b@x.nl"].word) == (Word.REJECT, Word.SENT)
    assert (server.connections, len(server.received)) == (1, 1)


@KEYWORDS
def test_server_that_refuses_rset_gets_a_new_connection(run, keywords):
    """Else the next MAIL would meet the mail before it, and its 503 would bounce a good mail."""
    script = {"RCPT": ["550 5.1.1 no"], "RSET": "500 5.5.2 what"}
    piped = "PIPELINING" in keywords  # then MAIL is on its way before the answer to RSET
    server = FakeSmtp(keywords=keywords, replies=script, faults_expected=piped)
    first, second = run(_send(server, mail(), mail(id="2")))
    assert (first["b@x.nl"].word, second["b@x.nl"].word) == (Word.REJECT, Word.SENT)
    assert (server.connections, len(server.received)) == (2, 1)


@KEYWORDS
def test_sender_refused_and_the_connection_lives_on(run, keywords):
    server = FakeSmtp(keywords=keywords, replies={"MAIL": ["550 5.1.8 not yours"]})
    first, second = run(_send(server, mail("b@x.nl", "c@x.nl"), mail(id="2")))
    assert {(o.word, o.stage, o.reply) for o in first.values()} == {
        (Word.CONFIG, Stage.SENDER, "550 5.1.8 not yours"),
    }
    assert second["b@x.nl"].word is Word.SENT
    assert server.connections == 1


@KEYWORDS
@pytest.mark.parametrize(
    ("step", "reply", "word"),
    [
        ("DATA", "451 4.3.0 not now", Word.RETRY),
        ("DATA", "554 5.7.1 no", Word.REJECT),
        (".", "554 5.7.1 spam", Word.REJECT),
        (".", "452 4.3.1 disk full", Word.RETRY),
        (".", "550 5.4.5 daily limit", Word.CONFIG),
    ],
)
def test_content_refused_and_the_connection_lives_on(run, keywords, step, reply, word):
    server = FakeSmtp(keywords=keywords, replies={step: [reply]})
    first, second = run(_send(server, mail(), mail(id="2")))
    assert (first["b@x.nl"].word, first["b@x.nl"].stage, first["b@x.nl"].reply) == (word, Stage.CONTENT, reply)
    assert second["b@x.nl"].word is Word.SENT
    assert (server.connections, len(server.received)) == (1, 1)


def test_too_big_for_the_announced_size():
    server = FakeSmtp(keywords=("PIPELINING", "SIZE 20"))
    (results,) = asyncio.run(_send(server, mail()))
    assert (results["b@x.nl"].word, results["b@x.nl"].enhanced) == (Word.REJECT, "5.3.4")


@KEYWORDS
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_421_at_each_step_ends_the_connection(run, keywords, step):
    server = FakeSmtp(keywords=keywords, replies={step: ["421 4.3.2 restarting"]})
    first, second = run(_send(server, mail("b@x.nl", "c@x.nl"), mail(id="2")))
    assert {(o.word, o.code) for o in first.values()} == {(Word.RETRY, 421)}
    assert second["b@x.nl"].word is Word.SENT
    assert server.connections == 2


@KEYWORDS
@pytest.mark.parametrize("what", [CUT, Cut(reset=True), STALL, Raw((b"what is this\r\n",)), Raw((b"\xff" * 9000,))])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_trouble_at_each_step(run, keywords, step, what):
    """Before the content nothing can have been taken: retry. After the final dot nobody knows."""
    server = FakeSmtp(keywords=keywords, replies={step: [what]}, faults_expected=isinstance(what, Raw))
    patience = 1.0 if what is STALL else 30.0
    first, second = run(_send(server, mail("b@x.nl", "c@x.nl"), mail(id="2"), timeout=patience, data_timeout=patience))
    assert {o.word for o in first.values()} == {Word.UNKNOWN if step == "." else Word.RETRY}
    assert second["b@x.nl"].word is Word.SENT, "the next mail has a connection of its own"
    assert server.connections == 2


def test_cut_within_a_large_content_is_retry():
    """The server had not been handed the end of it."""
    content = b"x" * 70 + b"\r\n"
    server = FakeSmtp(replies={"CONTENT": [Cut(after=100_000)]})
    (results,) = asyncio.run(_send(server, mail(content=content * 200_000)))
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.RETRY, Stage.CONTENT)


def test_stall_within_a_large_content_is_retry(run):
    server = FakeSmtp(replies={"CONTENT": [Stall(deaf=True)]})
    (results,) = run(_send(server, mail(content=b"x\r\n" * 6_000_000), timeout=1.0))
    assert (results["b@x.nl"].word, results["b@x.nl"].stage) == (Word.RETRY, Stage.CONTENT)


def test_refusal_said_before_the_hang_up_counts():
    last = Raw((b"552 5.3.4 too big for us\r\n",), hang_up=True)
    server = FakeSmtp(replies={".": last})
    (results,) = asyncio.run(_send(server, mail()))
    assert (results["b@x.nl"].word, results["b@x.nl"].code) == (Word.REJECT, 552)


@pytest.mark.parametrize("answer", [b"354 go on\r\n", b"25\r\n", b"250-half\r\n251 of another\r\n"])
def test_odd_answer_to_the_final_dot_is_unknown(answer):
    server = FakeSmtp(replies={".": [Raw((answer,))]}, faults_expected=True)
    (results,) = asyncio.run(_send(server, mail(), data_timeout=1.0))
    assert results["b@x.nl"].word is Word.UNKNOWN


def test_answers_in_many_packets_and_lines(run):
    packets = (b"250-2.0.0 to", b"ok\r", b"\n250-and\t\x07more\r\n2", b"50 queued as AB12\r\n")
    (results,) = run(_send(FakeSmtp(replies={".": Raw(packets)}), mail()))
    assert results["b@x.nl"].reply == "250 2.0.0 took and ?more queued as AB12"
    assert results["b@x.nl"].upstream_id == "AB12"


def test_every_recipient_has_an_outcome_when_the_line_breaks_between_them():
    script = {"RCPT b@x.nl": "550 5.1.1 no", "RCPT d@x.nl": CUT}
    (results,) = asyncio.run(_send(FakeSmtp(replies=script), mail("b@x.nl", "c@x.nl", "d@x.nl", "e@x.nl")))
    assert [results[f"{who}@x.nl"].word for who in "bcde"] == [Word.REJECT, Word.RETRY, Word.RETRY, Word.RETRY]


def test_same_wire_as_aiosmtplib_sends():
    """Where both exist, ours and the library's transaction come to the same mail."""

    async def go():
        async with FakeSmtp(keywords=PLAIN) as server, upstream(server) as way:
            await way.send(mail("b@x.nl", "c@x.nl"))
            client = aiosmtplib.SMTP(hostname=server.host, port=server.port, start_tls=False)
            await client.connect()
            await client.sendmail("a@acme.nl", ["b@x.nl", "c@x.nl"], CONTENT)
            await client.quit()
            return server.received

    ours, theirs = asyncio.run(go())
    assert (ours.sender, ours.recipients, ours.content) == (theirs.sender, theirs.recipients, theirs.content)
    assert ours.parameters == theirs.parameters
