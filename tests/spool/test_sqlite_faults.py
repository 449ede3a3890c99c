"""Faults of the disk, the file and the callers: mail is refused, nothing is lost, and it heals by itself."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
from contextlib import closing

import pytest

from spool.contract import Notice, SpoolFull, SpoolUnavailable
from spool.sqlite import SqliteSpool
from tests.spool.engines import RETRY, Sqlite, arrival, put_all, settlement


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


def test_a_full_disk_refuses_mail_and_heals_by_itself(engine):
    async def test(spool):
        kept = [arrival(spool, engine.clock, content=b"x" * 20_000) for _ in range(20)]
        await put_all(spool, kept)
        leased = await spool.lease("acme.nl", 20, engine.clock.now)
        await spool._ask(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone(), print)
        await spool.put(arrival(spool, engine.clock, content=b"x" * 20_000))
        await spool.backlog()  # a question: the database should take it over, and cannot
        assert spool._shelves.of("acme.nl").waiting == 21, "in the log it is safe, and counted"
        for _ in range(2):
            with pytest.raises(SpoolFull):
                await spool.put(arrival(spool, engine.clock, content=b"x" * 20_000))
        await asyncio.gather(*(spool.settle(settlement(mail)) for mail in leased))
        await spool.put(arrival(spool, engine.clock, content=b"x" * 20_000))
        assert len(await spool.lease("acme.nl", 5, engine.clock.now)) == 2

    engine.run(test)


def test_mail_leaves_room_on_the_disk_to_write_down_what_became_of_it(engine, caplog):
    async def test() -> None:
        async with engine.spool() as spool:
            await spool.put(arrival(spool, engine.clock))
        free = shutil.disk_usage(engine.folder).free
        spool = await SqliteSpool.open(engine.url, size_limit=1 << 30, reserve=2 * free, clock=engine.clock)
        with pytest.raises(SpoolFull, match="stay free"):
            await spool.put(arrival(spool, engine.clock))
        with pytest.raises(SpoolFull, match="stay free"):
            await spool.note(Notice("acme-login", frozenset(), (), "seal", engine.clock.now))
        with pytest.raises(SpoolFull, match="stay free"):
            await spool.probe()
        (leased,) = await spool.lease("acme.nl", 2, engine.clock.now)
        await spool.settle(settlement(leased))
        await spool.close()

    asyncio.run(test())
    assert "spool.recovered" not in caplog.text, "what is written down of old mail makes no room for new mail"


def test_a_folder_that_is_gone_refuses_mail_and_heals_when_it_is_back(engine):
    async def test(spool):
        away = engine.folder.with_name("away")
        engine.folder.rename(away)
        with pytest.raises(SpoolUnavailable):
            await asyncio.wait_for(spool.put(arrival(spool, engine.clock)), 60)
        with pytest.raises(SpoolUnavailable):
            await asyncio.wait_for(spool.probe(), 60)
        away.rename(engine.folder)
        await asyncio.wait_for(spool.put(arrival(spool, engine.clock)), 60)

    engine.run(test)


def test_trouble_is_logged_when_it_begins_and_when_it_ends(engine, caplog):
    caplog.set_level("INFO", "relay.spool")

    async def test(spool):
        engine.file.rename(engine.folder / "moved.db")
        for _ in range(5):
            with pytest.raises(SpoolUnavailable):
                await spool.put(arrival(spool, engine.clock))
        (engine.folder / "moved.db").rename(engine.file)
        for _ in range(2):
            await spool.put(arrival(spool, engine.clock))

    engine.run(test)
    assert [record.message for record in caplog.records] == ["spool.trouble", "spool.recovered"]


def test_a_write_error_refuses_mail_and_heals_by_itself(engine):
    """The kernel refuses to let any file grow: every kind of write fails, as on a broken disk."""

    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(3)])
        first, second, _third = await spool.lease("acme.nl", 3, engine.clock.now)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            for _ in range(3):
                with pytest.raises(SpoolUnavailable):
                    await spool.put(arrival(spool, engine.clock))
                with pytest.raises(SpoolUnavailable):
                    await spool.probe()
            settled = spool.settle(settlement(first))
            retried = spool.settle(settlement(second, RETRY, engine.clock.now))
            with pytest.raises(SpoolUnavailable):
                await spool.put(arrival(spool, engine.clock))
            assert not settled.done()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await spool.put(arrival(spool, engine.clock))
        await asyncio.gather(settled, retried)
        backlog = await spool.backlog()
        assert backlog["acme.nl"].waiting == 2
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 2

    engine.run(test)

    async def afterwards(spool):
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 3

    engine.run(afterwards)


def test_settlements_that_cannot_be_written_are_tried_again_without_help(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        with closing(sqlite3.connect(engine.file, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            await spool._ask(lambda connection: connection.execute("PRAGMA busy_timeout = 10").fetchone(), print)
            settled = spool.settle(settlement(leased))
            with pytest.raises(SpoolUnavailable):
                await spool.put(arrival(spool, engine.clock))
            assert not settled.done()
            intruder.execute("ROLLBACK")
        await settled

    engine.run(test)


def test_what_cannot_be_written_until_the_end_is_said_and_comes_again(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            settled = spool.settle(settlement(leased))
            await spool.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert isinstance(settled.exception(), SpoolUnavailable)

    async def closing_twice() -> None:
        spool = await SqliteSpool.open(engine.url, size_limit=1 << 20, clock=engine.clock)
        await test(spool)

    asyncio.run(closing_twice())

    async def again(spool):
        assert len(await spool.lease("acme.nl", 1, engine.clock.now)) == 1

    engine.run(again)


@pytest.mark.parametrize("replaced", [False, True])
def test_mail_never_goes_into_a_file_that_was_deleted(engine, replaced):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        engine.file.rename(engine.folder / "moved.db")
        if replaced:
            engine.file.touch()
        await spool.put(arrival(spool, engine.clock))  # it is safe in the log
        for _ in range(2):
            with pytest.raises(SpoolUnavailable, match="restart the relay"):
                await spool.backlog()
            with pytest.raises(SpoolUnavailable, match="restart the relay"):
                await spool.put(arrival(spool, engine.clock))
        engine.file.unlink(missing_ok=True)
        (engine.folder / "moved.db").rename(engine.file)
        await spool.put(arrival(spool, engine.clock))
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 3

    engine.run(test)


def test_a_mail_whose_content_is_gone_does_not_stop_its_route(engine, caplog):
    async def put(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(3)])

    async def test(spool):
        leased = await spool.lease("acme.nl", 10, engine.clock.now)
        assert len(leased) == 2
        assert await spool.lease("acme.nl", 10, engine.clock.now) == []
        assert "spool.mail_unreadable" in caplog.text

    engine.run(put)
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.execute("DELETE FROM content WHERE mail = (SELECT min(mail) FROM content)")
        connection.commit()
    engine.run(test)


def test_a_put_that_nobody_waits_for_any_more_changes_nothing(engine):
    async def test(spool):
        waiting = asyncio.ensure_future(spool.put(arrival(spool, engine.clock)))
        await asyncio.sleep(0)
        waiting.cancel()
        await spool.put(arrival(spool, engine.clock))
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 2

    engine.run(test)


def test_a_lease_that_nobody_waits_for_any_more_is_given_back(engine):
    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(20)])
        for steps in range(12):
            leasing = asyncio.ensure_future(spool.lease("acme.nl", 20, engine.clock.now))
            for _ in range(steps):
                await asyncio.sleep(0.001)
            if leasing.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await leasing
            else:
                spool._shelves.give_back(mail.id for mail in leasing.result())
        assert len(await spool.lease("acme.nl", 20, engine.clock.now)) == 20

    engine.run(test, memory=0)
