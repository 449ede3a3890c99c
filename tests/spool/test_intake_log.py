"""The log in front of the database: what it promised is there after every crash, once, and nothing else is."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
import threading
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool import intake_log
from spool.absorbing import take_over
from spool.contract import SpoolUnavailable, SpoolUnusable
from spool.intake_log import IntakeLog, path_of
from spool.sqlite_file import SqliteFile
from spool.view import Filter
from spool.writer import Writer
from tests.spool.engines import REJECT, RETRY, Sqlite, arrival, nothing, put_all, settlement

PAGE = 4096


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


@pytest.fixture
def nothing_absorbed(monkeypatch):
    """The database takes nothing over before somebody asks, so that a test sees what the log holds."""
    monkeypatch.setattr(Writer, "_is_due", lambda _: False)


def copy(engine: Sqlite, to: str) -> Sqlite:
    """What a kill would leave just now."""
    other = Sqlite(engine.folder / to, engine.clock)
    other.folder.mkdir()
    for file in engine.folder.glob("spool.db*"):
        if not file.name.endswith("-shm"):
            shutil.copy(file, other.folder)
    return other


async def absorbed(spool) -> None:
    """Ask the database, which takes over what is in the log."""
    await spool._ask(lambda _: None, lambda _: None)


async def content_of(spool, engine) -> list[bytes]:
    mails = []
    while found := await spool.lease("acme.nl", 100, engine.clock.now + 9):
        mails += found
    return [mail.content for mail in mails]


def contents(engine: Sqlite) -> list[bytes]:
    """Of all mail that waits after a start; in the order of its due times."""
    found = []

    async def look(spool):
        found.extend(await content_of(spool, engine))

    engine.run(look)
    return found


def rows(engine: Sqlite, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(engine.file)) as connection:
        return connection.execute(statement).fetchall()


def test_mail_is_promised_by_the_log_and_found_after_a_kill(engine, nothing_absorbed):
    async def test(spool):
        for number in range(5):
            await spool.put(arrival(spool, engine.clock, content=b"%d" % number))
        assert rows(engine, "SELECT count(*) FROM mail") == [(0,)]
        assert stat.S_IMODE(path_of(engine.file).stat().st_mode) == 0o600
        killed = copy(engine, "killed")
        for _ in range(2):  # and only once
            assert await asyncio.to_thread(contents, killed) == [b"0", b"1", b"2", b"3", b"4"]

    engine.run(test)


def test_a_spool_that_was_closed_is_one_file_again(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        assert path_of(engine.file).exists()

    engine.run(test)
    assert not path_of(engine.file).exists()
    assert len(contents(engine)) == 1


def test_a_mail_that_is_settled_soon_never_enters_the_database_and_has_its_story(engine, nothing_absorbed):
    async def test(spool):
        kept = arrival(spool, engine.clock, recipients=("a@x.nl", "b@x.nl", "a@x.nl"), repairs=("Date",))
        await spool.put(kept)
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool._ask(lambda connection: connection.set_trace_callback(said.append), print)
        await spool.settle(settlement(mail, REJECT, note="why"))
        await spool._ask(lambda connection: connection.set_trace_callback(None), print)
        with engine.view() as view:
            story = view.show(kept.id)
        assert [entry.event for entry in story.entries] == ["received", "repaired", "attempt", "note"]
        assert story.mail.attempts == 1
        assert [(line.address, line.state) for line in story.mail.recipients] == [
            ("a@x.nl", "delivered"),
            ("b@x.nl", "delivered"),
        ]
        assert (await spool.backlog(), spool.octets) == ({}, 0)

    said: list[str] = []
    engine.run(test)
    assert any("INSERT INTO mail" in one for one in said) or not any("INTO content" in one for one in said)
    assert rows(engine, "SELECT count(*) FROM content") == rows(engine, "SELECT count(*) FROM waiting") == [(0,)]
    assert rows(engine, "SELECT settled_at IS NULL FROM mail") == [(0,)]


def test_what_became_of_a_mail_is_in_the_log_with_the_next_mail(engine, nothing_absorbed):
    """A kill -9 then does not send it again."""

    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock, content=name) for name in (b"sent", b"later", b"left")])
        sent, later = await spool.lease("acme.nl", 2, engine.clock.now)
        spool.settle(settlement(sent))
        spool.settle(settlement(later, RETRY, engine.clock.now + 5, doubted=frozenset({"jan@example.org"})))
        await spool.put(arrival(spool, engine.clock, content=b"next"))
        assert rows(engine, "SELECT count(*) FROM mail") == [(0,)]
        killed = copy(engine, "killed")

        async def look(after):
            mails = await after.lease("acme.nl", 9, engine.clock.now + 9)
            assert [mail.content for mail in mails] == [b"left", b"next", b"later"]
            assert (mails[2].attempts, mails[2].recipients[0].doubts) == (1, 1)

        await asyncio.to_thread(killed.run, look)
        with killed.view() as view:
            (story,) = view.list(Filter(settled=True), 9)
            assert story.id == sent.id

    engine.run(test)


def test_what_the_database_has_is_never_taken_from_the_log_again(engine, monkeypatch):
    """The kill between the commit and the next batch, and a history that is pruned after it."""

    async def test(spool):
        await spool.put(arrival(spool, engine.clock, content=b"gone"))
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(mail))
        await spool.put(arrival(spool, engine.clock, content=b"waits"))
        await absorbed(spool)
        killed = copy(engine, "killed")
        assert path_of(killed.file).stat().st_size

        async def look(after):
            assert await after.prune(engine.clock.now + 9_000_000) == 1

        await asyncio.to_thread(killed.run, look)
        shutil.copy(path_of(engine.file), killed.folder)
        assert await asyncio.to_thread(contents, killed) == [b"waits"]
        assert rows(killed, "SELECT count(*) FROM mail") == [(1,)]

    engine.run(test)


def test_a_log_of_another_database_is_refused_with_what_to_do(engine, tmp_path, nothing_absorbed):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        other = Sqlite(tmp_path / "other", engine.clock)
        other.folder.mkdir()
        await asyncio.to_thread(other.run, nothing)
        shutil.copy(path_of(engine.file), other.folder)
        before = path_of(other.file).read_bytes()
        with pytest.raises(SpoolUnusable, match=r"another spool\.db, or for a newer.*move .*-intake aside"):
            await asyncio.to_thread(other.run, nothing)
        assert path_of(other.file).read_bytes() == before
        path_of(other.file).unlink()
        await asyncio.to_thread(other.run, nothing)

    engine.run(test)


def test_an_older_copy_of_the_database_is_refused_beside_a_newer_log(engine):
    copies = []

    async def first(spool):
        await spool.put(arrival(spool, engine.clock))
        await absorbed(spool)
        copies.append(copy(engine, "old"))
        for _ in range(3):
            await spool.put(arrival(spool, engine.clock))
            await absorbed(spool)
        await spool.put(arrival(spool, engine.clock))
        shutil.copy(path_of(engine.file), copies[0].folder)

    engine.run(first)
    with pytest.raises(SpoolUnusable, match="newer state of it"):
        copies[0].run(nothing)


# ---- torn and garbled


@contextmanager
def garbled(engine: Sqlite, files: dict[str, bytes], log: bytes):
    for left in engine.folder.glob("spool.db*"):
        left.unlink()
    for name, octets in files.items():
        (engine.folder / name).write_bytes(octets)
    path_of(engine.file).write_bytes(log)
    yield


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """(files, log, places): files of a spool that was killed with eight batches in its log, over an older generation
    that was longer; `places` is where each batch begins, and the last ends.
    """
    engine = Sqlite(tmp_path_factory.mktemp("crashed"))
    files, places = {}, []

    async def test(spool):
        for number in range(12):
            await spool.put(arrival(spool, engine.clock, content=b"old %d" % number + b"y" * 7000))
        for mail in await spool.lease("acme.nl", 20, engine.clock.now):
            spool.settle(settlement(mail))
        await absorbed(spool)
        for number in range(8):
            places.append(spool._writer._unabsorbed.log._end)
            await spool.put(arrival(spool, engine.clock, content=b"%d" % number + b"x" * 5000))
        places.append(spool._writer._unabsorbed.log._end)
        files.update(
            {file.name: file.read_bytes() for file in engine.folder.glob("spool.db*") if "shm" not in file.name}
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "_is_due", lambda _: False)
        engine.run(test)
    return {name: octets for name, octets in files.items() if "intake" not in name}, files["spool.db-intake"], places


def survivors(engine: Sqlite, crashed, log: bytes) -> list[int] | None:
    """Numbers of the mails that are found; None when the relay refuses to start."""
    with garbled(engine, crashed[0], log):
        try:
            return sorted(int(content[:1]) for content in contents(engine))
        except SpoolUnusable as error:
            said = str(error)
        assert "intake log" in said
        assert "move it aside to start with" in said
        assert path_of(engine.file).read_bytes() == log, "left as it is"
        return None


def test_all_that_was_promised_is_there(engine, crashed):
    assert survivors(engine, crashed, crashed[1]) == list(range(8))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(cut=st.integers(0, 8 * 8192))
def test_a_log_that_was_cut_off_gives_all_before(engine, crashed, cut):
    _, log, places = crashed
    whole = sum(1 for end in places[1:] if cut >= end - 4096)  # the last page need not be whole
    found = survivors(engine, crashed, log[:cut])
    assert found is not None
    assert found == list(range(len(found)))
    assert len(found) >= whole - 1


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_turned_is_found(engine, crashed, at, bit):
    """In a batch that was promised it stops the start; in the last one it is what a crash may leave."""
    _, log, places = crashed
    place = int(at * places[-1])
    bad = log[:place] + bytes((log[place] ^ (1 << bit),)) + log[place + 1 :]
    found = survivors(engine, crashed, bad)
    if place >= places[-2]:
        assert found in (list(range(7)), list(range(8)))
    else:
        assert found in (None, list(range(8))), "a promised mail is gone without a word"


def test_a_last_batch_that_is_half_on_disk_is_a_crash_and_no_damage(engine, crashed):
    _, log, places = crashed
    last = places[-2]
    assert survivors(engine, crashed, log[:last] + bytes(PAGE) + log[last + PAGE :]) == list(range(7))
    assert survivors(engine, crashed, log[: last + PAGE] + bytes(PAGE) + log[last + 2 * PAGE :]) == list(range(7))


def test_zeros_and_noise_are_no_mail(engine, crashed):
    assert survivors(engine, crashed, bytes(len(crashed[1]))) == []
    assert survivors(engine, crashed, b"") == []
    assert survivors(engine, crashed, b"\xa5" * 50_000) == []


def test_a_mail_that_looks_like_the_log_of_another_stops_no_start(engine, nothing_absorbed, tmp_path):
    """A client may send what it likes, also at the place where a batch could begin."""
    foreign = Sqlite(tmp_path / "foreign", engine.clock)
    foreign.folder.mkdir()
    logs = []

    async def strange(spool):
        await spool.put(arrival(spool, engine.clock, content=b"evil"))
        logs.append(path_of(foreign.file).read_bytes()[: 2 * PAGE])

    foreign.run(strange)

    async def test(spool):
        for shift in range(0, PAGE, 8):
            await spool.put(arrival(spool, engine.clock, content=bytes(shift) + logs[0] * 3))
        killed = copy(engine, "killed")
        with path_of(killed.file).open("r+b") as log:
            log.write(bytes(100))
        with pytest.raises(SpoolUnusable, match="intake log"):  # our own damage is found among them
            await asyncio.to_thread(contents, killed)
        shutil.copy(path_of(engine.file), killed.folder)
        assert len(await asyncio.to_thread(contents, killed)) == PAGE // 8

    engine.run(test)


# ---- faults of the log


def test_a_log_that_cannot_be_written_makes_it_slower_and_no_mail_is_refused(engine, monkeypatch, caplog):
    def broken(*_):
        raise OSError(5, "Input/output error")

    async def test(spool):
        await spool.put(arrival(spool, engine.clock, content=b"0"))
        with monkeypatch.context() as patch:
            patch.setattr(intake_log, "_write", broken)
            for number in range(1, 4):
                await spool.put(arrival(spool, engine.clock, content=b"%d" % number))
            assert len(rows(engine, "SELECT 1 FROM mail")) == 4
            assert spool.troubles == {"intake_log"}
        killed = copy(engine, "killed")
        assert await asyncio.to_thread(contents, killed) == [b"0", b"1", b"2", b"3"]

    engine.run(test)
    assert [record.message for record in caplog.records] == ["spool.intake_log_failed"]


def test_after_a_first_batch_that_failed_and_may_be_on_disk_the_log_begins_anew(engine, monkeypatch, nothing_absorbed):
    write = intake_log._write

    def broken(*given: object) -> None:
        write(*given)
        raise OSError(5, "Input/output error")

    def unable(*_: object) -> None:
        raise OSError(5, "Input/output error")

    async def test(spool):
        before = rows(engine, "SELECT absorbed FROM intake")
        monkeypatch.setattr("spool.writer._LOG_AGAIN_AFTER", 0.0)
        with monkeypatch.context() as patch:
            patch.setattr(intake_log, "_write", broken)
            patch.setattr(intake_log.os, "pwrite", unable)
            await spool.put(arrival(spool, engine.clock, content=b"0"))
        assert rows(engine, "SELECT absorbed FROM intake") > before
        assert spool.troubles == {"intake_log"}
        await spool.put(arrival(spool, engine.clock, content=b"1"))
        assert len(rows(engine, "SELECT 1 FROM mail")) == 1, "the other is in the log"
        assert spool.troubles == set()
        assert await asyncio.to_thread(contents, copy(engine, "killed")) == [b"0", b"1"]

    engine.run(test)


@pytest.fixture
def threads(monkeypatch):
    """The names of the threads that appended to the log."""
    names = []
    append = IntakeLog.append

    def named(log, parts):
        names.append(threading.current_thread().name)
        return append(log, parts)

    monkeypatch.setattr(IntakeLog, "append", named)
    monkeypatch.setattr("spool.writer._QUICK", 60.0)  # however busy the machine is
    monkeypatch.setattr("spool.writer._ALONE", 2)
    return names


def test_the_loop_appends_by_itself_while_that_is_quick(engine, threads, monkeypatch):
    async def test(spool):
        async def put() -> None:
            await asyncio.sleep(0.001)  # the thread may still be at the batch before
            await spool.put(arrival(spool, engine.clock, content=b"%d" % len(threads)))

        while "MainThread" not in threads:
            await put()
        assert threads[0] == "spool-writer", "whether there is room is asked there"
        monkeypatch.setattr("spool.writer._QUICK", 0.0)
        monkeypatch.setattr("spool.writer._SLOW_REST", 1e9)
        while threads[-2:] != ["MainThread", "spool-writer"]:
            await put()
        quick = threads.count("MainThread")
        for _ in range(10):
            await put()
        assert threads.count("MainThread") == quick
        killed = copy(engine, "killed")
        assert await asyncio.to_thread(contents, killed) == [b"%d" % number for number in range(len(threads))]

    engine.run(test)


def test_mails_that_come_together_are_gathered_by_the_thread(engine, threads):
    async def test(spool):
        while "MainThread" not in threads:
            await asyncio.sleep(0.001)
            await spool.put(arrival(spool, engine.clock))
        quick = threads.count("MainThread")
        for _ in range(10):
            await asyncio.gather(*[spool.put(arrival(spool, engine.clock)) for _ in range(3)])
        assert threads.count("MainThread") == quick

    engine.run(test)


def test_the_loop_never_waits_for_the_database(engine, threads, nothing_absorbed):
    """While the thread is at work there, mail is handed to it; it is not seen before what was asked earlier."""
    at_work, go_on = threading.Event(), threading.Event()

    def slow(_):
        at_work.set()
        assert go_on.wait(30)

    async def test(spool):
        for number in range(2):
            await spool.put(arrival(spool, engine.clock, content=b"%d" % number))
        question = asyncio.ensure_future(spool._ask(slow, lambda _: len(spool._shelves.of("acme.nl").fresh)))
        await asyncio.to_thread(at_work.wait)
        put = asyncio.create_task(spool.put(arrival(spool, engine.clock, content=b"2")))
        await asyncio.sleep(0.05)
        assert not put.done()
        go_on.set()
        await put
        assert await question == 2
        assert threads[-1] == "spool-writer"
        assert await content_of(spool, engine) == [b"0", b"1", b"2"]

    engine.run(test)


def test_an_append_of_the_loop_that_fails_is_told_and_the_mail_kept(engine, monkeypatch, caplog, nothing_absorbed):
    def broken(*_):
        raise OSError(5, "Input/output error")

    async def test(spool):
        monkeypatch.setattr("spool.writer._QUICK", 60.0)
        monkeypatch.setattr("spool.writer._ALONE", 0)
        await spool.put(arrival(spool, engine.clock, content=b"0"))
        with monkeypatch.context() as patch:
            patch.setattr(intake_log, "_write", broken)
            await spool.put(arrival(spool, engine.clock, content=b"1"))
        assert len(rows(engine, "SELECT 1 FROM mail")) == 2

    engine.run(test)
    assert [record.message for record in caplog.records] == ["spool.intake_log_failed"]


@pytest.mark.parametrize("replaced", [False, True])
def test_mail_never_goes_into_a_log_that_was_deleted(engine, replaced):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock, content=b"0"))
        path_of(engine.file).unlink()
        if replaced:
            path_of(engine.file).write_bytes(b"theirs")
        await absorbed(spool)
        assert len(rows(engine, "SELECT 1 FROM mail")) == 1
        await spool.put(arrival(spool, engine.clock, content=b"1"))
        killed = copy(engine, "killed")
        if replaced:
            assert path_of(engine.file).read_bytes() == b"theirs"
        assert await asyncio.to_thread(contents, killed) == [b"0", b"1"]

    engine.run(test)


def test_a_mail_too_large_for_the_log_goes_straight_into_the_database(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock, content=b"x" * (40 << 20)))
        assert len(rows(engine, "SELECT 1 FROM content")) == 1

    engine.run(test)


@pytest.mark.parametrize("sender", ["info@acme.nl", "\ud800@acme.nl"], ids=["kept", "refused"])
def test_mail_past_a_log_that_nothing_is_in_leaves_it_as_it_is(engine, nothing_absorbed, sender):
    """Where nothing could come twice no generation ends: what goes into the log afterwards counts."""

    async def test(spool):
        before = rows(engine, "SELECT absorbed FROM intake")
        large = arrival(spool, engine.clock, sender=sender, content=b"x" * (2 << 20))
        if sender.isascii():
            await spool.put(large)
        else:
            with pytest.raises(ValueError, match="surrogates"):
                await spool.put(large)
        assert rows(engine, "SELECT absorbed FROM intake") == before
        await spool.put(arrival(spool, engine.clock, content=b"0"))
        killed = await asyncio.to_thread(contents, copy(engine, "killed"))
        assert sorted(killed, key=len) == [b"0", *[large.content] * sender.isascii()]
        (mail, *_) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(mail))
        await absorbed(spool)
        assert rows(engine, "SELECT absorbed FROM intake") > before
        await spool.put(arrival(spool, engine.clock, content=b"1"))
        assert b"1" in await asyncio.to_thread(contents, copy(engine, "again"))

    engine.run(test)


def test_a_log_that_is_full_is_emptied_and_goes_on(engine, monkeypatch, nothing_absorbed):
    monkeypatch.setattr(intake_log, "CAPACITY", 100_000)

    async def test(spool):
        for number in range(30):
            await spool.put(arrival(spool, engine.clock, content=b"%02d" % number + b"x" * 20_000))
        assert path_of(engine.file).stat().st_size <= 1 << 20
        found = await content_of(spool, engine)
        assert [int(content[:2]) for content in found] == list(range(30))

    engine.run(test, memory=50_000)


def test_people_see_a_mail_a_moment_after_its_put(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        for _ in range(500):
            if rows(engine, "SELECT 1 FROM waiting"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("never seen")

    engine.run(test)


def test_those_who_move_a_spool_take_along_what_a_crash_left(engine, nothing_absorbed):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        killed = copy(engine, "killed")
        await asyncio.to_thread(take_over, killed.file)
        assert rows(killed, "SELECT count(*) FROM waiting") == [(1,)]
        assert not path_of(killed.file).exists()

    engine.run(test)


def test_a_commit_that_seemed_to_fail_and_came_through_hides_no_later_mail(engine, monkeypatch):
    """The database has the generation then, and the log must not go on in it."""

    async def test(spool):
        transaction = SqliteFile.transaction

        def came_through(file, work):
            transaction(file, work)
            raise sqlite3.OperationalError("disk I/O error")

        await spool.put(arrival(spool, engine.clock, content=b"0"))
        with monkeypatch.context() as patch:
            patch.setattr(SqliteFile, "transaction", came_through)
            await absorbed(spool)
            with pytest.raises(SpoolUnavailable):
                await spool.put(arrival(spool, engine.clock, content=b"1"))
        for number in (2, 3):
            await spool.put(arrival(spool, engine.clock, content=b"%d" % number))
        await absorbed(spool)
        assert [content[0] for (content,) in rows(engine, "SELECT bytes FROM content ORDER BY mail")] == [
            48,
            49,
            50,
            51,
        ]
        assert await content_of(spool, engine) == [b"0", b"1", b"2", b"3"]

    engine.run(test)
