"""A server that takes a connection and resets it at once: for every kind over HTTP an ordinary retry, on both loops.

Over plain http, for there nothing is said in between. The server lives in the client's event loop, so that each reset
comes at a known point of the client's way.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import pytest

from config.credentials import Secret
from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Stage, Word
from tests.fakes.entra import FakeEntra
from upstreams import KINDS, campaign_monitor, graph, mailgun, sendgrid, smtp_oauth
from upstreams.base import Host
from upstreams.http_client import HttpClient

try:
    import uvloop
except ImportError:  # Windows
    uvloop = None

KEY = Secret("env:KEY", "key")
MAIL = Outgoing(
    "0123456789ABC", "acme.nl", "info@acme.nl", ("a@x.nl",), b"From: info@acme.nl\r\nSubject: x\r\n\r\nhi\r\n"
)
TENANT = "11111111-2222-3333-4444-555555555555"


def later(turns: int, act) -> None:
    """Do it so many turns of the event loop from now."""
    if turns:
        asyncio.get_running_loop().call_soon(later, turns - 1, act)
    else:
        act()


@asynccontextmanager
async def resets(turns: int):
    """Where every connection is reset, so many turns of the event loop after it came."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)

    def reset() -> None:
        taken, _ = listening.accept()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        later(turns, taken.close)

    asyncio.get_running_loop().add_reader(listening, reset)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()


def entra(authority: str) -> dict:
    return {"tenant": TENANT, "client_id": TENANT, "client_secret": KEY, "authority": authority}


def settings_of(kind: str, url: str, door: FakeEntra):
    app = entra(door.authority) | {"tenant": door.tenant, "client_id": door.client_id}
    wait = Duration(5)
    match kind:
        case "graph":
            return graph.KIND, graph.GraphSettings(**app, base_url=url, timeout=wait)
        case "sendgrid":
            return sendgrid.KIND, sendgrid.SendGridSettings(api_key=KEY, method="api", base_url=url, timeout=wait)
        case "mailgun":
            return mailgun.KIND, mailgun.MailgunSettings(api_key=KEY, domain="mg.acme.nl", base_url=url, timeout=wait)
        case "campaign_monitor":
            made = campaign_monitor.CampaignMonitorSettings(api_key=KEY, client_id="1", base_url=url, timeout=wait)
            return campaign_monitor.KIND, made
        case "smtp_oauth":
            app["authority"] = url.replace("http:", "https:")  # msal takes no other
            return smtp_oauth.KIND, smtp_oauth.SmtpOauthSettings(**app, host="127.0.0.1", timeout=wait)
    raise AssertionError(kind)


OVER_HTTP = ("graph", "sendgrid", "mailgun", "campaign_monitor", "smtp_oauth")


LOOPS = {"asyncio": None, "uvloop": uvloop and uvloop.new_event_loop}


def on(loop: str, story):
    """What `story` returns, on that event loop, which must have nothing to complain about."""
    if loop == "uvloop" and uvloop is None:
        pytest.skip("no uvloop here")

    async def run():
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        told = await story()
        assert not complaints
        return told

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(run())


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", OVER_HTTP)
def test_a_reset_right_after_connect_is_a_retry(kind, loop, turns, authority):
    async def story():
        async with resets(turns) as url, FakeEntra(authority.server_context(), secret=KEY.reveal()) as door:
            made, settings = settings_of(kind, url, door)
            upstream = made.build("up", settings, Host("relay.example"))
            try:
                return (await upstream.send(MAIL))["a@x.nl"], (await upstream.send(MAIL))["a@x.nl"]
            finally:
                await upstream.close()

    for outcome in on(loop, story):
        assert (outcome.word, outcome.stage) == (Word.RETRY, Stage.CONNECT), outcome


@pytest.mark.parametrize("loop", LOOPS)
def test_whenever_the_reset_comes_it_is_a_retry_until_the_body_is_begun(loop):
    """Between the header and the body the loop turns once, so that a reset until then is known to have sent nothing."""

    async def told(turns: int):
        async with resets(turns) as url:
            client = HttpClient(5, 1)
            try:
                outcome = await client.exchange("POST", url, {}, b"body")
            finally:
                await client.close()
            return outcome.word, outcome.stage

    async def story():
        return [await told(turns) for turns in range(12)]

    found = on(loop, story)
    ends = (Word.RETRY, Stage.CONNECT), (Word.RETRY, Stage.REQUEST), (Word.UNKNOWN, Stage.REQUEST)
    assert list(dict.fromkeys(found)) == list(ends), found


def test_no_kind_over_http_is_left_out():
    over_http = {name for name in KINDS if name not in ("smtp", "connector", "maildir")}
    assert over_http == set(OVER_HTTP)
