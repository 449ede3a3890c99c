"""Opening a connection: what is said in which order, how each failure is called, and what never crosses in clear."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
import uvloop

from routing.outcome import Stage, Word
from tests.fakes.smtp import CUT, STALL, Cut, FakeSmtp, Raw
from tests.upstreams.smtp_kit import PASSWORD, mail, secured, upstream, with_login
from tests.waiting import LONG
from upstreams import smtp_session
from upstreams.smtp_session import _first_that_answers, _obeying


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both event loops that the relay may run on."""
    return request.param


async def _one(server: FakeSmtp, **given):
    async with server, upstream(server, **given) as way:
        return (await way.send(mail()))["b@x.nl"]


def test_starttls_then_login_then_mail(run, authority):
    server = secured(authority.server_context())
    outcome = run(_one(server, tls="starttls", **with_login()))
    assert outcome.word is Word.SENT
    assert [line.split()[0] for line in server.commands[:5]] == ["EHLO", "STARTTLS", "EHLO", "AUTH", "MAIL"]
    (got,) = server.received
    assert (got.tls, got.user, got.ehlo) == (True, "callpro@acme.nl", "relay.example")


def test_implicit_tls(run, authority):
    server = FakeSmtp(implicit_tls=authority.server_context(), users={"callpro@acme.nl": PASSWORD})
    assert run(_one(server, tls="implicit", **with_login())).word is Word.SENT
    assert server.received[0].tls


@pytest.mark.parametrize("mechanisms", [("PLAIN",), ("LOGIN",), ("CRAM-MD5", "LOGIN", "PLAIN")])
def test_each_mechanism_alone(authority, mechanisms):
    server = secured(authority.server_context(), mechanisms=mechanisms)
    assert asyncio.run(_one(server, tls="starttls", **with_login())).word is Word.SENT
    assert server.logins == [("callpro@acme.nl", True)]


def test_one_wrong_password_is_one_login(authority):
    server = secured(authority.server_context(), mechanisms=("CRAM-MD5", "PLAIN", "LOGIN"))
    outcome = asyncio.run(_one(server, tls="starttls", **with_login("wrong-Pa55")))
    assert (outcome.word, outcome.stage, outcome.code, outcome.enhanced) == (Word.CONFIG, Stage.LOGIN, 535, "5.7.8")
    assert server.logins == [("callpro@acme.nl", False)]
    assert "ask the customer" in str(outcome.hint)


@pytest.mark.parametrize(
    ("reply", "word"),
    [("454 4.7.0 later", Word.RETRY), ("534 5.7.9 app password", Word.CONFIG), ("421 4.7.0 bye", Word.RETRY)],
)
def test_refused_login(authority, reply, word):
    outcome = asyncio.run(
        _one(secured(authority.server_context(), replies={"AUTH": reply}), tls="starttls", **with_login())
    )
    assert (outcome.word, outcome.stage, outcome.reply) == (word, Stage.LOGIN, reply)


@pytest.mark.parametrize("given", [{"mechanisms": ("CRAM-MD5",)}, {"users": {}}])
def test_no_mechanism_of_ours_is_config(authority, given):
    server = FakeSmtp(**{"starttls": authority.server_context(), "users": {"x": "y"}, **given})
    outcome = asyncio.run(_one(server, tls="starttls", **with_login()))
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.LOGIN)
    assert server.logins == []


def test_stripped_starttls_ends_before_anything_secret(authority):
    server = secured(authority.server_context(), advertise_starttls=False)
    outcome = asyncio.run(_one(server, tls="starttls", **with_login()))
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)
    assert server.commands == ["EHLO relay.example"]


@pytest.mark.parametrize(
    ("reply", "word"), [("454 4.7.0 TLS not available", Word.RETRY), ("502 5.5.1 no", Word.CONFIG)]
)
def test_refused_starttls_is_never_clear_text(authority, reply, word):
    server = secured(authority.server_context(), replies={"STARTTLS": reply})
    outcome = asyncio.run(_one(server, tls="starttls", **with_login()))
    assert (outcome.word, outcome.stage, outcome.reply) == (word, Stage.TLS, reply)
    assert server.commands == ["EHLO relay.example", "STARTTLS"]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_certificate_for_another_name(run, authority, tls):
    context = authority.server_context("other.example")
    server = FakeSmtp(starttls=context) if tls == "starttls" else FakeSmtp(implicit_tls=context)
    outcome = run(_one(server, tls=tls))
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)
    assert "certificate" in outcome.reply
    assert "127.0.0.1" in str(outcome.hint)
    assert not any(line.startswith("MAIL") for line in server.commands)


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_certificate_of_an_unknown_authority(authority, tmp_path, monkeypatch, tls):
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    context = authority.server_context()
    server = FakeSmtp(starttls=context) if tls == "starttls" else FakeSmtp(implicit_tls=context)
    outcome = asyncio.run(_one(server, tls=tls))
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(authority):
    context = authority.server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    outcome = asyncio.run(_one(FakeSmtp(starttls=context), tls="starttls"))
    assert outcome.word is not Word.SENT
    assert outcome.stage is Stage.TLS


def test_implicit_tls_to_a_port_that_begins_in_clear(authority):
    outcome = asyncio.run(_one(FakeSmtp(faults_expected=True), tls="implicit", timeout=30.0))
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)
    assert "starttls" in str(outcome.hint)


@pytest.mark.parametrize(
    ("step", "stage"),
    [("CONNECT", Stage.CONNECT), ("EHLO", Stage.CONNECT), ("STARTTLS", Stage.TLS), ("AUTH", Stage.LOGIN)],
)
@pytest.mark.parametrize("what", [CUT, Cut(reset=True), STALL, Raw((b"garbage\r\n",)), Raw((b"\x16\x03\x01\xff\n",))])
def test_trouble_at_each_step_of_opening(run, authority, step, stage, what):
    server = secured(authority.server_context(), replies={step: what}, faults_expected=True)
    outcome = run(_one(server, tls="starttls", timeout=1.5, **with_login()))
    assert (outcome.word, outcome.stage) == (Word.RETRY, stage)
    assert not server.received


def test_what_is_no_smtp_is_called_so(run):
    server = FakeSmtp(replies={"CONNECT": Raw((b"HTTP/1.1 400 Bad Request\r\n",))}, faults_expected=True)
    outcome = run(_one(server, timeout=30.0))
    assert outcome.reply.startswith("what answers there does not speak SMTP: ")
    assert "HTTP/1.1 400" in outcome.reply


def test_endless_answer_is_bounded(run):
    server = FakeSmtp(replies={"EHLO": Raw((b"250-" + b"x" * 70000, b"y" * 70000))})
    assert run(_one(server, timeout=30.0)).word is Word.RETRY


@pytest.mark.parametrize(
    ("greeting", "word"), [("554 no service for you", Word.CONFIG), ("421 4.3.2 too busy", Word.RETRY)]
)
def test_greeting_that_turns_us_away(greeting, word):
    outcome = asyncio.run(_one(FakeSmtp(replies={"CONNECT": greeting})))
    assert (outcome.word, outcome.stage, outcome.reply) == (word, Stage.CONNECT, greeting)


def test_greeting_of_many_lines_in_many_packets(run):
    packets = (b"220-fa", b"ke.example\r", b"\n220-we do not spam\r\n22", b"0 ESMTP\r", b"\n")
    assert run(_one(FakeSmtp(replies={"CONNECT": Raw(packets)}))).word is Word.SENT


def test_server_without_ehlo_gets_helo():
    server = FakeSmtp(replies={"EHLO": "500 5.5.2 unknown"}, keywords=())
    assert asyncio.run(_one(server)).word is Word.SENT
    assert server.commands[:2] == ["EHLO relay.example", "HELO relay.example"]


def test_nobody_listens():
    async def go():
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            server = FakeSmtp(port=closed.getsockname()[1])
            async with upstream(server) as way:
                return (await way.send(mail()))["b@x.nl"]

    outcome = asyncio.run(go())
    assert (outcome.word, outcome.stage) == (Word.RETRY, Stage.CONNECT)
    assert "refused" in outcome.reply.lower()


def test_host_that_does_not_exist():
    async def go():
        async with upstream(FakeSmtp(), host="no-such-host.invalid", port=25) as way:
            return (await way.send(mail()))["b@x.nl"]

    outcome = asyncio.run(go())
    assert outcome.word in (Word.CONFIG, Word.RETRY)  # a resolver that is down says "later", one that works says "no"
    assert (outcome.stage, "no-such-host.invalid" in outcome.reply) == (Stage.CONNECT, True)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "smtp..acme.nl"])
def test_host_that_is_no_name(host):
    async def go():
        async with upstream(FakeSmtp(), host=host, port=25) as way:
            return (await way.send(mail()))["b@x.nl"]

    outcome = asyncio.run(go())
    assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.CONNECT)


def test_tls_sessions_are_resumed(run, authority):
    async def go():
        server = secured(authority.server_context())
        async with server, upstream(server, tls="starttls", messages_per_connection=1, **with_login()) as way:
            for _ in range(3):
                await way.send(mail())
        return server

    server = run(go())
    assert (server.connections, server.resumed, len(server.received)) == (3, 2, 3)


def test_a_cancellation_that_is_forgotten_on_the_way_is_repeated():
    """As `asyncio.wait_for` of Python 3.11 does when what it waits for comes at the same moment."""

    async def forgetful():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def go():
        opening = asyncio.create_task(_obeying(forgetful()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening}, timeout=60)
        return opening.cancelled(), len(asyncio.all_tasks())

    assert asyncio.run(go()) == (True, 1)


def test_an_address_that_does_not_answer_is_passed_over_soon(monkeypatch):
    monkeypatch.setattr(smtp_session, "_NEXT_ADDRESS", 0.2)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):  # what is beyond the backlog gets no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        live = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        places = [(socket.AF_INET, one.getsockname()) for one in (full, live)]

        async def scenario():
            async with asyncio.timeout(LONG):
                with await _first_that_answers(places, None, 10 * LONG) as reached:
                    assert reached.getpeername() == live.getsockname()
            with pytest.raises(TimeoutError):
                await _first_that_answers(places[:1] * 2, None, 0.5)

        asyncio.run(scenario())
