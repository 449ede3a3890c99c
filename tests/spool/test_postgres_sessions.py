"""Sessions that the database ended, and what the next one who needs them hears of it: nothing, where it can be seen."""

from __future__ import annotations

import asyncio

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
