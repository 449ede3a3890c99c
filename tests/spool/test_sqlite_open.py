"""What the SQLite engine says when it cannot or must not open a file."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from spool import schema
from spool.contract import SpoolUnusable
from spool.holding import Hold, Scope
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import Filter
from tests.spool.engines import Sqlite, arrival, nothing, put_all

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


def refusal(engine: Sqlite) -> str:
    with pytest.raises(SpoolUnusable) as refused:
        engine.run(nothing)
    return str(refused.value)


def test_a_missing_folder_is_named(engine):
    engine.folder = engine.folder / "missing"
    assert f"{engine.folder} does not exist" in refusal(engine)


def test_a_folder_that_cannot_be_written_is_named(open_folder):
    program = (
        "import asyncio, os, sys; from spool.sqlite import SqliteSpool\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(SqliteSpool.open(sys.argv[1], size_limit=1))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    if os.getuid():
        pytest.skip("only root can become somebody else")
    url = f"sqlite:///{open_folder}/spool.db"
    said = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.startswith("SpoolUnusable"), said.stderr
    assert "Permission denied" in said.stdout


@pytest.mark.parametrize("url", ["postgresql://x/y", "sqlite:relative.db", "sqlite://host/x.db", "sqlite:///"])
def test_a_url_that_is_not_understood_is_refused_with_an_example(url):
    with pytest.raises(SpoolUnusable, match="spool"):
        asyncio.run(SqliteSpool.open(url, size_limit=1))


@pytest.mark.parametrize("octets", [b"this is no database at all, " * 100, b"SQLite format 3\x00" + b"\xff" * 4080])
def test_a_corrupt_file_is_refused_and_left_as_it_is(engine, octets):
    engine.file.write_bytes(octets)
    assert "damaged" in refusal(engine)
    assert engine.file.read_bytes() == octets


def test_a_spool_without_room_to_open_it_is_not_called_damaged(engine):
    """SQLite needs some room beside the file to open it. Whoever reads "damaged" moves good mail away."""

    async def fill(spool):
        await put_all(spool, [arrival(spool, engine.clock)])

    engine.run(fill)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        said = refusal(engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "damaged" not in said
    assert "cannot be opened (disk I/O error)" in said
    assert "the mail in it is safe" in said


def test_a_spool_cut_short_is_refused(engine):
    async def fill(spool):
        await put_all(spool, [arrival(spool, engine.clock, content=b"x" * 5000) for _ in range(50)])

    engine.run(fill)
    octets = engine.file.read_bytes()[:40_000]
    engine.file.write_bytes(octets)
    assert "damaged" in refusal(engine)
    assert engine.file.read_bytes() == octets


def test_somebody_elses_database_is_refused_and_left_as_it_is(engine):
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    octets = engine.file.read_bytes()
    assert "not a spool" in refusal(engine)
    assert engine.file.read_bytes() == octets


def test_a_newer_format_is_refused_with_what_to_do(engine):
    engine.run(nothing)
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    assert "empty its queue" in refusal(engine)
    with pytest.raises(SpoolUnusable, match=f"format {schema.VERSION + 1}"):
        SqliteView(engine.url)


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_file_of_an_older_format_opens_with_all_that_is_in_it(engine, version):
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.executescript("".join(schema._STEPS[:version]) + f"PRAGMA user_version = {version};")
        connection.executescript(_OLD_MAIL)
    with pytest.raises(SpoolUnusable, match="older relay"):
        SqliteView(engine.url)

    async def test(spool):
        (mail,) = await spool.lease("acme.nl", 5, engine.clock.now)
        assert (mail.id, mail.sender, mail.content, mail.released_at) == (7, "info@acme.nl", b"Dag", 0.0)
        with engine.view() as view:
            (waits,) = view.list(Filter(recipient="jan@x.nl"), 5)
            assert waits.id == 7
            (failed,) = view.failures(0)
            assert (failed.recipient, failed.how) == ("piet@x.nl", "failed")
        await spool.hold(Hold(Scope.ROUTE, "acme.nl", 1.0, "jan", "why"))

    engine.run(test)
    engine.run(nothing)


def test_an_upgrade_that_breaks_off_leaves_the_file_as_it_was(engine):
    with closing(sqlite3.connect(engine.file)) as connection:
        connection.executescript(schema._STEPS[0] + "PRAGMA user_version = 1; CREATE TABLE hold (theirs);")
    assert "damaged" in refusal(engine)
    with closing(sqlite3.connect(engine.file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'spent'").fetchone()


_OLD_MAIL = """
INSERT INTO mail (id, route, sender, received_at, size, peer, helo, repairs)
  VALUES (7, 'acme.nl', 'info@acme.nl', 1, 3, '', '', '');
INSERT INTO waiting (id, route, due_at, size) VALUES (7, 'acme.nl', 1, 3);
INSERT INTO content VALUES (7, x'446167');
INSERT INTO recipient (mail, address, domain, state)
  VALUES (7, 'jan@x.nl', 'x.nl', 'waiting'), (7, 'piet@x.nl', 'x.nl', 'failed');
"""


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
    with pytest.raises(SpoolUnusable, match=r"there is no spool at .*: `serve` makes it"):
        SqliteView(engine.url)

    async def put(spool):
        await spool.put(arrival(spool, engine.clock))

    engine.run(put)
    with engine.view() as view:
        assert len(view.list(Filter(), 10)) == 1
