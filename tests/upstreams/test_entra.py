"""Tokens from the look-alike of Entra, through the real msal over TLS."""

from __future__ import annotations

import asyncio
import datetime
import logging
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from config.credentials import Secret
from routing.outcome import Outcome, Stage, Word
from tests.fakes.entra import ERRORS, FakeEntra, aadsts
from tests.fakes.http_server import Fault, Response
from upstreams.entra import EntraApp, EntraTokens
from upstreams.http_client import HttpClient

SECRET = "s3cr~et.Value+/=8Q"
GRAPH = "https://graph.microsoft.com/.default"
SMTP = "https://outlook.office365.com/.default"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def app_of(entra: FakeEntra, **changes) -> EntraApp:
    given = {
        "tenant": entra.tenant,
        "client_id": entra.client_id,
        "client_secret": Secret("file:x", SECRET),
        "authority": entra.authority,
    }
    return EntraApp(**{**given, **changes})


@asynccontextmanager
async def tokens_from(entra: FakeEntra, *, seconds=30.0, clock=None, **changes):
    http = HttpClient(seconds, 2)
    tokens = EntraTokens(app_of(entra, **changes), http, clock or Clock())
    try:
        yield tokens
    finally:
        await tokens.close()
        await http.close()


def with_entra(authority, story, **settings):
    """Run `story(entra)` beside a look-alike."""

    async def run():
        async with FakeEntra(authority.server_context(), **{"secret": SECRET, **settings}) as entra:
            result = await story(entra)
            assert entra.server.problems == []
            return result

    return asyncio.run(run())


@pytest.fixture(scope="module")
def pair() -> tuple[str, str]:
    """Two PEMs, each a key and its certificate."""
    return _pem(), _pem()


def _pem() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now - day, now + day)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate).decode()


def test_a_token_is_fetched_once_and_kept(authority):
    async def story(entra):
        async with tokens_from(entra) as tokens:
            first = await tokens.token(GRAPH)
            assert [await tokens.token(GRAPH) for _ in range(5)] == [first] * 5
            assert entra.knows(first, GRAPH)
            assert (entra.discoveries, entra.token_calls) == (1, 1)

    with_entra(authority, story)


def test_many_that_wait_share_one_call(authority):
    async def story(entra):
        entra.before_answer.clear()
        async with tokens_from(entra) as tokens:
            waiting = [asyncio.create_task(tokens.token(GRAPH)) for _ in range(50)]
            while not entra.token_calls:
                await asyncio.sleep(0.01)
            entra.before_answer.set()
            assert len(set(await asyncio.gather(*waiting))) == 1
            assert entra.token_calls == 1

    with_entra(authority, story)


def test_two_scopes_are_two_tokens(authority):
    async def story(entra):
        async with tokens_from(entra) as tokens:
            graph, smtp = await asyncio.gather(tokens.token(GRAPH), tokens.token(SMTP))
            assert entra.knows(graph, GRAPH)
            assert entra.knows(smtp, SMTP)
            assert graph != smtp
            assert await tokens.token(GRAPH) == graph
            assert (entra.discoveries, entra.token_calls) == (1, 2)

    with_entra(authority, story)


def test_a_token_is_renewed_five_minutes_before_its_end(authority):
    async def story(entra):
        clock = Clock()
        async with tokens_from(entra, clock=clock) as tokens:
            first = await tokens.token(GRAPH)
            clock.now += 3599 - 301
            assert await tokens.token(GRAPH) == first
            clock.now += 2
            assert await tokens.token(GRAPH) != first
            assert entra.token_calls == 2

    with_entra(authority, story)


def test_the_old_token_serves_while_entra_is_down_and_no_longer(authority):
    async def story(entra):
        clock = Clock()
        async with tokens_from(entra, clock=clock) as tokens:
            first = await tokens.token(GRAPH)
            clock.now += 3599 - 10
            entra.script += [Response(503), Response(503)]
            assert await tokens.token(GRAPH) == first
            clock.now += 11
            assert (await tokens.token(GRAPH)).word is Word.RETRY
            assert entra.knows(await tokens.token(GRAPH), GRAPH)

    with_entra(authority, story)


def test_a_refused_token_is_forgotten_once_however_many_complain(authority):
    async def story(entra):
        async with tokens_from(entra) as tokens:
            old = await tokens.token(GRAPH)
            tokens.forget(GRAPH, old)
            new = await tokens.token(GRAPH)
            tokens.forget(GRAPH, old)
            tokens.forget(SMTP, new)
            assert await tokens.token(GRAPH) == new != old
            assert entra.token_calls == 2

    with_entra(authority, story)


def test_a_certificate_signs_and_is_named_by_its_sha256_thumbprint(authority, pair):
    async def story(entra):
        changes = {"client_secret": None, "certificate": Secret("file:x", pair[0])}
        async with tokens_from(entra, **changes) as tokens:
            assert entra.knows(await tokens.token(GRAPH), GRAPH)
        async with tokens_from(entra, **{**changes, "certificate": Secret("file:x", pair[1])}) as tokens:
            refused = await tokens.token(GRAPH)
            assert (refused.word, refused.enhanced) == (Word.CONFIG, "AADSTS700027")

    with_entra(authority, story, secret=None, certificate=pair[0].encode())


def test_a_wrong_secret_is_config_and_asked_for_once_each_time(authority):
    async def story(entra):
        async with tokens_from(entra, client_secret=Secret("file:x", "wrong")) as tokens:
            refused = await tokens.token(GRAPH)
            assert (refused.word, refused.stage, refused.code) == (Word.CONFIG, Stage.LOGIN, 401)
            assert refused.enhanced == "AADSTS7000215"
            assert "value" in str(refused.hint)
            assert entra.token_calls == 1

    with_entra(authority, story)


@pytest.mark.parametrize("number", [n for n in ERRORS if n not in (70011, 900144)])
def test_every_known_number_is_config_with_a_hint_of_its_own(authority, number):
    async def story(entra):
        entra.script.append(aadsts(number))
        async with tokens_from(entra) as tokens:
            refused = await tokens.token(GRAPH)
        assert (refused.word, refused.stage, refused.enhanced) == (Word.CONFIG, Stage.LOGIN, f"AADSTS{number}")
        assert refused.hint
        assert "AADSTS number" not in str(refused.hint)
        assert "\r" not in refused.reply

    with_entra(authority, story)


def test_an_unknown_tenant_is_told_apart_before_any_token_call(authority):
    async def story(entra):
        async with tokens_from(entra, tenant="other.example") as tokens:
            refused = await tokens.token(GRAPH)
        assert (refused.word, refused.enhanced, entra.token_calls) == (Word.CONFIG, "AADSTS90002", 0)

    with_entra(authority, story)


def test_an_app_the_tenant_does_not_know(authority):
    async def story(entra):
        async with tokens_from(entra, client_id="22221111-aaaa-2222-bbbb-3333cccc4444") as tokens:
            assert (await tokens.token(GRAPH)).enhanced == "AADSTS700016"

    with_entra(authority, story)


@pytest.mark.parametrize(
    ("answer", "word", "stage", "wait"),
    [
        (Response(429, {"Retry-After": "17"}), Word.WAIT, Stage.LOGIN, 17.0),
        (Response(429), Word.RETRY, Stage.LOGIN, None),
        (Response(500), Word.RETRY, Stage.LOGIN, None),
        (Response(503, {"Retry-After": "5"}, b"<html>"), Word.WAIT, Stage.LOGIN, 5.0),
        (Response(400, {}, b'{"error":"temporarily_unavailable"}'), Word.RETRY, Stage.LOGIN, None),
        (Response(400, {}, b'{"error":"strange"}'), Word.CONFIG, Stage.LOGIN, None),
        (Response(400, {}, b"[]"), Word.CONFIG, Stage.LOGIN, None),
        (Response(302, {"Location": "https://x.example/"}), Word.CONFIG, Stage.LOGIN, None),
        (Response(200, {}, b"<html>welcome to the hotel</html>"), Word.CONFIG, Stage.LOGIN, None),
        (Response(200, {}, b"[" * 100_000), Word.CONFIG, Stage.LOGIN, None),
        (Response(200, {}, b'{"token_type":"Bearer"}'), Word.CONFIG, Stage.LOGIN, None),
        (Fault.CUT, Word.RETRY, Stage.LOGIN, None),
        (Fault.STALL, Word.RETRY, Stage.LOGIN, None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_trouble_is_an_outcome_and_the_next_call_may_succeed(authority, answer, word, stage, wait):
    async def story(entra):
        entra.script.append(answer)
        async with tokens_from(entra, seconds=1 if answer is Fault.STALL else 30) as tokens:
            outcome = await tokens.token(GRAPH)
            assert isinstance(outcome, Outcome)
            assert (outcome.word, outcome.stage, outcome.wait) == (word, stage, wait)
            if word is not Word.CONFIG:
                assert entra.knows(await tokens.token(GRAPH), GRAPH)

    with_entra(authority, story)


def test_nobody_listening_is_retry_and_an_untrusted_certificate_is_config(authority, monkeypatch):
    async def story(entra):
        async with tokens_from(entra, authority="https://localhost:9") as tokens:
            outcome = await tokens.token(GRAPH)
            assert (outcome.word, outcome.stage) == (Word.RETRY, Stage.CONNECT)
        monkeypatch.delenv("SSL_CERT_FILE")
        async with tokens_from(entra) as tokens:
            outcome = await tokens.token(GRAPH)
            assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)

    with_entra(authority, story)


def test_who_stops_waiting_does_not_stop_the_others(authority):
    async def story(entra):
        entra.before_answer.clear()
        async with tokens_from(entra) as tokens:
            one, two = (asyncio.create_task(tokens.token(GRAPH)) for _ in range(2))
            while not entra.token_calls:
                await asyncio.sleep(0.01)
            one.cancel()
            assert isinstance((await asyncio.gather(one, return_exceptions=True))[0], asyncio.CancelledError)
            entra.before_answer.set()
            assert entra.knows(await two, GRAPH)

    with_entra(authority, story)


def test_closing_ends_a_call_under_way(authority):
    async def story(entra):
        entra.before_answer.clear()
        async with tokens_from(entra, seconds=30) as tokens:
            waiting = asyncio.create_task(tokens.token(GRAPH))
            while not entra.token_calls:
                await asyncio.sleep(0.01)
            waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert tokens._calls == {}

    with_entra(authority, story)


def test_no_secret_or_token_in_logs_outcomes_or_reprs(authority, caplog):
    async def story(entra):
        entra.script.append(aadsts(7000215, extra=f" You sent {SECRET}"))
        entra.script.append(Response(200, {}, b'{"access_token": "half-a-tok'))
        async with tokens_from(entra) as tokens:
            shown = [repr(await tokens.token(GRAPH)), repr(await tokens.token(GRAPH))]
            token = await tokens.token(GRAPH)
            shown += [repr(tokens), repr(tokens._tokens), repr(tokens._app)]
            return token, shown

    with caplog.at_level(logging.DEBUG):
        token, shown = with_entra(authority, story)
    everything = "\n".join([*shown, caplog.text, *(repr(record.args) for record in caplog.records)])
    assert "msal" in caplog.text
    for hidden in (SECRET, token, "half-a-tok"):
        assert hidden not in everything


def test_msal_and_httpx_are_not_loaded_before_the_first_token():
    script = (
        "import sys, upstreams.graph; print([m for m in ('msal', 'httpx', 'jwt', 'cryptography') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent.parent
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.strip() == "[]"


def app(**changes) -> EntraApp:
    given = {"tenant": "initech.onmicrosoft.com", "client_id": "00001111-aaaa-2222-bbbb-3333cccc4444"}
    return EntraApp(**{**given, "client_secret": Secret("env:X", SECRET), **changes})


def test_good_settings_have_no_faults(pair):
    assert list(app().faults()) == []
    assert list(app(client_secret=None, certificate=Secret("file:x", pair[0])).faults()) == []


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"client_secret": None}, ""),
        ({"certificate": Secret("file:x", "")}, ""),
        ({"tenant": "common"}, "tenant"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": ".."}, "tenant"),
        ({"client_id": "my app"}, "client_id"),
        ({"authority": "http://login.example"}, "authority"),
        ({"authority": "https://login.example/tenant"}, "authority"),
        ({"authority": "login.example"}, "authority"),
        ({"client_secret": None, "certificate": Secret("file:x", "no pem")}, "certificate"),
    ],
)
def test_faults_name_their_key(changes, key):
    assert key in [fault.key for fault in app(**changes).faults()]


def test_a_certificate_of_another_key_is_a_fault(pair):
    key, other = (pem.partition("-----BEGIN CERTIFICATE")[part] for pem, part in ((pair[0], 0), (pair[1], 2)))
    mixed = f"{key}-----BEGIN CERTIFICATE{other}"
    faults = list(app(client_secret=None, certificate=Secret("file:x", mixed)).faults())
    assert [fault.key for fault in faults] == ["certificate"]
    assert "together" in faults[0].wrong
