"""What the SQLite engine promises beyond the contract: refusals at open, faults and their end, plans, bounds."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from spool import schema, statements
from spool.contract import SpoolFull, SpoolUnavailable, SpoolUnusable
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView, list_statement
from spool.view import Filter
from tests.spool.engines import RETRY, Sqlite, arrival, put_all, settlement

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


def database(engine: Sqlite) -> Path:
    return engine.folder / "spool.db"


async def nothing(spool) -> None:
    """Open and close."""


def refusal(engine: Sqlite) -> str:
    with pytest.raises(SpoolUnusable) as refused:
        engine.run(nothing)
    return str(refused.value)


# ---- what cannot be opened -------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(engine):
    engine.folder = engine.folder / "missing"
    assert f"{engine.folder} does not exist" in refusal(engine)


def test_a_folder_that_cannot_be_written_is_named(engine):
    program = (
        "import asyncio, os, sys; from spool.sqlite import SqliteSpool\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(SqliteSpool.open(sys.argv[1], size_limit=1))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    if os.getuid():
        pytest.skip("only root can become somebody else")
    engine.folder.chmod(0o755)
    for folder in list(engine.folder.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    said = subprocess.run([sys.executable, "-c", program, engine.url], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.startswith("SpoolUnusable"), said.stderr
    assert "Permission denied" in said.stdout


@pytest.mark.parametrize("url", ["postgresql://x/y", "sqlite:relative.db", "sqlite://host/x.db", "sqlite:///"])
def test_a_url_that_is_not_understood_is_refused_with_an_example(url):
    with pytest.raises(SpoolUnusable, match="spool"):
        asyncio.run(SqliteSpool.open(url, size_limit=1))


@pytest.mark.parametrize("octets", [b"this is no database at all, " * 100, b"SQLite format 3\x00" + b"\xff" * 4080])
def test_a_corrupt_file_is_refused_and_left_as_it_is(engine, octets):
    database(engine).write_bytes(octets)
    assert "damaged" in refusal(engine)
    assert database(engine).read_bytes() == octets


def test_a_spool_cut_short_is_refused(engine):
    async def fill(spool):
        await put_all(spool, [arrival(spool, engine.clock, content=b"x" * 5000) for _ in range(50)])

    engine.run(fill)
    octets = database(engine).read_bytes()[:40_000]
    database(engine).write_bytes(octets)
    assert "damaged" in refusal(engine)
    assert database(engine).read_bytes() == octets


def test_somebody_elses_database_is_refused_and_left_as_it_is(engine):
    with closing(sqlite3.connect(database(engine))) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    octets = database(engine).read_bytes()
    assert "not a spool" in refusal(engine)
    assert database(engine).read_bytes() == octets


def test_a_newer_format_is_refused_with_what_to_do(engine):
    engine.run(nothing)
    with closing(sqlite3.connect(database(engine))) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    assert "empty its queue" in refusal(engine)
    with pytest.raises(SpoolUnusable, match="format 2"):
        SqliteView(engine.url)


def test_a_second_relay_is_told_who_has_the_spool(engine):
    async def second(spool):
        with pytest.raises(SpoolUnusable, match=f"another relay \\(process {os.getpid()}\\)"):
            await SqliteSpool.open(engine.url, size_limit=1)

    engine.run(second)
    engine.run(nothing)


def test_the_mail_is_nobody_elses_business(engine):
    async def put(spool):
        await spool.put(arrival(spool, engine.clock))
        for file in engine.folder.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file

    before = os.umask(0)
    try:
        engine.run(put)
    finally:
        os.umask(before)


def test_the_view_reads_without_a_relay_and_says_when_there_is_nothing(engine):
    with pytest.raises(SpoolUnusable, match="cannot be read"):
        SqliteView(engine.url)

    async def put(spool):
        await spool.put(arrival(spool, engine.clock))

    engine.run(put)
    with engine.view() as view:
        assert len(view.list(Filter(), 10)) == 1


# ---- faults and their end --------------------------------------------------------------------------------------


def test_a_full_disk_refuses_mail_and_heals_by_itself(engine):
    async def test(spool):
        kept = [arrival(spool, engine.clock, content=b"x" * 20_000) for _ in range(20)]
        await put_all(spool, kept)
        leased = await spool.lease("acme.nl", 20, engine.clock.now)
        await spool._ask(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone(), print)
        with pytest.raises(SpoolFull):
            await spool.put(arrival(spool, engine.clock, content=b"x" * 20_000))
        await asyncio.gather(*(spool.settle(settlement(mail)) for mail in leased))
        await spool.put(arrival(spool, engine.clock, content=b"x" * 20_000))

    engine.run(test)


def test_mail_leaves_room_on_the_disk_to_write_down_what_became_of_it(engine):
    async def test() -> None:
        async with engine.spool() as spool:
            await spool.put(arrival(spool, engine.clock))
        free = shutil.disk_usage(engine.folder).free
        spool = await SqliteSpool.open(engine.url, size_limit=1 << 30, reserve=2 * free, clock=engine.clock)
        with pytest.raises(SpoolFull, match="stay free"):
            await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 2, engine.clock.now)
        await spool.settle(settlement(leased))
        await spool.close()

    asyncio.run(test())


def test_trouble_is_logged_when_it_begins_and_when_it_ends(engine, caplog):
    caplog.set_level("INFO", "relay.spool")

    async def test(spool):
        database(engine).rename(engine.folder / "moved.db")
        for _ in range(5):
            with pytest.raises(SpoolUnavailable):
                await spool.put(arrival(spool, engine.clock))
        (engine.folder / "moved.db").rename(database(engine))
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
        with closing(sqlite3.connect(database(engine), isolation_level=None)) as intruder:
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
        database(engine).rename(engine.folder / "moved.db")
        if replaced:
            database(engine).touch()
        with pytest.raises(SpoolUnavailable, match="restart the relay"):
            await spool.put(arrival(spool, engine.clock))
        database(engine).unlink(missing_ok=True)
        (engine.folder / "moved.db").rename(database(engine))
        await spool.put(arrival(spool, engine.clock))
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 2

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
    with closing(sqlite3.connect(database(engine))) as connection:
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


# ---- plans and bounds ------------------------------------------------------------------------------------------


def plan(engine: Sqlite, statement: str, values: object) -> str:
    with closing(sqlite3.connect(database(engine))) as connection:
        return "\n".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values))


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (statements.DUE, ("r", 0, 1), "waiting_by_due (route=? AND due_at<?)"),
        (statements.FIRST_DUE, ("r", 1), "waiting_by_due (route=?)"),
        (statements.OLDEST, ("r", 1), "waiting_by_route (route=?)"),
        (statements.SENDERS, ("r", 0, 1), "waiting_by_route (route=? AND rowid>?)"),
        (statements.WAKE, (0, "r", 1), "waiting_by_due (route=? AND due_at>?)"),
        (statements.FORGOTTEN, (0, 0, 1), "INTEGER PRIMARY KEY (rowid<?)"),
        (*list_statement(Filter(route="r"), 1, 0), "waiting_by_route (route=? AND rowid>?)"),
        (*list_statement(Filter(route="r", settled=True), 1, 0), "settled_by_route (route=? AND rowid>?)"),
        (*list_statement(Filter(recipient="a@b.c"), 1, 0), "recipient_by_domain (domain=? AND mail>?)"),
        (*list_statement(Filter(recipient="@b.c", settled=True), 1, 0), "recipient_by_domain (domain=? AND mail>?)"),
        (*list_statement(Filter(), 1, 0), "waiting USING INTEGER PRIMARY KEY (rowid>?)"),
    ],
)
def test_every_question_has_its_index_and_sorts_nothing(engine, statement, values, index):
    engine.run(nothing)
    said = plan(engine, statement, values)
    assert index in said
    assert "SCAN mail" not in said
    assert "SCAN waiting" not in said
    assert "TEMP B-TREE" not in said


def test_neither_the_log_nor_the_file_grows_with_what_passes_through(engine):
    async def test(spool):
        sizes = []
        for _ in range(3):
            for _ in range(15):
                await put_all(spool, [arrival(spool, engine.clock, content=b"x" * 30_000) for _ in range(20)])
                mails = await spool.lease("acme.nl", 20, engine.clock.now)
                await asyncio.gather(*(spool.settle(settlement(mail)) for mail in mails))
            sizes.append(database(engine).stat().st_size)
        assert Path(f"{database(engine)}-wal").stat().st_size < 16 << 20
        assert sizes[2] < sizes[0] + (2 << 20)
        assert sizes[2] < 8 << 20

    engine.run(test)


def test_a_long_backlog_costs_no_memory_and_no_time_at_open(engine):
    mails = 100_000
    engine.run(nothing)
    with closing(sqlite3.connect(database(engine))) as connection:
        for table, row in (
            ("mail", "i, 'acme.nl', 'a@acme.nl', 1, 9, '', '', NULL, '', 0, NULL"),
            ("waiting", "i, 'acme.nl', 1, 9, 0"),
            ("content", "i, x'414243'"),
            ("recipient", "i, 'b@x.nl', 'x.nl', 'waiting', 0"),
        ):
            numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            connection.execute(f"INSERT INTO {table} {numbers} SELECT {row} FROM n", (mails,))
        connection.commit()

    async def test(spool):
        assert (await spool.backlog())["acme.nl"].waiting == mails
        assert [mail.id for mail in await spool.lease("acme.nl", 50, engine.clock.now)] == list(range(1, 51))
        new = arrival(spool, engine.clock)
        await spool.put(new)
        assert [mail.id for mail in await spool.lease("acme.nl", 50, engine.clock.now)] == list(range(51, 101))
        assert await spool.reroute(lambda _: "new.nl") == mails + 1
        assert (await spool.backlog())["new.nl"].waiting == mails + 1 - 100
        assert not spool._shelves.of("acme.nl").fresh

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine.run(test)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_lease_that_lasts_can_be_seen_and_a_settled_one_cannot(engine):
    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(3)])
        long, short = await spool.lease("acme.nl", 2, engine.clock.now)
        spool._marks.look()
        assert marked(engine) == []
        spool._marks.look()
        await spool.settle(settlement(short, RETRY, engine.clock.now + 1))
        while marked(engine) != [long.id]:
            await asyncio.sleep(0.01)
        await spool.settle(settlement(long, RETRY, engine.clock.now + 1))
        assert marked(engine) == []
        await spool.lease("acme.nl", 3, engine.clock.now + 1)
        spool._marks.look()
        spool._marks.look()
        while len(marked(engine)) < 3:
            await asyncio.sleep(0.01)

    engine.run(test)
    engine.run(nothing)
    assert marked(engine) == []


def marked(engine: Sqlite) -> list[int]:
    with engine.view() as view:
        return [line.id for line in view.list(Filter(), 10) if line.leased]


def test_new_mail_waits_little_while_a_long_backlog_is_rerouted(engine):
    """The longest that the writer is away is one chunk, so a put comes between."""

    async def test(spool):
        for _ in range(5):
            await put_all(spool, [arrival(spool, engine.clock) for _ in range(1000)])
        moving = asyncio.ensure_future(spool.reroute(lambda _: "new.nl"))
        await asyncio.sleep(0)
        await spool.put(arrival(spool, engine.clock, route="other.nl"))
        assert not moving.done()
        assert await moving == 5000

    engine.run(test, memory=0)
