"""Events over real sockets: signed by keys of the test's own, through the listener, onto the timeline."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.credentials import Secret
from config.rules import Place, Route, RouteSettings, Rules, UpstreamRule
from ops.webhook_listener import BODIES, BODY_LIMIT, CONNECTIONS, WebhookListener
from ops.webhooks import WebhookDesk
from spool.contract import Arrival, Spool, id_number, id_text
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import TimelineEntry
from tests.fakes.webhooks import MailgunWebhook, SendGridWebhook, post, say, status
from upstreams import KINDS

SENDGRID, MAILGUN = "/webhooks/our-sendgrid", "/webhooks/our-mailgun"
HERE = Place("routes.yaml", 1)


@dataclass
class Room:
    """A listener, its spool, and the two providers."""

    listener: WebhookListener
    spool: Spool
    url: str
    sendgrid: SendGridWebhook
    mailgun: MailgunWebhook

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def numbers(self):
        return self.listener.desk.numbers

    async def mail(self, route: str = "acme.nl") -> str:
        """A mail that waits on the route; its id as people see it."""
        number, people = self.spool.next_id(), ("jan@example.org",)
        await self.spool.put(Arrival(number, f"info@{route}", people, b"geheim\r\n", route, 1.7e9, "127.0.0.1", "x"))
        await self.spool.backlog()  # asked for, it can be seen from outside
        return id_text(number)

    def told(self, mail: str) -> list[TimelineEntry]:
        view = SqliteView(self.url)
        try:
            story = view.show(id_number(mail))
            return [entry for entry in story.entries if entry.recipient is not None]
        finally:
            view.close()


def rules(sendgrid: SendGridWebhook, mailgun: MailgunWebhook) -> Rules:
    words = {
        "our-sendgrid": ("sendgrid", {"api_key": Secret("env:A", "SG.k"), "webhook_key": sendgrid.key}),
        "no-key": ("sendgrid", {"api_key": Secret("env:A", "SG.k")}),
        "our-mailgun": (
            "mailgun",
            {
                "domain": "mg.callcenter.nl",
                "api_key": Secret("env:B", "k"),
                "webhook_signing_key": Secret("env:C", mailgun.key),
            },
        ),
        "our-server": ("smtp", {"host": "mail.callcenter.nl"}),
    }
    upstreams = {
        name: UpstreamRule(name, kind, KINDS[kind].settings(**settings), HERE)
        for name, (kind, settings) in words.items()
    }
    ways = {"acme.nl": ("our-server", "our-sendgrid"), "globex.nl": ("our-mailgun",)}
    routes = tuple(Route(name, RouteSettings(from_=(name,), via=via), HERE) for name, via in ways.items())
    return Rules(upstreams, routes, ())


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def running(test: Callable[[Room], Awaitable[None]], **options: float) -> None:
        async def opened() -> None:
            url = f"sqlite:///{tmp_path}/spool.db"
            spool = await SqliteSpool.open(url, size_limit=1 << 30)
            sendgrid, mailgun = SendGridWebhook(), MailgunWebhook()
            desk = WebhookDesk(spool, KINDS, rules(sendgrid, mailgun))
            listener = WebhookListener(desk, "127.0.0.1:0", **options)
            await listener.start()
            try:
                await test(Room(listener, spool, url, sendgrid, mailgun))
            finally:
                await listener.stop()
                await spool.close()

        asyncio.run(opened())

    return running


def test_a_batch_of_sendgrids_lands_on_each_mails_timeline(run, caplog):
    caplog.set_level("INFO", "webhooks")

    async def test(room: Room) -> None:
        mails = [await room.mail() for _ in range(3)]
        event = room.sendgrid.event
        batch = [
            event("processed", mails[0]),
            event("deferred", mails[0], response="451 4.7.1 busy", timestamp=1_700_000_010),
            event("delivered", mails[0], response="250 OK", timestamp=1_700_000_020),
            event("bounce", mails[1], reason="550 5.1.1 no such user", type="bounce"),
            event("spamreport", mails[2], subject="geheim"),
            event("delivered", ""),
        ]
        assert await post(room.port, SENDGRID, *room.sendgrid.signed(batch)) == 200
        assert [(entry.event, entry.text, entry.at) for entry in room.told(mails[0])] == [
            ("deferred", "451 4.7.1 busy", 1_700_000_010),
            ("delivered", "250 OK", 1_700_000_020),
        ]
        (bounced,) = room.told(mails[1])
        assert (bounced.recipient, bounced.upstream) == ("jan@example.org", "our-sendgrid")
        assert [entry.event for entry in room.told(mails[2])] == ["complained"]
        assert room.numbers.told == {
            ("acme.nl", "deferred"): 1, ("acme.nl", "delivered"): 1, ("acme.nl", "bounced"): 1,
            ("acme.nl", "complained"): 1,
        }  # fmt: skip
        assert (room.numbers.ignored, room.numbers.unknown) == ({"our-sendgrid": 1}, {"our-sendgrid": 1})

    run(test)
    lines = {record.message: record.fields for record in caplog.records}
    assert lines["provider_bounced"]["reply"] == "550 5.1.1 no such user"
    assert lines["provider_bounced"]["route"] == "acme.nl"
    assert "geheim" not in str(lines)


def test_mailguns_events_land_too(run):
    async def test(room: Room) -> None:
        mail = await room.mail("globex.nl")
        status = {"code": 550, "message": "5.1.1 no such user"}
        bounce = room.mailgun.event("failed", mail, severity="permanent", **{"delivery-status": status})
        assert await post(room.port, MAILGUN, *room.mailgun.signed(bounce)) == 200
        assert [(entry.event, entry.text) for entry in room.told(mail)] == [("bounced", "550 5.1.1 no such user")]
        assert await post(room.port, MAILGUN, *room.mailgun.signed(room.mailgun.event("opened", mail))) == 200
        assert (room.numbers.told, room.numbers.ignored) == ({("globex.nl", "bounced"): 1}, {"our-mailgun": 1})

    run(test)


def test_what_is_not_signed_or_signed_wrongly_changes_nothing(run):
    async def test(room: Room) -> None:
        mail = await room.mail()
        said = [room.sendgrid.event("bounce", mail)]
        headers, body = room.sendgrid.signed(said)
        assert await post(room.port, SENDGRID, {}, body) == 401
        assert await post(room.port, SENDGRID, headers, body.replace(b"bounce", b"deferred")) == 401
        assert await post(room.port, SENDGRID, *SendGridWebhook().signed(said)) == 401
        assert await post(room.port, SENDGRID, *room.sendgrid.signed(said, at=1_700_000_000)) == 403
        assert await post(room.port, MAILGUN, headers, body) == 406

        theirs = await room.mail("globex.nl")
        news = room.mailgun.event("complained", theirs)
        assert await post(room.port, MAILGUN, *MailgunWebhook("guessed").signed(news)) == 401
        assert await post(room.port, MAILGUN, *room.mailgun.signed(news, at=1_700_000_000)) == 406
        assert await post(room.port, MAILGUN, {}, json.dumps({"event-data": news}).encode()) == 401
        assert await post(room.port, MAILGUN, {}, b"") == 406
        assert room.told(mail) == room.told(theirs) == []
        assert room.numbers.refused.total() == 9
        assert room.numbers.refused["our-sendgrid", "wrong signature"] == 2

    run(test)


def test_a_token_of_mailguns_cannot_be_used_for_another_story(run):
    async def test(room: Room) -> None:
        mail, seal = await room.mail("globex.nl"), room.mailgun.seal()
        true = room.mailgun.signed(room.mailgun.event("delivered", mail), seal=seal)
        forged = room.mailgun.signed(room.mailgun.event("complained", mail), seal=seal)
        assert await post(room.port, MAILGUN, *true) == 200
        assert await post(room.port, MAILGUN, *true) == 406
        assert await post(room.port, MAILGUN, *forged) == 406
        assert [entry.event for entry in room.told(mail)] == ["delivered"]

    run(test)


def test_a_request_that_comes_many_times_at_once_counts_once(run):
    async def test(room: Room) -> None:
        mail, other = await room.mail(), await room.mail("globex.nl")
        grid = room.sendgrid.signed([room.sendgrid.event("bounce", mail)])
        gun = room.mailgun.signed(room.mailgun.event("complained", other))
        both = ((SENDGRID, grid), (MAILGUN, gun))
        asked = [post(room.port, path, *signed) for _ in range(30) for path, signed in both]
        answers = await asyncio.gather(*asked)
        assert sorted(answers[0::2]) == [200] + [208] * 29
        assert sorted(answers[1::2]) == [200] + [406] * 29
        assert (len(room.told(mail)), len(room.told(other))) == (1, 1)
        # The same event in another request: SendGrid's batches overlap when it tries again.
        event = json.loads(grid[1])[0]
        late = [event, room.sendgrid.event("spamreport", mail)]
        assert await post(room.port, SENDGRID, *room.sendgrid.signed(late)) == 200
        assert [entry.event for entry in room.told(mail)] == ["bounced", "complained"]
        assert room.numbers.known == {"our-sendgrid": 1}
        assert room.numbers.told["acme.nl", "bounced"] == 1

    run(test)


def test_nobody_tells_of_another_customers_mail(run):
    async def test(room: Room) -> None:
        theirs = await room.mail("globex.nl")
        signed = room.sendgrid.signed([room.sendgrid.event("bounce", theirs)])
        assert await post(room.port, SENDGRID, *signed) == 200
        assert room.told(theirs) == []
        assert (room.numbers.unknown, room.numbers.told) == ({"our-sendgrid": 1}, {})

    run(test)


def test_what_the_spool_cannot_take_comes_again(run):
    async def test(room: Room) -> None:
        mail = await room.mail("globex.nl")
        signed = room.mailgun.signed(room.mailgun.event("complained", mail))
        database = Path(room.url.removeprefix("sqlite:///"))
        database.rename(database.with_name("moved.db"))
        assert await post(room.port, MAILGUN, *signed) == 503
        database.with_name("moved.db").rename(database)
        assert await post(room.port, MAILGUN, *signed) == 200
        assert [entry.event for entry in room.told(mail)] == ["complained"]

    run(test)


@pytest.mark.parametrize(
    "path",
    ["/", "/webhooks/", "/webhooks/no-key", "/webhooks/our-server", f"{SENDGRID}/", f"{SENDGRID}?x=1", "our-sendgrid"],
)
def test_there_is_one_path_for_an_upstream_with_a_key(run, path):
    async def test(room: Room) -> None:
        signed = room.sendgrid.signed([])
        assert await post(room.port, path, *signed) == 404
        assert await post(room.port, SENDGRID, *signed) == 200

    run(test)


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "OPTIONS"])
def test_only_a_post_is_taken(run, method):
    async def test(room: Room) -> None:
        headers, body = room.sendgrid.signed([])
        assert await post(room.port, SENDGRID, headers, body, method) == 405

    run(test)


def test_a_body_is_taken_up_to_its_limit(run):
    async def test(room: Room) -> None:
        mail = await room.mail()
        said = json.dumps([room.sendgrid.event("bounce", mail)]).encode()
        full = room.sendgrid.signed_octets(said + b" " * (BODY_LIMIT - len(said)))
        assert await post(room.port, SENDGRID, *full) == 200
        assert await post(room.port, SENDGRID, *room.sendgrid.signed_octets(full[1] + b" ")) == 413
        # One that does not say its length is stopped at the limit too, and one that lies is not waited for.
        chunked = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        head = f"POST {SENDGRID} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        assert status(await say(room.port, head + chunked * 18)) == 413
        huge = f"POST {SENDGRID} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode()
        assert status(await say(room.port, huge)) == 413

    run(test)


def test_a_body_may_come_in_chunks_and_wait_to_be_asked_for(run):
    async def test(room: Room) -> None:
        mail = await room.mail()
        headers, body = room.sendgrid.signed([room.sendgrid.event("bounce", mail)])
        fields = headers | {"Host": "x", "Transfer-Encoding": "chunked", "Expect": "100-continue"}
        head = f"POST {SENDGRID} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(head.encode() + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        for start in range(0, len(body), 50):
            part = body[start : start + 50]
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        writer.write(b"0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert status(answer) == 200
        assert answer.endswith(b"\r\n\r\n")  # a status, and not a word more
        assert len(room.told(mail)) == 1

    run(test)


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO relay.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST /webhooks/our-sendgrid HTTP/1.1\r\n\r\n",
        b"POST /webhooks/our-sendgrid HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /webhooks/our-sendgrid HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /webhooks/our-sendgrid HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000,
    ],
)
def test_what_is_no_http_is_refused_and_the_next_is_served(run, octets, caplog):
    async def test(room: Room) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(octets)
        writer.write_eof()
        assert 400 <= status(await asyncio.wait_for(reader.read(), 60)) < 500
        writer.close()
        assert await post(room.port, SENDGRID, *room.sendgrid.signed([])) == 200

    run(test)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "octets", [b"", b"POST ", b"POST /webhooks/our-sendgrid HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"]
)
def test_a_client_that_hangs_up_is_no_bug(run, octets, caplog):
    async def test(room: Room) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(octets)
        await asyncio.sleep(0.05)
        hard = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
        writer.transport.abort()
        assert await post(room.port, SENDGRID, *room.sendgrid.signed([])) == 200

    run(test)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def slow_request() -> bytes:
    return f"POST {SENDGRID} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[".encode()


def test_too_many_clients_are_told_to_come_back_and_slow_ones_are_sent_away(run):
    async def test(room: Room) -> None:
        slow = [await asyncio.open_connection("127.0.0.1", room.port) for _ in range(CONNECTIONS)]
        for _, writer in slow[::2]:
            writer.write(slow_request())
        headers, body = room.sendgrid.signed([])
        assert await post(room.port, SENDGRID, headers, body) == 503
        for reader, _ in slow:
            assert await asyncio.wait_for(reader.read(), 60) == b""
        assert await post(room.port, SENDGRID, headers, body) == 200
        assert room.numbers.refused["", "too slow"] == CONNECTIONS
        for _, writer in slow:
            writer.close()

    run(test, seconds=1.0)


def test_bodies_wait_their_turn(run):
    async def test(room: Room) -> None:
        slow = [await asyncio.open_connection("127.0.0.1", room.port) for _ in range(BODIES)]
        for _, writer in slow:
            writer.write(slow_request())
        while not room.listener._bodies.locked():  # all their heads are read
            await asyncio.sleep(0)
        waits = asyncio.create_task(post(room.port, SENDGRID, *room.sendgrid.signed([])))
        done, _ = await asyncio.wait({waits}, timeout=0.1)
        assert not done
        slow[0][1].close()
        assert await waits == 200
        for _, writer in slow:
            writer.close()

    run(test)


def test_new_rules_count_from_the_next_request(run):
    async def test(room: Room) -> None:
        mail, renewed = await room.mail(), SendGridWebhook()
        said = [room.sendgrid.event("bounce", mail)]
        room.listener.desk.replace(rules(renewed, room.mailgun))
        assert await post(room.port, SENDGRID, *room.sendgrid.signed(said)) == 401
        assert await post(room.port, SENDGRID, *renewed.signed(said)) == 200
        room.listener.desk.replace(Rules({}, (), ()))
        assert await post(room.port, SENDGRID, *renewed.signed(said)) == 404

    run(test)


def test_refusals_do_not_fill_the_log(run, caplog):
    async def test(room: Room) -> None:
        for _ in range(20):
            assert await post(room.port, SENDGRID, {}, b"[]") == 401
        assert room.numbers.refused == {("our-sendgrid", "not signed"): 20}

    run(test)
    assert len([record for record in caplog.records if record.message == "webhook_refused"]) == 1


def test_an_address_that_cannot_be_had_is_named(run):
    async def test(room: Room) -> None:
        second = WebhookListener(room.listener.desk, f"127.0.0.1:{room.port}")
        with pytest.raises(OSError, match=f"127.0.0.1:{room.port} for webhooks"):
            await second.start()
        await second.stop()

    run(test)


def test_a_stop_ends_what_is_under_way(run):
    async def test(room: Room) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write(slow_request())
        await asyncio.sleep(0.05)
        await room.listener.stop()
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()

    run(test)
