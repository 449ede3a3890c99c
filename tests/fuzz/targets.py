"""What is fuzzed: each target takes any octets and raises AssertionError (or anything else) when a promise is broken.

`test_fuzz.py` replays the corpus and tries a little more; `scripts/fuzz` tries for as long as it is told.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from config.credentials import Secret
from config.loading import load_relay, load_rules
from config.problems import ConfigInvalid, Problem
from config.relay_settings import User
from config.rules import Sender
from intake.addresses import parse
from intake.content import Content
from intake.repairs import only_crlf, repair
from routing.headers import fields, mailboxes, split, values
from routing.provider_events import Post, Refusal
from routing.rewrite import rewrite
from tests.fakes.webhooks import MailgunWebhook, SendGridWebhook
from tests.intake.house import House, running
from upstreams import KINDS, mailgun_events, sendgrid_events

NOW = 1_793_610_000.0
SENDERS = (
    Sender(address="hooli@callcenter.nl"),
    Sender(address="hooli@callcenter.nl", name="Één, Twee", original_from=True),
    Sender(address="hooli@callcenter.nl", reply_to="none"),
)
SHAPES = {name: kind.settings for name, kind in KINDS.items()}


def repairs(octets: bytes) -> None:
    """Any octets become a mail that every server reads alike, and a second pass changes nothing."""
    done = repair(octets, NOW, "relay.test", "01M8V6WXYZABC")
    if done is None:
        return
    assert only_crlf(done.content)
    assert done.content.endswith(b"\r\n")
    assert b"\0" not in done.content
    assert all(field.name for field in fields(done.content))
    again = repair(done.content, NOW, "relay.test", "01M8V6WXYZABC")
    assert again is not None
    assert (again.content, again.repairs) == (done.content, ())
    assert bool(done.repairs) == (done.content != octets)


def rewriting(octets: bytes) -> None:
    """From is the sender's and nobody else's, the body stays, no field comes or goes but those of the sender."""
    done = repair(octets, NOW, "relay.test", "01M8V6WXYZABC")
    if done is None:
        return
    for sender in SENDERS:
        changed = rewrite("info@acme.nl", done.content, sender)
        assert [box.address for box in mailboxes(changed.content, "From")] == ["hooli@callcenter.nl"]
        assert split(changed.content)[1] == split(done.content)[1]
        assert all(field.name for field in fields(changed.content))
        ours = {"from", "sender", "reply-to", "x-original-from", "dkim-signature"}  # the signature would be broken
        before = [field.name.lower() for field in fields(done.content) if field.name.lower() not in ours]
        after = [field.name.lower() for field in fields(changed.content) if field.name.lower() not in ours]
        assert before == after
        assert len(values(changed.content, "Reply-To")) <= max(1, len(values(done.content, "Reply-To")))
        assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", changed.content)


def config(octets: bytes) -> None:
    """Any file is rules, or a list of problems with a line each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for name, load in (("routes.yaml", lambda: load_rules(path, SHAPES)), ("relay.yaml", None)):
            (path / name).write_bytes(octets)
            found: tuple[Problem, ...] | None = None
            try:
                load() if load else load_relay(path / name)
            except ConfigInvalid as invalid:
                found = invalid.problems
            assert found is None or found
            assert all(problem.place.line >= 1 and problem.wrong for problem in found or ())


_SENDGRID, _MAILGUN = SendGridWebhook(), MailgunWebhook()
_READ_SENDGRID = sendgrid_events.reader(_SENDGRID.key)
_READ_MAILGUN = mailgun_events.reader(Secret("env:X", _MAILGUN.key))


def webhooks(octets: bytes) -> None:
    """Any body, signed or not, is events that can be written down, or a refusal."""
    headers, body = _SENDGRID.signed_octets(octets, NOW)
    said = [_READ_SENDGRID({name.lower(): value for name, value in headers.items()}, body, NOW)]
    _, envelope = _MAILGUN.signed("HERE", NOW)
    said += [_READ_MAILGUN({}, envelope.replace(b'"HERE"', octets), NOW), _READ_MAILGUN({}, octets, NOW)]
    for post in said:
        assert isinstance(post, Post | Refusal)
        for event in post.events if isinstance(post, Post) else ():
            assert len((event.id + event.mail + event.recipient + event.reply).encode()) <= 40_000


def addresses(octets: bytes) -> None:
    """What is taken for an address stood there as it is, and could not end a command of ours."""
    text = octets.decode("utf-8", "surrogateescape")
    found, parameters = parse(text, lambda _text: (None, None))
    assert (found is None) == (parameters is None)
    if found and found != "<>":
        assert found in text
        assert found.isprintable()
        assert not set(found) & set("<> ") or '"' in found


_SAFE_END = b"\r\n.\r\n"


def content(octets: bytes) -> None:
    """However it is cut, content ends at CRLF.CRLF and nowhere else, and the rest is given back whole."""
    cut, octets = (octets[0] % 7) + 1 if octets else 1, octets[1:]
    reader = Content(1 << 20)
    expected = b"\r\n" + octets
    end = expected.find(_SAFE_END)
    for position in range(0, len(octets), cut):
        rest = reader.feed(octets[position : position + cut])
        if rest is not None:
            rest += octets[position + cut :]
            assert end >= 0
            assert rest == expected[end + 5 :]
            message = reader.message()
            assert message is not None
            assert message.count(b"\n") == expected[2 : end + 2].count(b"\n")
            return
    assert end < 0


class _Server:
    """A real intake on a loop in a thread of its own, for as long as the process lives."""

    def __init__(self, guard: Mapping[str, Any] | None) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self._running = running(message_size=1 << 20, content_memory=4 << 20, guard=guard)
        self.house: House = self.call(self._running.__aenter__())

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)


_SERVERS: dict[bool, _Server] = {}


def server(*, guarded: bool = False) -> _Server:
    """Made when it is first asked for; a `guarded` one wants a login, `scanner` with `s3cret`."""
    if guarded not in _SERVERS:
        users = (User(name="scanner", password=Secret("env:S", "s3cret")),)
        _SERVERS[guarded] = _Server({"users": users} if guarded else None)
    return _SERVERS[guarded]


async def _talk(house: House, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(octets)
    with suppress(ConnectionError, OSError):
        writer.write_eof()
    heard = b""
    with suppress(ConnectionError):
        heard = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return heard


_REPLY = re.compile(rb"(?:[2-5][0-9]{2}[ -][\x20-\x7e]{0,509}\r\n)*")


def dialogue(octets: bytes) -> None:
    """Whatever a client says, it hears replies, no bug of ours, and each 250 to a mail is one mail in the spool."""
    _dialogue(octets, server())


def login(octets: bytes) -> None:
    """The same where a login is asked for: no mail without it."""
    heard, kept = _dialogue(octets, server(guarded=True))
    assert not kept or b"\r\n235 2.7.0 " in heard


def _dialogue(octets: bytes, at: _Server) -> tuple[bytes, int]:
    house = at.house
    before = len(house.spool.arrivals)
    heard = at.call(_talk(house, octets))
    assert _REPLY.fullmatch(heard), heard[-300:]
    assert house.intake.numbers.bugs == 0
    assert house.intake.receiving == 0
    kept = house.spool.arrivals[before:]
    assert len(kept) == heard.count(b" queued as ")
    for arrival in kept:
        assert only_crlf(arrival.content)
        assert b"\0" not in arrival.content
        for address in (arrival.sender, *arrival.recipients):
            assert address.isascii()
            assert address.isprintable()
    del house.spool.arrivals[:]
    return heard, len(kept)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "repairs": repairs,
    "rewriting": rewriting,
    "config": config,
    "webhooks": webhooks,
    "addresses": addresses,
    "content": content,
    "dialogue": dialogue,
    "login": login,
}

TOKENS: dict[str, tuple[bytes, ...]] = {
    "repairs": (
        b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0",
        b"\xe9", b"\xc3\xa9", b"\xef\xbb\xbf", b"From x\r\n", b"From: ", b"To: ",
        b"Subject: ", b"Date: x\r\n", b"Message-ID: <a@b>\r\n", b"MIME-Version: 1.0\r\n",
        b"x" * 1000, b" ", b"\t", b":",
        b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n", b"--b--\r\n", b"Content-Type: text/plain",
        b"Content-Transfer-Encoding: base64\r\n", b'"', b"\\", b"(", b")",
        b"<", b">", b";", b"=?utf-8?q?a?=", b", ",
    ),
    "config": (
        b"upstreams:\n", b"routes:\n", b"  - ", b"{from: acme.nl, via: out}",
        b"type: smtp", b"host: x", b": ", b"\n",
        b"&a", b"*a", b"<<: ", b"[", b"]", b"{", b"}",
        b'"', b"'", b"no", b"env:X", b"listen: ", b"limits: ", b"!!x ", b"|\n",
        b"sender: {address: a@b.nl, name: x}", b"dkim: ", b"pace: {per_minute: 1}",
        b"tests: ", b"\t", b"---\n", b"\xff",
    ),
    "webhooks": (
        b'[{"event": "bounce"', b'"timestamp": ', b"1e999", b"NaN",
        b"-1", b'"relay_id": "x"', b'"sg_event_id": "', b"}]",
        b"[" * 100, b"{", b"}",
        b",", b'"event": "failed"', b'"severity": "permanent"', b'"delivery-status": {"code": ',
        b'"message": "\\ud800"', b"null", b'"recipient": ',
        b'"user-variables": {"relay_id": "', b'"id": "', b"\\u0000",
    ),
    "addresses": (
        b"<", b">", b"@", b"a@b.nl", b'"', b"\\", b"(",
        b")", b",", b":", b" ", b"SIZE=1", b"NOTIFY=NEVER", b"\r", b"\n",
        b"\0", b"\xc3\xa9", b"[192.0.2.1]", b"@x,@y:", b"Naam ", b";", b".",
    ),
    "content": (b"\r\n", b".\r\n", b"\r\n.\r\n", b".", b"..", b"\r", b"\n", b"\0", b"a"),
    "dialogue": (
        b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<info@acme.nl>\r\n",
        b"RCPT TO:<a@b.nl>\r\n", b"DATA\r\n", b"\r\n.\r\n",
        b"RSET\r\n", b"NOOP\r\n", b"QUIT\r\n", b"Subject: x\r\n\r\n",
        b"MAIL FROM:<x@unknown.nl>\r\n", b"\n", b"\r", b"\0",
        b"RCPT TO:<a@b@c>\r\n", b"VRFY x\r\n", b"HELP\r\n", b" SIZE=1",
        b"\xff", b"x" * 3000, b"MAIL FROM:<>\r\n", b"<", b">",
        b"DATA x\r\n", b"\n.\n", b"\r\n.\n", b"..",
        b"From: a@acme.nl\r\n", b"BDAT 5\r\n", b"AUTH PLAIN x\r\n", b"\xe9",
    ),
}  # fmt: skip
TOKENS["rewriting"] = TOKENS["repairs"]
TOKENS["login"] = (
    *TOKENS["dialogue"],
    *(
        b"AUTH PLAIN AHNjYW5uZXIAczNjcmV0\r\n",
        b"AUTH LOGIN\r\n",
        b"c2Nhbm5lcg==\r\n",
        b"czNjcmV0\r\n",
        b"*\r\n",
        b"=\r\n",
    ),
    *(b"AUTH PLAIN\r\n", b"AHNjYW5uZXIAczNjcmV0\r\n", b"AUTH LOGIN c2Nhbm5lcg==\r\n", b"STARTTLS\r\n", b"A" * 13000),
)
