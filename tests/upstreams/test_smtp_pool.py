"""Kept connections: counted at the server, never shared between routes or logins, gone when they should be."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from config.credentials import Secret
from routing.outcome import Word
from tests.fakes.smtp import CUT, STALL, FakeSmtp
from tests.upstreams.smtp_kit import mail, ours, secured, upstream, with_login
from tests.waiting import until
from upstreams.smtp import SmtpUpstream
from upstreams.smtp_login import PasswordLogin
from upstreams.smtp_pool import SmtpLimits
from upstreams.smtp_replies import SMTP_REPLIES
from upstreams.smtp_session import SmtpWay


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    """Both event loops that the relay may run on."""
    return request.param


def test_one_connection_and_one_login_for_many_mails(run, authority):
    async def go():
        async with (
            secured(authority.server_context()) as server,
            upstream(server, tls="starttls", **with_login()) as way,
        ):
            for number in range(20):
                assert (await way.send(mail(id=str(number))))["b@x.nl"].word is Word.SENT
        return server

    server = run(go())
    assert (server.connections, len(server.logins), len(server.received)) == (1, 1, 20)
    assert server.commands[-1] == "QUIT"


def test_two_logins_on_one_host_never_cross(run, authority):
    """Two customers with an upstream each, and mail at the same time."""
    users = {f"u{n}@klant{n}.nl": f"pass-{n}" for n in (1, 2)}

    async def go():
        server = FakeSmtp(starttls=authority.server_context(), users=users)
        async with server:
            logins = [{"username": user, "password": Secret("env:X", password)} for user, password in users.items()]
            async with (
                upstream(server, tls="starttls", **logins[0]) as one,
                upstream(server, tls="starttls", **logins[1]) as two,
            ):
                for _ in range(5):
                    await asyncio.gather(
                        *(one.send(mail(sender="a@klant1.nl", route="klant1.nl")) for _ in range(3)),
                        *(two.send(mail(sender="a@klant2.nl", route="klant2.nl")) for _ in range(3)),
                    )
        return server

    server = run(go())
    assert len(server.received) == 30
    assert all(got.user == f"u{got.sender[-4]}@{got.sender[2:]}" for got in server.received)


def test_two_logins_within_one_upstream_never_cross(authority):
    """A kind that chooses its login by sender: same host, same route, still a connection each."""
    users = {"a@acme.nl": "one", "b@acme.nl": "two"}

    async def go():
        server = FakeSmtp(starttls=authority.server_context(), users=users)
        async with server:

            def way_for(sender: str) -> SmtpWay:
                login = PasswordLogin(sender, Secret("env:X", users.get(sender, "")))
                return SmtpWay(server.host, server.port, "starttls", login)

            way = SmtpUpstream("acme", ours(), way_for, SmtpLimits(), SMTP_REPLIES)
            for sender in ("a@acme.nl", "b@acme.nl") * 3:
                await way.send(mail(sender=sender))
            await way.close()
        return server

    server = asyncio.run(go())
    assert [got.user for got in server.received] == ["a@acme.nl", "b@acme.nl"] * 3
    assert server.connections == 2


def test_routes_do_not_share_a_connection(run):
    async def go():
        async with FakeSmtp() as server, upstream(server) as way:
            for route in ("acme.nl", "globex.nl", "acme.nl", "globex.nl"):
                await way.send(mail(route=route))
        return server

    server = run(go())
    assert [got.connection for got in server.received] == [1, 2, 1, 2]


def test_connections_stay_within_the_cap_over_all_routes():
    async def go():
        async with FakeSmtp() as server, upstream(server, connections=2) as way:
            for route in ("a.nl", "b.nl", "c.nl", "d.nl"):
                await way.send(mail(route=route))
                await until(lambda: server.open_connections <= 2)
            await way.send(mail(route="c.nl"))
        return server

    server = asyncio.run(go())
    assert server.connections == 4, "c.nl's was among the two kept"
    assert server.commands.count("QUIT") == 4


def test_mails_per_connection(run):
    async def go():
        async with FakeSmtp() as server, upstream(server, messages_per_connection=3) as way:
            for _ in range(7):
                await way.send(mail())
        return server

    server = run(go())
    assert [got.connection for got in server.received] == [1, 1, 1, 2, 2, 2, 3]


def test_idle_connections_take_leave(run):
    async def go():
        async with FakeSmtp() as server, upstream(server, connection_idle=0.05) as way:
            await way.send(mail())
            await until(lambda: "QUIT" in server.commands and not server.open_connections)
            await way.send(mail())
        return server

    assert run(go()).connections == 2


def test_old_connections_are_not_used_again():
    async def go():
        async with FakeSmtp() as server, upstream(server, connection_age=0.01) as way:
            for _ in range(2):
                await way.send(mail())
                await asyncio.sleep(0.02)
        return server

    assert asyncio.run(go()).connections == 2


@pytest.mark.parametrize("farewell", [None, "421 4.4.2 idle too long"])
def test_connection_that_died_while_idle(run, farewell):
    async def go():
        async with FakeSmtp() as server, upstream(server) as way:
            await way.send(mail())
            await server.hang_up(farewell)
            return server, await way.send(mail(id="2"))

    server, results = run(go())
    assert results["b@x.nl"].word is Word.SENT
    assert (server.connections, len(server.received)) == (2, 2)


@pytest.mark.parametrize("what", [CUT, "421 4.4.2 you were too slow"])
def test_kept_connection_that_dies_at_mail_is_replaced_once(run, what):
    async def go():
        async with FakeSmtp() as server, upstream(server) as way:
            await way.send(mail())
            server.script({"MAIL": [what]})
            healed = await way.send(mail(id="2"))
            server.script({"MAIL": what})
            return server, healed, await way.send(mail(id="3"))

    server, healed, given_up = run(go())
    assert healed["b@x.nl"].word is Word.SENT
    assert given_up["b@x.nl"].word is Word.RETRY
    assert server.connections == 3, "the second, and one more for the third mail"


def test_new_connection_that_dies_at_mail_is_not_replaced(run):
    async def go():
        async with FakeSmtp(replies={"MAIL": [CUT]}) as server, upstream(server) as way:
            return server, await way.send(mail())

    server, results = run(go())
    assert results["b@x.nl"].word is Word.RETRY
    assert server.connections == 1


@pytest.mark.parametrize("step", ["CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "CONTENT", "."])
def test_cancelled_send_leaves_no_connection(run, authority, step):
    """At whatever step: the connection is closed, and the next mail gets a new one."""

    async def go():
        server = secured(authority.server_context(), replies={step: [STALL]})
        async with server, upstream(server, tls="starttls", connections=1, **with_login()) as way:
            task = asyncio.create_task(way.send(mail()))
            await until(lambda: server.stalled)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not server.open_connections)
            results = await way.send(mail(id="2"))
            return server, results, way._pool._busy

    server, results, busy = run(go())
    assert results["b@x.nl"].word is Word.SENT
    assert (server.connections, busy, [got.connection for got in server.received]) == (2, 0, [2])


@pytest.mark.parametrize("what", [CUT, STALL, "500 5.5.2 what", "421 4.3.2 bye"])
def test_trouble_at_quit_is_nobodys_business(run, what):
    async def go():
        async with FakeSmtp(replies={"QUIT": what}) as server, upstream(server) as way:
            return await way.send(mail())

    assert run(go())["b@x.nl"].word is Word.SENT
