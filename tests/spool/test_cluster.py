"""What relays on one spool tell one another: nothing where one relay has it for itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from routing.outcome import Hint, Outcome, Stage, Who, Word
from spool import postgres_schema as schema
from spool.cluster import Closed, WayKey, trial_of
from tests.spool.engines import Sqlite
from tests.spool.test_postgres_nodes import fall_silent, nodes, sql
from tests.waiting import until

BAD_LOGIN = Outcome(Word.CONFIG, "535 5.7.8 no", Stage.LOGIN, 535, "5.7.8", hint=Hint(Who.US, "Mend it.", "Herstel."))
KEY = WayKey("acme.nl", "acme-login", "a1b2")
CLOSED = Closed(KEY, 1_700_000_000.0, BAD_LOGIN, 1, 1_700_000_060.0)


def test_one_relay_on_a_spool_of_its_own_has_nobody_to_tell(engine):
    async def test(spool):
        assert (spool.cluster is None) == isinstance(engine, Sqlite)

    engine.run(test)


def test_who_closes_a_way_first_probes_it_and_all_see_it(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            found = await one.cluster.close(CLOSED)
            assert (found.mine, found.nobody) == (True, False)
            assert found.closed == replace(CLOSED, found_by=found.closed.found_by)
            assert found.closed.found_by
            second = await other.cluster.close(replace(CLOSED, since=CLOSED.since + 5))
            assert (second.mine, second.closed) == (False, found.closed), "what was found first counts"
            assert [one.closed for one in (await other.cluster.look()).closed] == [found.closed]
            assert not await other.cluster.adopt(KEY), "it is probed already"
            one.cluster.probed(KEY, 2, CLOSED.next_probe + 300)
            (seen,) = (await one.cluster.look()).closed
            assert (seen.closed.failures, seen.closed.next_probe) == (2, CLOSED.next_probe + 300)
            await other.cluster.open(KEY, works=True)
            assert (await one.cluster.look()).closed == ()

    asyncio.run(test())


def test_a_route_is_opened_from_outside_for_all_of_them(database):
    async def test():
        async with nodes(database, 1) as (one,):
            other_way = replace(CLOSED, key=replace(KEY, upstream="spare"))
            elsewhere = replace(CLOSED, key=replace(KEY, route="globex.nl"))
            for closed in (CLOSED, other_way, elsewhere):
                await one.cluster.close(closed)
            visitor = await type(one).open(database, size_limit=1, visit=True)
            ended = await visitor.cluster.open_route("acme.nl")
            assert {closed.key.upstream for closed in ended} == {"acme-login", "spare"}
            await visitor.close()
            assert [one.closed.key.route for one in (await one.cluster.look()).closed] == ["globex.nl"]

    asyncio.run(test())


def test_the_death_of_the_prober_leaves_its_way_to_the_next(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            await one.cluster.close(CLOSED)
            await one.cluster.close(replace(CLOSED, key=replace(KEY, settings="only one"), alone=True))
            one.cluster.silent("smtp.acme.nl:587", CLOSED.since, "refused", CLOSED.since)
            assert len((await one.cluster.look()).silent) == 1
            await fall_silent(one)

            async def orphaned() -> bool:
                return [seen.nobody for seen in (await other.cluster.look()).closed] == [True]

            await until(orphaned)  # and what was so for the dead one alone is forgotten
            assert (await other.cluster.look()).silent == ()
            assert await other.cluster.adopt(KEY)
            (seen,) = (await other.cluster.look()).closed
            assert (seen.mine, seen.closed.since) == (True, CLOSED.since)

    asyncio.run(test())


@pytest.mark.parametrize("how", ["left", "died"])
def test_a_hold_that_nobody_takes_over_is_forgotten(database, how):
    async def test():
        async with nodes(database, 1) as (one,):
            async with nodes(database, 1) as (other,):
                await other.cluster.close(CLOSED)
                if how == "left":
                    other.cluster.leave(KEY)
            (seen,) = (await one.cluster.look()).closed
            assert seen.nobody
            sql(database, "UPDATE closed_way SET left_at = left_at - 21")
            assert (await one.cluster.look()).closed == ()

    asyncio.run(test())


def test_one_relay_at_a_time_tries_a_way_and_the_next_sees_what_it_found(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            assert await one.cluster.attempt("acme.nl", "acme-login") == (True, ())
            assert (await other.cluster.attempt("acme.nl", "acme-login"))[0] is False
            assert (await other.cluster.attempt("globex.nl", "acme-login"))[0] is True
            closing = asyncio.create_task(one.cluster.close(CLOSED))
            await closing
            one.cluster.give_back(trial_of("acme.nl", "acme-login"), 1)

            async def tried() -> bool:
                mine, found = await other.cluster.attempt("acme.nl", "acme-login")
                assert found
                return mine

            await until(tried)

    asyncio.run(test())


def test_each_relay_says_for_itself_where_it_gets_no_answer(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            for number, spool in enumerate((one, other)):
                spool.cluster.silent("smtp.acme.nl:587", CLOSED.since, "timed out", CLOSED.since + number)
                await spool.cluster.look()
            first, second = (await one.cluster.look()).silent
            assert (first.mine, second.mine) == (True, False)
            assert first.node != second.node
            assert second.asked_at == first.asked_at + 1
            one.cluster.silent("smtp.acme.nl:587", CLOSED.since + 9, "refused", CLOSED.since + 9)
            first, second = (await one.cluster.look()).silent
            assert (second.mine, second.reply, second.since) == (True, "refused", CLOSED.since), "the one asked last"
            one.cluster.answered("smtp.acme.nl:587")
            assert [silent.mine for silent in (await one.cluster.look()).silent] == [False]

    asyncio.run(test())


def test_the_salt_is_the_database_s(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            assert len(await one.cluster.salt()) >= 16
            assert await one.cluster.salt() == await other.cluster.salt()

    asyncio.run(test())


def test_tables_of_the_version_before_are_brought_up_to_date_while_its_relay_works(database, monkeypatch):
    """A relay of format 1 knows nothing of these tables; what it buries leaves nothing of a newer one behind."""
    steps = schema._STEPS
    with monkeypatch.context() as older:
        older.setattr(schema, "_STEPS", steps[:1])
        older.setattr(schema, "VERSION", 1)
        asyncio.run(_open_and_close(database))
    assert sql(database, "SELECT version, oldest FROM format") == [(1, 1)]

    async def test():
        async with nodes(database, 1) as (one,):
            assert sql(database, "SELECT version, oldest FROM format") == [(len(steps), 1)]
            assert await one.cluster.take("upstream one", 3, 3) == 3
            await one.cluster.close(CLOSED)
            sql(database, "DELETE FROM node")  # as the old version does it
            assert sql(database, "SELECT count(*) FROM slots") == [(0,)]
            assert sql(database, "SELECT prober FROM closed_way") == [(None,)]

    asyncio.run(test())


async def _open_and_close(url: str) -> None:
    async with nodes(url, 1):
        pass
