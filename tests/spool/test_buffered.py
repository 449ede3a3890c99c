"""The buffer in front of a database: nothing is lost and nothing comes twice, whenever the database goes and comes."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf

import psycopg
import pytest

from spool import buffered, draining
from spool.buffer import Buffer
from spool.contract import Backlog, SpoolFull, SpoolUnavailable, SpoolUnusable
from spool.holding import Hold, Scope
from spool.moving import move
from spool.postgres import PostgresSpool
from spool.postgres_schema import options_of
from spool.postgres_worker import Writer
from spool.view import Filter
from tests.fakes.tcp_proxy import TcpProxy
from tests.spool.engines import Buffered, Postgres, arrival, put_all, settlement
from tests.waiting import LONG, until


@pytest.fixture
def engine(tmp_path, database, monkeypatch):
    monkeypatch.setattr(buffered, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(buffered, "_STAY", 0.0)
    return Buffered(database, folder=tmp_path)


@asynccontextmanager
async def behind_a_proxy(engine: Buffered, **options: int):
    """The spool, and the proxy between it and the database."""
    port = int(engine.url.rpartition(":")[2].partition("/")[0])
    async with TcpProxy(port) as proxy:
        engine.port = proxy.port
        async with engine.spool(**options) as spool:
            yield spool, proxy


def drained(spool) -> bool:
    return spool.buffered.mails == 0 and spool.buffered.since is None


async def all_mail(spool, now: float, route: str = "acme.nl") -> list:
    """Everything that is due, leased; a lane looks again, and so do we."""
    found: list = []
    async with asyncio.timeout(LONG):
        while (taken := await spool.lease(route, 1000, now)) or not found:
            found += taken
            await asyncio.sleep(0.02)
    return found


def sql(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True, options="-c search_path=callpro_relay") as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_mail_is_taken_while_the_database_is_away_and_follows_in_its_order(engine, capture_events):
    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            mails = []
            for number in range(250):
                engine.clock.now += 1
                mail = arrival(
                    spool, engine.clock, recipients=(f"r{number}@x.nl", "b@y.nl"), peer="192.0.2.1", helo="pc\x07",
                    repairs=("date", "nul_bytes"), route=("acme.nl", "globex.nl")[number % 2],
                )  # fmt: skip
                await spool.put(mail)
                mails.append(mail)
            assert spool.buffered.mails == 250
            assert spool.buffered.since is not None
            assert spool.octets == sum(len(mail.content) for mail in mails)
            await spool.probe()
            oldest = min(mail.received_at for mail in mails if mail.route == "acme.nl")
            assert (await spool.backlog())["acme.nl"] == Backlog(125, oldest, inf)
            await proxy.listen()
            await until(lambda: drained(spool))
            assert spool.octets == sum(len(mail.content) for mail in mails)
            for route in ("acme.nl", "globex.nl"):
                taken = await all_mail(spool, engine.clock.now, route)
                assert [mail.id for mail in taken] == [mail.id for mail in mails if mail.route == route]
            with engine.view() as view:
                story = view.show(mails[7].id)
            assert (story.peer, story.helo) == ("192.0.2.1", "pc\x07")
            assert [entry.text for entry in story.entries if entry.event == "repaired"] == ["date, nul_bytes"]
            assert {line.address for line in story.mail.recipients} == {"r7@x.nl", "b@y.nl"}
            assert story.mail.received_at == mails[7].received_at

    asyncio.run(test())
    events = [event for event in capture_events() if event["event"].startswith("spool.")]
    names = [event["event"] for event in events if "buffer" in event["event"] or "drain" in event["event"]]
    assert names == ["spool.buffering", "spool.draining", "spool.buffer_drained"]
    assert [event["mails"] for event in events if event["event"] == "spool.buffer_drained"] == [250]


def test_a_database_that_says_nothing_is_not_waited_for(engine, monkeypatch):
    """What it was asked before may be done all the same: it is in both, and arrives once."""
    monkeypatch.setattr(buffered, "SLOW", 0.3)

    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.freeze()
            mails = [arrival(spool, engine.clock) for _ in range(20)]
            await put_all(spool, mails)
            assert spool.buffered.mails == 20
            await spool.put(arrival(spool, engine.clock))
            proxy.thaw()
            await until(lambda: drained(spool))
            taken = await all_mail(spool, engine.clock.now)
            assert len(taken) == 21
            assert {mail.id for mail in mails} < {mail.id for mail in taken}

    asyncio.run(test())


@pytest.mark.parametrize("done", [True, False], ids=["committed", "not committed"])
def test_a_commit_that_nobody_knows_of_makes_no_second_mail(engine, monkeypatch, done):
    """The connection broke between the commit and its answer. Another node may have sent the mail since."""
    once = [True]
    batch = Writer._write

    def doubtful(self, puts, settles, again=False):
        if puts and once:
            once.clear()
            if done:
                self._session.run(lambda connection: self._batch(connection, puts, [], False))
            self._failed(puts, settles, SpoolUnavailable("the connection is gone"))
        else:
            batch(self, puts, settles, again)

    monkeypatch.setattr(Writer, "_write", doubtful)

    async def test():
        async with engine.spool() as spool, Postgres(engine.url, engine.clock).spool() as other:
            mail = arrival(spool, engine.clock)
            before = [leased for leased in [*await other.lease("acme.nl", 9, engine.clock.now)]]
            await spool.put(mail)
            assert before == []
            await until(lambda: drained(spool))
            (taken,) = await all_mail(other, engine.clock.now)
            await other.settle(settlement(taken))
            assert (await spool.backlog(), await other.lease("acme.nl", 9, engine.clock.now + 60)) == ({}, [])

    asyncio.run(test())
    assert sql(engine.url, "SELECT count(*), sum(attempts) FROM mail") == [(1, 1)]
    assert sql(engine.url, "SELECT sum(octets) FROM tally") == [(0,)]


def test_a_mail_that_another_node_sent_meanwhile_is_left_alone(engine, monkeypatch):
    """It is in the database and in the buffer; it was sent and deferred, and then the buffer's turn comes."""

    async def test():
        held = asyncio.Event()
        forget = Buffer.forget

        async def not_yet(self, ids):
            if not held.is_set():
                raise SpoolUnavailable("killed before it could forget them")
            await forget(self, ids)

        monkeypatch.setattr(Buffer, "forget", not_yet)
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            await put_all(spool, [arrival(spool, engine.clock) for _ in range(3)])
            await proxy.listen()
            taken = await all_mail(spool, engine.clock.now)
            await spool.settle(settlement(taken[0]))
            await spool.settle(settlement(taken[1], due_at=engine.clock.now + 60))
            held.set()
            await until(lambda: drained(spool))
            await spool.settle(settlement(taken[2]))
            (later,) = await all_mail(spool, engine.clock.now + 60)
            assert (later.id, later.attempts) == (taken[1].id, 1)

    asyncio.run(test())
    assert sql(engine.url, "SELECT count(*) FROM mail") == [(3,)]


class Killed(BaseException):
    pass


def strike_at_random(monkeypatch) -> None:
    """The process may die behind each commit there, and before, in and behind each delete here."""
    chance, put_again, forget = random.Random(7), PostgresSpool.put_again, Buffer.forget

    def strike() -> None:
        if chance.random() < 0.1:
            raise Killed

    async def put_or_die(self, mail):
        await put_again(self, mail)
        strike()

    async def forget_or_die(self, ids):
        strike()
        await forget(self, ids[: chance.randrange(len(ids) + 1)])
        strike()
        await forget(self, ids)

    monkeypatch.setattr(draining, "_MAILS", 7)
    monkeypatch.setattr(PostgresSpool, "put_again", put_or_die)
    monkeypatch.setattr(Buffer, "forget", forget_or_die)


def test_a_drain_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing(engine, monkeypatch):
    strike_at_random(monkeypatch)
    mails: list = []

    async def fill():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            mails.extend(arrival(spool, engine.clock, content=bytes([n]) * n) for n in range(1, 121))
            await put_all(spool, mails)

    async def go_on() -> bool:
        async with behind_a_proxy(engine) as (spool, _):
            await until(lambda: drained(spool) or spool._tasks[-1].done())
            return drained(spool)

    asyncio.run(fill())
    starts = next(number for number in range(1, 1000) if asyncio.run(go_on()))
    assert starts > 5

    async def look(spool):
        assert spool.octets == sum(range(1, 121))
        taken = await all_mail(spool, engine.clock.now)
        assert sorted((mail.id, mail.content) for mail in taken) == sorted((one.id, one.content) for one in mails)

    Postgres(engine.url, engine.clock).run(look)


def test_a_relay_starts_without_the_database_and_joins_it_later(engine, capture_events):
    engine.run(lambda spool: spool.hold(Hold(Scope.ROUTE, "other.nl", 1.0, "jan", "")))

    async def test():
        port = int(engine.url.rpartition(":")[2].partition("/")[0])
        arrived: list[str] = []
        async with TcpProxy(port) as proxy:
            engine.port = proxy.port
            proxy.refuse()
            async with engine.spool() as spool:
                spool.on_arrival(arrived.append)
                spool.tell_about("9.9", "abc")
                await spool.put(arrival(spool, engine.clock))
                await spool.probe()
                assert await spool.lease("acme.nl", 9, engine.clock.now) == []
                assert await spool.next_due("acme.nl") is None
                assert await spool.spent(0) == []
                assert await spool.reroute(lambda _: "x") == 0
                assert not spool.held.all()
                with pytest.raises(SpoolUnavailable, match="was not reached since the start"):
                    await spool.drop(Filter(), "", 0.0)
                await proxy.listen()
                await until(lambda: drained(spool))
                assert spool.held.route("other.nl")
                await until(lambda: "acme.nl" in arrived)
                assert len(await all_mail(spool, engine.clock.now)) == 1
                assert sql(engine.url, "SELECT version FROM node") is not None

    asyncio.run(test())
    told = [event for event in capture_events() if event["event"] == "spool.buffering"]
    assert len(told) == 1
    assert "refused" in told[0]["why"]


def test_a_database_of_no_use_is_an_error_at_the_start_and_a_wait_later(engine, capture_events):
    async def nothing(spool):
        """Make the tables."""

    engine.run(nothing)
    ((version, oldest),) = sql(engine.url, "SELECT version, oldest FROM format")
    sql(engine.url, "UPDATE format SET version = 900, oldest = 900")
    with pytest.raises(SpoolUnusable, match="install the newer version"):
        engine.run(nothing)

    async def test():
        port = int(engine.url.rpartition(":")[2].partition("/")[0])
        async with TcpProxy(port) as proxy:
            engine.port = proxy.port
            proxy.refuse()
            async with engine.spool() as spool:
                await proxy.listen()
                await spool.put(arrival(spool, engine.clock))
                await until(lambda: any("install the newer" in str(e.get("why")) for e in capture_events()))
                await asyncio.sleep(0.5)
                assert spool.buffered.mails == 1
                mended = f"UPDATE format SET version = {version}, oldest = {oldest}"
                await asyncio.to_thread(sql, engine.url, mended)
                await until(lambda: drained(spool))

    asyncio.run(test())
    told = [e for e in capture_events() if "install the newer" in str(e.get("why"))]
    assert [e["event"] for e in told] == ["spool.buffering"]


def test_a_full_buffer_says_so(engine):
    async def test():
        async with behind_a_proxy(engine, size_limit=10_000) as (spool, proxy):
            proxy.refuse()
            await spool.put(arrival(spool, engine.clock, content=b"x" * 9_500))
            with pytest.raises(SpoolFull):
                await spool.put(arrival(spool, engine.clock, content=b"x" * 600))
            with pytest.raises(SpoolFull):
                await spool.probe()
            await proxy.listen()
            await until(lambda: drained(spool))

    asyncio.run(test())


def test_a_full_database_keeps_the_buffers_mail_where_it_is(engine, capture_events):
    async def test():
        async with behind_a_proxy(engine, size_limit=10_000) as (spool, proxy):
            await spool.put(arrival(spool, engine.clock, content=b"x" * 6_000))
            proxy.refuse()
            await spool.put(arrival(spool, engine.clock))
            await spool.put(arrival(spool, engine.clock, content=b"x" * 6_000))
            await proxy.listen()
            await until(lambda: any(event["event"] == "spool.drain_waits" for event in capture_events()))
            for mail in await all_mail(spool, engine.clock.now):
                await spool.settle(settlement(mail))
            await until(lambda: drained(spool))
            assert len(await all_mail(spool, engine.clock.now)) == 1

    asyncio.run(test())
    assert sum(event["event"] == "spool.drain_waits" for event in capture_events()) == 1


def test_a_mail_that_the_database_cannot_keep_holds_up_no_other(engine, capture_events):
    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            bad = arrival(spool, engine.clock, peer="a\0b")
            for mail in (arrival(spool, engine.clock), bad, arrival(spool, engine.clock)):
                await spool.put(mail)
            await proxy.listen()
            await until(lambda: spool.buffered.mails == 1)
            assert len(await all_mail(spool, engine.clock.now)) == 2
            await spool.put(arrival(spool, engine.clock))
            assert len(await all_mail(spool, engine.clock.now)) == 1
            await asyncio.sleep(0.3)

    asyncio.run(test())
    assert sum(event["event"] == "spool.mail_not_moved" for event in capture_events()) == 1


def test_a_number_that_another_mail_has_is_changed(engine, capture_events):
    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            first = arrival(spool, engine.clock, sender="first@acme.nl")
            await spool.put(first)
            proxy.refuse()
            await spool.put(replace(first, sender="second@acme.nl", received_at=first.received_at + 0.0001))
            await proxy.listen()
            await until(lambda: drained(spool))
            taken = await all_mail(spool, engine.clock.now + 1)
            assert sorted(mail.sender for mail in taken) == ["first@acme.nl", "second@acme.nl"]

    asyncio.run(test())
    assert sum(event["event"] == "spool.renumbered" for event in capture_events()) == 1


def test_numbers_of_the_buffer_are_no_nodes_and_rise(engine):
    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            nodes = [spool.next_id() for _ in range(50)]
            proxy.refuse()
            await spool.put(arrival(spool, engine.clock))
            mine = [spool.next_id() for _ in range(50)]
            assert mine == sorted(set(mine))
            assert not any(number >> 20 & 1 for number in nodes)
            assert all(number >> 20 & 1 for number in mine)

    asyncio.run(test())


def test_a_mail_whose_client_went_away_in_the_middle_follows_too(engine):
    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            await spool.put(arrival(spool, engine.clock))
            gone = asyncio.create_task(spool.put(arrival(spool, engine.clock)))
            await asyncio.sleep(0)
            gone.cancel()
            await until(lambda: spool.buffered.mails == 2)
            await proxy.listen()
            await until(lambda: drained(spool))
            assert len(await all_mail(spool, engine.clock.now)) == 2

    asyncio.run(test())


async def leave_five_in_the_buffer(engine):
    async with behind_a_proxy(engine) as (spool, proxy):
        proxy.refuse()
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(5)])


def test_what_an_earlier_relay_left_in_the_buffer_goes_at_the_start(engine):
    async def look(spool):
        await until(lambda: drained(spool))
        assert len(await all_mail(spool, engine.clock.now)) == 5

    asyncio.run(leave_five_in_the_buffer(engine))
    engine.port = None
    engine.run(look)


def test_a_buffer_can_be_emptied_by_hand(engine):
    """As `spool move` does it, with the relay stopped."""

    async def look(spool):
        assert spool.buffered.mails == 0
        assert len(await all_mail(spool, engine.clock.now)) == 5

    asyncio.run(leave_five_in_the_buffer(engine))
    engine.port = None
    assert move(engine.file, options_of(engine.url), lambda *_: None) == 5
    engine.run(look)


def test_mail_comes_in_while_the_buffer_drains(engine, monkeypatch):
    monkeypatch.setattr(draining, "_MAILS", 5)

    async def test():
        async with behind_a_proxy(engine) as (spool, proxy):
            proxy.refuse()
            await put_all(spool, [arrival(spool, engine.clock) for _ in range(200)])
            await proxy.listen()
            await until(lambda: spool.buffered.since is None)
            await put_all(spool, [arrival(spool, engine.clock) for _ in range(50)])
            proxy.refuse()
            await put_all(spool, [arrival(spool, engine.clock) for _ in range(50)])
            await proxy.listen()
            await until(lambda: drained(spool))
            assert len({mail.id for mail in await all_mail(spool, engine.clock.now)}) == 300

    asyncio.run(test())
