"""Plans, sizes and times of the SQLite engine: every question has its index, and nothing grows with the backlog."""

from __future__ import annotations

import _sqlite3
import asyncio
import ctypes
import itertools
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from spool import schema, statements
from spool.filtering import MAILS_OF_PART
from spool.hand_statements import select_statement
from spool.log_records import MailRecord
from spool.sqlite_view import BAD_NEWS, FAILURES, list_statement
from spool.view import Filter
from tests.spool.engines import RETRY, Sqlite, arrival, nothing, put_all, settlement

PART = "COVERING INDEX recipient_by_part (domain=? AND <expr>=? AND mail>?)"


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


def plan(engine: Sqlite, statement: str, values: object) -> str:
    with closing(sqlite3.connect(engine.file)) as connection:
        return "\n".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values))


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (statements.DUE, ("r", 0, 1), "waiting_by_due (route=? AND due_at<?)"),
        (statements.FIRST_DUE, ("r", 1), "waiting_by_due (route=?)"),
        (statements.OLDEST, ("r", 1), "waiting_by_route (route=?)"),
        (statements.SENDERS, ("r", 0, 1), "waiting_by_route (route=? AND rowid>?)"),
        (statements.WAKE, (0, "r", 1), "waiting_by_due (route=? AND due_at>? AND due_at<?)"),
        (statements.FORGOTTEN, (0, 0, 1), "INTEGER PRIMARY KEY (rowid<?)"),
        (*list_statement(Filter(route="r"), 1, 0), "waiting_by_route (route=? AND rowid>?)"),
        (*list_statement(Filter(route="r", settled=True), 1, 0), "settled_by_route (route=? AND rowid>?)"),
        (*list_statement(Filter(route="r", settled=True), 1, 0, newest_first=True), "settled_by_route (route=? AND"),
        (*list_statement(Filter(recipient="a@b.c"), 1, 0), PART),
        (*list_statement(Filter(recipient="a@b.c", settled=None), 1, 0, newest_first=True), PART),
        (MAILS_OF_PART, ("b.c", 1, 0), PART),
        (f"{MAILS_OF_PART} DESC", ("b.c", 1, 0), PART),
        (*list_statement(Filter(recipient="@b.c", route="r", settled=True), 1, 0), "settled_by_route (route=?"),
        (*list_statement(Filter(ids=(1, 2), settled=None), 1, 0), "mail USING INTEGER PRIMARY KEY (rowid=?)"),
        (*select_statement(Filter(ids=(1, 2)), 0, 1), "waiting USING INTEGER PRIMARY KEY (rowid=?)"),
        (*select_statement(Filter(route="r"), 0, 1), "waiting_by_route (route=? AND rowid>?)"),
        (*select_statement(Filter(recipient="a@b.c"), 0, 1), PART),
        (*select_statement(Filter(), 0, 1), "waiting USING INTEGER PRIMARY KEY (rowid>?)"),
        (FAILURES, {"since": 0}, "SCAN recipient USING INDEX failure"),
        (BAD_NEWS, (0,), "SCAN event USING INDEX bad_news"),
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
            sizes.append(engine.file.stat().st_size)
        assert Path(f"{engine.file}-wal").stat().st_size < 16 << 20
        assert sizes[2] < sizes[0] + (2 << 20)
        assert sizes[2] < 8 << 20

    engine.run(test)


def test_no_content_stays_in_memory_with_the_statement_that_kept_it(engine):
    engine.run(nothing)
    used = ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used
    used.restype = ctypes.c_int64
    number = itertools.count(1)
    with closing(schema.connect(engine.file)) as connection:
        before = used()
        for mails in range(1, 17):  # each number of rows is a statement of its own, and all of them stay prepared
            records = [MailRecord((next(number), "r", "", 0.0, 100_000, "", "", None, ""), ()) for _ in range(mails)]
            statements.insert_records(connection, [(record, bytes(100_000)) for record in records])
        (kept,) = connection.execute("SELECT count(*) FROM content WHERE length(bytes) = 100000").fetchone()
        connection.execute("PRAGMA shrink_memory")  # what is left is not the cache of pages
        assert kept == 136
        assert used() - before < 1 << 20


def test_a_long_backlog_costs_no_memory_and_no_time_at_open(engine):
    mails = 100_000
    engine.run(nothing)
    with closing(sqlite3.connect(engine.file)) as connection:
        for table, row in (
            ("mail", "i, 'acme.nl', 'a@acme.nl', 1, 9, '', '', NULL, '', 0, NULL"),
            ("waiting", "i, 'acme.nl', 1, 9, 0, 0, 0"),
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
