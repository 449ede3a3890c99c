"""Sessions that the database ended, and what the next one who needs them hears of it: nothing, where it can be seen."""

from __future__ import annotations

import asyncio

import psycopg

from spool import postgres_schema
from tests.spool.engines import arrival
from tests.spool.test_postgres_nodes import CLOCK, nodes, sql
from tests.waiting import until

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def end_sessions(url: str) -> None:
    """As a restart or `idle_session_timeout` does it."""
    ended = {row[0] for row in sql(url, f"SELECT pid, pg_terminate_backend(pid) {OTHERS}")}
    assert len(ended) > 1
    await until(lambda: not ended & {row[0] for row in sql(url, f"SELECT pid {OTHERS}")})


def test_a_session_that_ended_while_nothing_came_costs_no_mail(database, capture_events):
    async def scenario():
        async with nodes(database, 1) as (spool,):
            await spool.put(arrival(spool, CLOCK))
            await spool.probe()
            assert await spool.lease("globex.nl", 10, CLOCK.now) == []
            await end_sessions(database)
            assert len(await spool.lease("acme.nl", 10, CLOCK.now)) == 1
            await spool.put(arrival(spool, CLOCK))
            await spool.probe()

    asyncio.run(scenario())
    assert [told for told in capture_events() if told["event"] == "spool.trouble"] == []


def set_for_all(url: str, **settings: str) -> None:
    """As an administrator does it for every session of a database to come."""
    name = url.rpartition("/")[2]
    for setting, value in settings.items():
        sql(url, f"ALTER DATABASE \"{name}\" SET {setting} = '{value}'")


def test_what_an_administrator_sets_for_all_sessions_breaks_no_promise(database):
    """A commit that is on no disk, a limit that ends the wait for a lock, transactions that fail beside others."""
    set_for_all(
        database, synchronous_commit="off", statement_timeout="300ms", default_transaction_isolation="serializable"
    )

    async def scenario():
        async with nodes(database, 2) as (one, two):
            with psycopg.connect(database) as locking:
                locking.execute("LOCK TABLE callpro_relay.waiting")
                putting = asyncio.create_task(one.put(arrival(one, CLOCK)))
                await asyncio.sleep(0.6)
                assert not putting.done()
            await putting
            assert len(await two.lease("acme.nl", 10, CLOCK.now)) == 1

    asyncio.run(scenario())
    shown = {"synchronous_commit": "on", "statement_timeout": "0", "transaction_isolation": "read committed"}
    with postgres_schema.connect(postgres_schema.options_of(database)) as connection:
        for setting, value in shown.items():
            assert connection.execute(f"SHOW {setting}").fetchone() == (value,)


def test_how_far_a_commit_goes_is_the_administrators_once_it_is_on_a_disk(database):
    set_for_all(database, synchronous_commit="local")
    with postgres_schema.connect(postgres_schema.options_of(database)) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("local",)
