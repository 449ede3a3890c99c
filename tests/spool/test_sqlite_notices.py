"""What providers tell, in the file: found by an index, and no heap of old seals."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from spool import notices
from spool.contract import Notice
from tests.spool.engines import Sqlite, nothing


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (notices.ROUTE, (1,), "SEARCH mail USING INTEGER PRIMARY KEY"),
        (notices.HANDED, (1, "sg"), "SEARCH event USING INDEX event_by_mail (mail=?)"),
        (notices.FORGET_SEALS, (1,), "SEARCH seal USING INDEX seal_by_until (until<?)"),
    ],
)
def test_a_mail_is_found_without_a_walk(engine, statement, values, index):
    engine.run(nothing)
    with closing(sqlite3.connect(engine.file)) as connection:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, values)]
    assert any(index in step or index.replace("INDEX", "COVERING INDEX") in step for step in plan), plan
    assert not any(step.startswith("SCAN") for step in plan), plan


def test_seals_that_are_over_are_forgotten(engine):
    async def test(spool):
        for number in range(30):
            engine.clock.now += 10
            await spool.note(Notice("sg", frozenset(), (), f"seal {number}", engine.clock.now + 50))

    engine.run(test)
    with closing(sqlite3.connect(engine.file)) as connection:
        assert connection.execute("SELECT count(*) FROM seal").fetchone()[0] < 10
