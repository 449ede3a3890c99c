"""Several nodes on one database: who has which mail, what one hears of the other, and what the death of one means."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from math import inf

import psycopg
import pytest

from spool import opening, postgres, postgres_node, postgres_schema
from spool import postgres_statements as statements
from spool.contract import SpoolUnavailable, SpoolUnusable
from spool.holding import Hold, Scope
from spool.postgres import PostgresSpool
from spool.postgres_view import PostgresView
from spool.postgres_worker import Session
from spool.view import Filter
from tests.fakes.relay_process import ROOT
from tests.spool.engines import RETRY, arrival, put_all, settlement
from tests.waiting import until


class Clock:
    """The real one."""

    @property
    def now(self) -> float:
        return time.time()


CLOCK = Clock()


@asynccontextmanager
async def nodes(url: str, count: int, *, lease: float = 30.0, size_limit: int = 1 << 30):
    opened = [await PostgresSpool.open(url, size_limit=size_limit, lease=lease) for _ in range(count)]
    try:
        yield opened
    finally:
        for spool in opened:
            await spool.close()


async def fall_silent(spool: PostgresSpool) -> None:
    """As if its machine had stopped a lease ago: no sign of life any more, and nothing is given back."""
    pulse = spool._pulse
    pulse._stopping = True
    os.eventfd_write(pulse._bell, 1)
    await asyncio.to_thread(pulse._thread.join)
    pulse._connected().execute("UPDATE node SET seen_at = seen_at - lease WHERE id = %s", (spool._identity.node,))


def declare_dead(url: str, spool: PostgresSpool) -> None:
    """As the others do it a lease after its last sign of life; it does not know yet."""
    with postgres_schema.connect(postgres_schema.options_of(url)) as connection, connection.transaction():
        postgres_node.bury(connection, [spool._identity.node])


def sql(url: str, statement: str, *values: object) -> list[tuple]:
    with psycopg.connect(url, autocommit=True, options="-c search_path=callpro_relay") as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def test_nodes_share_the_mail_and_never_one_mail(database):
    async def test():
        async with nodes(database, 3) as spools:
            for spool in spools:
                await put_all(spool, [arrival(spool, CLOCK) for _ in range(40)])
            taken = await asyncio.gather(*(s.lease("acme.nl", 7, CLOCK.now) for s in spools * 8))
            ids = [mail.id for some in taken for mail in some]
            assert len(ids) == len(set(ids)) == 120
            for spool, mails in zip(spools * 8, taken, strict=True):
                await asyncio.gather(*(spool.settle(settlement(mail)) for mail in mails))
            assert await spools[0].backlog() == {}

    asyncio.run(test())
    assert sql(database, "SELECT count(*), sum(octets)::bigint FROM waiting, tally")[0][0] == 0
    assert sql(database, "SELECT sum(octets)::bigint FROM tally") == [(0,)]


def test_nodes_number_their_mail_apart(database):
    async def test():
        async with nodes(database, 3) as spools:
            numbers = [spool.next_id() for _ in range(3000) for spool in spools]
            assert len(set(numbers)) == len(numbers)

    asyncio.run(test())


def test_mail_wakes_the_other_nodes_before_they_would_look(database, monkeypatch):
    monkeypatch.setattr(postgres_node, "_LONGEST_BEAT", 600.0)

    async def test():
        async with nodes(database, 2, lease=3000.0) as (one, other):
            heard = asyncio.Event()
            other.on_arrival(lambda route: heard.set())
            await one.put(arrival(one, CLOCK))
            await asyncio.wait_for(heard.wait(), 30)

    asyncio.run(test())


def test_a_node_lives_on_however_many_descriptors_are_open(database, monkeypatch):
    """A thousand clients are connected when the database comes back: select(2) knows no descriptor above 1023."""
    monkeypatch.setattr(postgres_node, "_LONGEST_BEAT", 600.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this machine lets nobody have so many")

    async def test():
        async with nodes(database, 2, lease=3000.0) as (one, other):
            assert other._pulse._connected().fileno() > 1023
            heard = asyncio.Event()
            other.on_arrival(lambda route: heard.set())
            await one.put(arrival(one, CLOCK))
            await asyncio.wait_for(heard.wait(), 30)

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    clients = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        asyncio.run(test())
    finally:
        for client in clients:
            os.close(client)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_a_silent_node_had_taken_goes_to_the_others(database):
    async def test():
        async with nodes(database, 2, lease=4.0) as (one, other):
            await put_all(one, [arrival(one, CLOCK) for _ in range(5)])
            mails = await one.lease("acme.nl", 3, CLOCK.now)
            assert all(one.ours(mail) for mail in mails)
            assert len(await other.lease("acme.nl", 9, CLOCK.now)) == 2
            told: list[str] = []
            other.on_arrival(told.append)
            await fall_silent(one)

            async def passed() -> bool:
                return "acme.nl" in told and len(await other.lease("acme.nl", 9, CLOCK.now)) == 3

            await until(passed)
            await until(lambda: not any(one.ours(mail) for mail in mails), "it knows by itself, without the database")
            assert await one.lease("acme.nl", 9, CLOCK.now) == []

    asyncio.run(test())


def test_what_a_node_did_not_dare_to_send_comes_again_when_it_lives_on(database):
    """It gave no sign of life for longer than its lease, and nobody has declared it dead: its leases hold on."""

    async def test():
        async with nodes(database, 1, lease=1.0) as (one,):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            mails, sending = await one.lease("acme.nl", 2, CLOCK.now), await one.lease("acme.nl", 1, CLOCK.now)
            told: list[str] = []
            one.on_arrival(told.append)
            with psycopg.connect(database) as locking:
                locking.execute("LOCK TABLE callpro_relay.node")
                await until(lambda: not one._identity.sure, "nobody may believe in its leases")
                assert not any(one.ours(mail) for mail in mails)
            await until(lambda: "acme.nl" in told)
            assert one.ours(sending[0])
            assert {mail.id for mail in await one.lease("acme.nl", 9, CLOCK.now)} == {mail.id for mail in mails}

    asyncio.run(test())


def test_a_sign_of_life_that_took_long_says_nothing_of_the_clocks(database, capture_events):
    async def test():
        async with nodes(database, 1, lease=2.0) as (one,):
            seen = one._identity.sure_until
            with psycopg.connect(database) as locking:
                locking.execute("LOCK TABLE callpro_relay.node")
                await asyncio.sleep(3.0)
            await until(lambda: one._identity.sure_until > seen + 2.0)
            await asyncio.sleep(0)
            assert not [event for event in capture_events() if event["event"] == "spool.clock_skew"]

    asyncio.run(test())


def test_a_mail_that_is_being_sent_is_not_leased_by_the_same_process_again(database, capture_events):
    """It was declared dead, begins anew, and finds the mail free that it still has under way."""

    async def test():
        async with nodes(database, 1, lease=1.0) as (one,):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            sending, kept = await one.lease("acme.nl", 1, CLOCK.now), await one.lease("acme.nl", 2, CLOCK.now)
            assert one.ours(sending[0])
            declare_dead(database, one)
            await until(lambda: any(event["event"] == "spool.declared_dead" for event in capture_events()))
            assert await one.lease("acme.nl", 9, CLOCK.now) == []
            assert not any(one.ours(mail) for mail in kept), "another node may have sent them"
            again = await one.lease("acme.nl", 9, CLOCK.now)
            assert {mail.id for mail in again} == {mail.id for mail in kept}
            await asyncio.gather(*(one.settle(settlement(mail)) for mail in (*sending, *again)))
            assert await one.backlog() == {}

    asyncio.run(test())
    assert not [event for event in capture_events() if event["event"] == "spool.lease_lost"]
    assert sql(database, "SELECT count(*) FROM waiting") == [(0,)]


def test_a_lease_that_the_database_forgot_sends_no_mail_twice(database):
    """Leases are not worth a sync: after a crash of the database the newest are gone, and their mails look free."""

    async def test():
        async with nodes(database, 1) as (one,):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            first, second = await one.lease("acme.nl", 1, CLOCK.now), await one.lease("acme.nl", 1, CLOCK.now)
            sql(database, "UPDATE waiting SET node = NULL")
            again = await one.lease("acme.nl", 9, CLOCK.now)
            assert len(again) == 1
            assert again[0].id not in {first[0].id, second[0].id}
            await one.settle(settlement(first[0]))
            assert not one.ours(second[0]) or await one.settle(settlement(second[0], RETRY, CLOCK.now)) is None
            await one.settle(settlement(again[0]))
            assert [mail.id for mail in await one.lease("acme.nl", 9, CLOCK.now)] == [second[0].id]

    asyncio.run(test())


def test_a_table_that_somebody_locks_is_told_and_a_client_waits_for_it(database, monkeypatch):
    """An administrator's lock: a restart of ours would not help, so the watchdog must hear an answer."""
    monkeypatch.setattr(postgres_schema, "LOCK_SECONDS", 0.5)

    async def test():
        async with nodes(database, 1) as (one,):
            with psycopg.connect(database) as locking:
                locking.execute("LOCK TABLE callpro_relay.waiting")
                putting = asyncio.create_task(one.put(arrival(one, CLOCK)))
                with pytest.raises(SpoolUnavailable, match="lock timeout"):
                    await one.backlog()
                with pytest.raises(SpoolUnavailable, match="lock timeout"):
                    await one.lease("acme.nl", 1, CLOCK.now)
                assert not putting.done()
            await putting
            assert len(await one.lease("acme.nl", 1, CLOCK.now)) == 1

    asyncio.run(test())


def test_nothing_more_is_leased_while_what_was_sent_is_not_noted(database, monkeypatch):
    """A process that dies sends again what it had not noted: that must not be all that it could send meanwhile."""
    monkeypatch.setattr(postgres, "_UNNOTED", 1)
    monkeypatch.setattr(postgres_node, "_LONGEST_BEAT", 600.0)

    async def test():
        async with nodes(database, 1, lease=3000.0) as (one,):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            sent = await one.lease("acme.nl", 1, CLOCK.now)
            with psycopg.connect(database) as locking:
                locking.execute("LOCK TABLE callpro_relay.event")
                written = one.settle(settlement(sent[0]))
                sent += await one.lease("acme.nl", 1, CLOCK.now)
                await asyncio.sleep(0.6)
                assert await one.lease("acme.nl", 1, CLOCK.now) == []
                assert not written.done()
                told: list[str] = []
                one.on_arrival(told.append)
            await written
            await until(lambda: "acme.nl" in told, "whoever wanted more is told")
            assert len(sent) == 2
            assert len(await one.lease("acme.nl", 9, CLOCK.now)) == 1

    asyncio.run(test())


def test_several_processes_share_the_memory_of_one(database, monkeypatch):
    """Most of what one of them takes in leaves by another, so that it stays until there is no room for it."""
    monkeypatch.setattr(opening, "_MEMORY", 3000)

    async def test():
        for processes, kept in ((1, 2), (2, 1)):
            spool = await opening.open_spool(database, size_limit=1 << 30, processes=processes)
            mails = [arrival(spool, CLOCK, content=b"x" * 1500) for _ in range(4)]
            await put_all(spool, mails)
            assert sum(spool._at_hand.find(mail.id) is not None for mail in mails) == kept
            await spool.close()

    asyncio.run(test())


def test_settlements_that_wait_are_told_once(database, capture_events):
    """However often the database is asked to take them."""

    def told(name: str) -> int:
        return sum(event["event"] == name for event in capture_events())

    async def test():
        async with nodes(database, 1) as (one,):
            for times in (1, 2):
                await one.put(arrival(one, CLOCK))
                (mail,) = await one.lease("acme.nl", 1, CLOCK.now)
                sql(database, "ALTER TABLE callpro_relay.event RENAME TO elsewhere")
                written = one.settle(settlement(mail))
                await until(lambda: told("spool.settlements_wait") == times)  # noqa: B023
                for _ in range(5):
                    one._writer.flush()
                await asyncio.sleep(0.3)
                assert told("spool.settlements_wait") == times
                sql(database, "ALTER TABLE callpro_relay.elsewhere RENAME TO event")
                await written

    asyncio.run(test())


def test_a_node_that_was_cut_off_begins_anew_and_what_it_had_sent_counts(database, capture_events):
    async def test():
        async with nodes(database, 1) as (one,):
            first, second = arrival(one, CLOCK), arrival(one, CLOCK)
            await put_all(one, [first, second])
            mails = await one.lease("acme.nl", 2, CLOCK.now)
            async with nodes(database, 1) as (other,):
                declare_dead(database, one)
                assert len(await other.lease("acme.nl", 9, CLOCK.now)) == 2
                await one.settle(settlement(mails[0]))  # it left all the same
                await one.settle(settlement(mails[1], RETRY, CLOCK.now + 60))  # this one is the other's now
                assert sql(database, "SELECT id FROM waiting") == [(mails[1].id,)]
                assert sql(database, "SELECT due_at < %s FROM waiting", CLOCK.now + 30) == [(True,)]

            async def back() -> bool:  # once its next sign of life told it that it had been declared dead
                return [mail.id for mail in await one.lease("acme.nl", 9, CLOCK.now)] == [mails[1].id]

            await until(back)
            assert sql(database, "SELECT state FROM recipient WHERE mail = %s", mails[0].id) == [("delivered",)]

    asyncio.run(test())
    lost = [event for event in capture_events() if event["event"] == "spool.lease_lost"]
    assert len(lost) == 2


_UNDER_THE_UNIT = """\
mount -t proc -o subset=pid proc /proc || exit 77
exec "$0" -c 'from spool.postgres_node import this_process as who; print(who(1.0).machine); print(who(1.0).machine)'
"""


@pytest.mark.parametrize("told", ["0123456789abcdef0123456789abcdef", ""])
def test_a_node_knows_itself_where_the_unit_hides_proc(told):
    """ProcSubset=pid: the unit says which boot it is. Where nobody does no other process is taken for a neighbour."""
    if os.getuid():
        pytest.skip("only root can mount a /proc of its own")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _UNDER_THE_UNIT, sys.executable],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "BOOT_ID": told},
    )  # fmt: skip
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("no mount namespaces here")
    one, other = done.stdout.splitlines()
    assert (one == other) == bool(told), done.stderr
    assert one.startswith(told)


def test_a_process_that_is_hidden_from_us_is_not_taken_for_dead(monkeypatch):
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert postgres_node._gone(ended.pid, "1")
    assert postgres_node._gone(os.getpid(), "1"), "another process has its number now"
    assert not postgres_node._gone(os.getpid(), postgres_node._born(os.getpid()))
    monkeypatch.setattr(postgres_node, "_born", lambda process: "")
    assert postgres_node._gone(ended.pid, "1")
    assert not postgres_node._gone(os.getpid(), "1")


def test_a_relay_that_starts_again_on_its_machine_waits_for_nobody(database):
    """Its predecessor was killed a moment ago: its row says a process that is not there any more."""

    async def test():
        async with nodes(database, 1) as (one,):
            await one.put(arrival(one, CLOCK))
            await one.lease("acme.nl", 1, CLOCK.now)
            sql(database, "UPDATE node SET born = '1'")
            async with nodes(database, 1) as (other,):
                assert len(await other.lease("acme.nl", 1, CLOCK.now)) == 1

    asyncio.run(test())


def test_a_hold_counts_for_every_node_at_once(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            seen: list[Hold] = []
            other.on_hold(seen.append)
            hold = Hold(Scope.SENDER, "@acme.nl", 1.0, "jan", "x")
            await one.hold(hold)
            assert await other.lease("acme.nl", 9, CLOCK.now) == []
            await other.put(arrival(other, CLOCK))
            assert await one.lease("acme.nl", 9, CLOCK.now) == []
            assert (await one.backlog())["acme.nl"].next_due == inf

            async def heard() -> bool:
                return seen == [hold] and other.held.get(hold.key) == hold

            await until(heard)
            visitor = await PostgresSpool.open(database, size_limit=1, visit=True)
            assert await visitor.release(hold.key, CLOCK.now) == hold
            await visitor.close()
            assert len(await other.lease("acme.nl", 9, CLOCK.now)) == 4

    asyncio.run(test())


def test_the_size_limit_is_for_all_nodes_together(database):
    async def test():
        async with nodes(database, 2, size_limit=3500) as (one, other):
            await put_all(one, [arrival(one, CLOCK, content=b"x" * 1000) for _ in range(3)])

            async def full() -> bool:
                return other.octets == 3000

            await until(full)
            with pytest.raises(Exception, match="the limit is 3500"):
                await other.put(arrival(other, CLOCK, content=b"x" * 1000))
            await other.drop(Filter(route="acme.nl"), "dropped", CLOCK.now)
            assert other.octets == 0

    asyncio.run(test())


def test_the_view_tells_who_is_there(database):
    async def test():
        async with nodes(database, 2) as (one, _other):
            one.tell_about("1.2.3", "abc")
            await one.put(arrival(one, CLOCK))
            await one.lease("acme.nl", 1, CLOCK.now)

            async def told() -> bool:
                view = PostgresView(database)
                lines, taken = view.nodes(), view.taken()
                view.close()
                assert [(t.node, t.route, t.mails) for t in taken] == [(lines[0].number, "acme.nl", 1)]
                assert abs(taken[0].oldest - CLOCK.now) < 60
                return [(n.version, n.rules, n.alive) for n in lines] == [("1.2.3", "abc", True), ("", "", True)]

            await until(told)

    asyncio.run(test())


def test_older_code_runs_on_newer_tables_that_allow_it(database):
    """A node that is not renewed yet goes on, and starts, while another has brought the tables up to date."""

    async def test():
        async with nodes(database, 1) as (old,):
            sql(database, "ALTER TABLE mail ADD COLUMN later text; ALTER TABLE waiting ADD COLUMN later int DEFAULT 1")
            sql(database, "CREATE TABLE later (id bigint); UPDATE format SET version = version + 1")
            await old.put(arrival(old, CLOCK))
            async with nodes(database, 1) as (again,):
                (mail,) = await again.lease("acme.nl", 1, CLOCK.now)
                await again.settle(settlement(mail))

    asyncio.run(test())
    PostgresView(database).close()
    assert sql(database, "SELECT version FROM format") == [(postgres_schema.VERSION + 1,)]


def test_tables_that_need_newer_code_are_refused(database):
    async def test():
        async with nodes(database, 1):
            pass
        sql(database, "UPDATE format SET version = 99, oldest = 98")
        with pytest.raises(SpoolUnusable, match="needs a relay that knows format 98"):
            await PostgresSpool.open(database, size_limit=1)

    asyncio.run(test())
    with pytest.raises(SpoolUnusable, match="format 98"):
        PostgresView(database)


def test_a_database_that_is_not_there_says_so_without_the_password(postgres_server):
    url = postgres_server.url("nowhere").replace("postgres@", "postgres:geheim@")
    with pytest.raises(SpoolUnusable, match=r'database "nowhere" does not exist') as raised:
        asyncio.run(PostgresSpool.open(url, size_limit=1))
    assert "geheim" not in str(raised.value)
    assert "geheim" not in postgres_schema.shown(url)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("postgresql://relay@db.example/relay?sslmode=require", "verified TLS"),
        ("postgresql://relay@127.0.0.1,db.example/relay?sslmode=prefer", "verified TLS"),
        ("postgresql://relay@localhost/relay?hostaddr=192.0.2.7&sslmode=prefer", "verified TLS"),
        ("postgresql:///relay?service=elsewhere&sslmode=prefer", "verified TLS"),
        ("postgresql://relay@db.example/relay?nonsense=1", "not understood"),
    ],
)
def test_urls_that_are_refused(url, wrong):
    with pytest.raises(SpoolUnusable, match=wrong):
        postgres_schema.options_of(url)


def test_a_database_made_without_a_locale_keeps_every_letter(postgres_server, monkeypatch):
    """SQL_ASCII: a Debian without locales makes its cluster so, and then every database."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    url = postgres_server.database("no_locale", "SQL_ASCII")
    said = replace(RETRY, reply="451 4.7.1 één ogenblik – “straks” €")

    async def test():
        async with nodes(url, 1) as (one,):
            await one.put(arrival(one, CLOCK, recipients=("jan@example.org",)))
            (mail,) = await one.lease("acme.nl", 1, CLOCK.now)
            assert mail.recipients[0].address == "jan@example.org"
            await one.settle(settlement(mail, said, inf))
            with closing(PostgresView(url)) as view:
                assert view.show(mail.id).mail.recipients[0].last.reply == said.reply

    try:
        asyncio.run(test())
    finally:
        postgres_server.drop("no_locale")


def test_a_database_that_cannot_keep_every_letter_is_refused(postgres_server):
    url = postgres_server.database("latin", "LATIN1")
    try:
        with pytest.raises(SpoolUnusable, match=r"in LATIN1, .* make it anew: CREATE DATABASE relay .* 'UTF8'"):
            asyncio.run(PostgresSpool.open(url, size_limit=1))
    finally:
        postgres_server.drop("latin")


def test_a_schema_that_an_administrator_made_is_enough(database):
    """A role with the rights that it needs, and no more: it may make tables there, and no schema."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE frugal LOGIN")
        connection.execute("CREATE SCHEMA callpro_relay AUTHORIZATION frugal")
    try:
        options = postgres_schema.options_of(database.replace("postgres@", "frugal@"))
        postgres_schema.prepare(options)
        assert sql(database, "SELECT version FROM format") == [(postgres_schema.VERSION,)]
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("DROP OWNED BY frugal")
            connection.execute("DROP ROLE frugal")


def test_a_server_elsewhere_must_prove_itself():
    options = postgres_schema.options_of("postgresql://relay@a.example,b.example/relay", "geheim")
    assert options["sslmode"] == "verify-full"
    assert options["target_session_attrs"] == "read-write"
    assert options["password"] == "geheim"


def test_a_mail_that_was_refused_and_kept_all_the_same_is_taken_out(database):
    """Nobody knew whether its commit was made, so its client was told to come again."""
    kept: list[int] = []

    async def test():
        async with nodes(database, 1) as (one,):
            mail, other = arrival(one, CLOCK), arrival(one, CLOCK)
            await one.put(mail)
            one._writer._doubtful = [(mail.id, mail.received_at, len(mail.content))]
            await one.put(other)
            (left,) = await one.lease("acme.nl", 9, CLOCK.now)
            assert left.id == other.id
            kept.append(other.id)
            assert one.octets == len(other.content)

    asyncio.run(test())
    view = PostgresView(database)
    assert [line.id for line in view.list(Filter(settled=None), 9)] == kept
    view.close()


def test_a_lease_whose_answer_was_lost_is_made_again(database, monkeypatch):
    """The connection broke behind the commit: the mail is this living node's, and it does not know."""
    ask, lose = Session._once, [True]

    def once(self, question, single):
        answer = ask(self, question, single)
        if getattr(question, "func", None) is statements.take and lose:
            lose.clear()
            raise psycopg.OperationalError("the connection is gone")
        return answer

    monkeypatch.setattr(Session, "_once", once)

    async def test():
        async with nodes(database, 1) as (one,):
            await put_all(one, [arrival(one, CLOCK) for _ in range(3)])
            with pytest.raises(SpoolUnavailable):
                await one.lease("acme.nl", 2, CLOCK.now)
            assert len(await one.lease("acme.nl", 2, CLOCK.now)) == 2
            assert len(await one.lease("acme.nl", 2, CLOCK.now)) == 1
            assert await one.lease("acme.nl", 2, CLOCK.now) == []

    asyncio.run(test())


@pytest.mark.parametrize("damaged", [False, True])
def test_a_mail_whose_content_is_gone_is_never_sent_empty(database, monkeypatch, caplog, damaged):
    """Another node had sent it, lost its lease, and told it between the lease and the reading of the content."""

    async def test():
        async with nodes(database, 1) as (one,):
            await put_all(one, [arrival(one, CLOCK), arrival(one, CLOCK)])

            def find(number):
                if number == first:
                    sql(database, "DELETE FROM callpro_relay.content WHERE mail = %s RETURNING mail", number)
                    if not damaged:
                        sql(database, "DELETE FROM callpro_relay.waiting WHERE id = %s RETURNING id", number)

            ((first,),) = sql(database, "SELECT min(id) FROM callpro_relay.waiting")
            monkeypatch.setattr(one._at_hand, "find", find, raising=True)
            (mail,) = await one.lease("acme.nl", 2, CLOCK.now)
            assert mail.id != first
            assert mail.content

    asyncio.run(test())
    assert [record.message for record in caplog.records] == ["spool.mail_unreadable"] * damaged
