"""A spool that an older relay wrote: opened with all its mail, and brought to the present format once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from spool import schema
from spool.contract import Pending, SpoolUnusable
from spool.sqlite_view import SqliteView
from spool.view import Filter
from tests.spool.engines import Sqlite, nothing, settlement

FORMAT_1 = (Path(__file__).parent / "format_1.sql").read_text("utf-8")
WAITS, SETTLED = 3565158400000000001, 3565158400000000002


@pytest.fixture
def old(tmp_path):
    engine = Sqlite(tmp_path)
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; {FORMAT_1}")
    return engine


def layout(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every table's columns, and every index's."""
    with closing(sqlite3.connect(file)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema ORDER BY name")]
        columns = {name: connection.execute(f"SELECT * FROM pragma_table_info('{name}')").fetchall() for name in names}
        return columns | {
            f"index {name}": connection.execute(f"SELECT * FROM pragma_index_info('{name}')").fetchall()
            for name in names
        }


def test_an_old_spool_keeps_its_mail_and_its_history(old):
    async def test(spool):
        (mail,) = await spool.lease("acme.nl", 9, old.clock.now + 60)
        assert (mail.id, mail.content) == (WAITS, b"From: info@acme.nl\r\n\r\nDag\r\n")
        assert (mail.recipients, mail.attempts) == ((Pending("jan@example.org", 1),), 1)
        await spool.settle(settlement(mail))
        assert spool.next_id() > SETTLED

    old.run(test)
    with old.view() as view:
        assert [line.id for line in view.list(Filter(settled=True), 9)] == [WAITS, SETTLED]
        story = view.show(SETTLED)
        assert [entry.event for entry in story.entries] == ["received", "repaired", "attempt"]
        assert story.mail.recipients[0].last.reply == "250 Ok"


def test_an_old_spool_ends_up_like_a_new_one(old, tmp_path):
    old.run(nothing)
    (tmp_path / "new").mkdir()
    new = Sqlite(tmp_path / "new")
    new.run(nothing)
    assert layout(old.file) == layout(new.file)
    old.run(nothing)  # and it opens again


def test_a_change_of_format_that_fails_leaves_the_old_one(old):
    with closing(sqlite3.connect(old.file)) as connection:
        connection.execute("CREATE TABLE seal (somebody_elses)")
    with pytest.raises(SpoolUnusable):
        old.run(nothing)
    with closing(sqlite3.connect(old.file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM mail").fetchone() == (2,)
        assert not connection.execute("SELECT 1 FROM pragma_table_info('event') WHERE name = 'told'").fetchone()


def test_a_view_of_an_old_spool_says_what_to_do(old):
    with pytest.raises(SpoolUnusable, match="restart the relay"):
        SqliteView(old.url)


def test_a_database_of_ours_without_a_format_is_no_spool(tmp_path):
    engine = Sqlite(tmp_path)
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.execute("PRAGMA application_id = 1129337427")
        connection.execute("CREATE TABLE half (made)")
    with pytest.raises(SpoolUnusable, match="not a spool"):
        engine.run(nothing)
    assert schema.VERSION > 1
