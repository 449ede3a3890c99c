"""A file that is not what was written: refused with what to do, or every mail that can be read leaves and every other
one is named; never a new file in its place, never a promise forgotten without a word.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import sqlite3

import pytest

from spool import log_check
from spool.contract import SpoolUnavailable, SpoolUnusable, id_text
from spool.sqlite import SqliteSpool
from tests.spool.engines import Sqlite, arrival, put_all, settlement

PAGE = 4096


@pytest.fixture
def engine(tmp_path):
    return Sqlite(tmp_path)


@pytest.fixture
def told(caplog):
    """(event, mail) of everything critical so far."""
    caplog.set_level(logging.CRITICAL)
    return lambda: [(record.message, getattr(record, "fields", {}).get("mail")) for record in caplog.records]


def lay_out(engine: Sqlite) -> bytes:
    """A spool of forty mails, a quarter of them settled, closed in good order."""
    sizes = random.Random(1)

    async def fill(spool):
        many = [arrival(spool, engine.clock, content=b"x" * sizes.choice((100, 3000, 9000))) for _ in range(40)]
        await put_all(spool, many)
        for mail in await spool.lease("acme.nl", 10, engine.clock.now):
            spool.settle(settlement(mail))

    engine.run(fill, memory=0)
    return engine.file.read_bytes()


async def carry_out(spool: SqliteSpool, now: float) -> set[str]:
    """Deliver all that can be; the ids. After an empty answer delivery asks again, and so do we."""
    seen: set[str] = set()
    kept, empty = [], 0
    while empty < 8:
        mails = await spool.lease("acme.nl", 20, now)
        empty = 0 if mails else empty + 1
        for mail in mails:
            assert id_text(mail.id) not in seen, "handed out twice"
            seen.add(id_text(mail.id))
            kept.append(spool.settle(settlement(mail)))
    for answer in await asyncio.wait_for(asyncio.gather(*kept, return_exceptions=True), 60):
        assert answer is None or isinstance(answer, sqlite3.DatabaseError)
    return seen


def test_a_page_of_garbage_stops_no_mail_that_can_be_read_and_hides_none_that_cannot(engine, told, caplog):
    octets = lay_out(engine)
    carried = 0
    refused: set[str] = set()
    noise = random.Random(2)
    for page in range(len(octets) // PAGE):
        caplog.clear()
        damaged = octets[: page * PAGE] + noise.randbytes(PAGE) + octets[(page + 1) * PAGE :]
        for left in engine.folder.glob("spool.db-*"):
            left.unlink()
        engine.file.write_bytes(damaged)

        async def story() -> None:
            async with engine.spool(memory=0) as spool:
                seen = await carry_out(spool, engine.clock.now)
                unseen = {mail for event, mail in told() if event == "spool.mail_unreadable"}
                assert len(seen | unseen) == 30, "a mail is neither handed out nor named"
                assert not seen & unseen
                assert ("damaged" in spool.troubles) == bool(told())
                if told():
                    assert ("spool.damaged", None) in told()
                    with pytest.raises(SpoolUnavailable, match=r"\.recover"):
                        await spool.put(arrival(spool, engine.clock))

        try:
            asyncio.run(story())
            carried += 1
        except SpoolUnusable as error:
            refused.add(str(error))
            assert engine.file.read_bytes() == damaged, "left as it is"
    assert carried > 20
    assert len(refused) > 3
    assert all("damaged" in text and ".recover" in text for text in refused)


# ---- the write-ahead log


def crashed(engine: Sqlite) -> tuple[bytes, bytes]:
    """The file and its log after twenty transactions and a crash."""
    copies = []

    async def fill(spool):
        for number in range(20):
            await spool.put(arrival(spool, engine.clock, content=b"%d" % number + b"x" * 6000))
            await spool.backlog()  # a question, so it is in the database
        copies.extend((engine.file.read_bytes(), engine.file.with_name("spool.db-wal").read_bytes()))

    engine.run(fill)
    return copies[0], copies[1]


def put_back(engine: Sqlite, octets: bytes, log: bytes) -> None:
    for left in engine.folder.glob("spool.db-*"):
        left.unlink()
    engine.file.write_bytes(octets)
    engine.file.with_name("spool.db-wal").write_bytes(log)


def waiting(engine: Sqlite) -> int:
    found = []

    async def look(spool):
        backlog = await spool.backlog()
        found.append(backlog["acme.nl"].waiting if backlog else 0)

    engine.run(look)
    return found[0]


def test_a_log_that_a_crash_tore_is_read_up_to_there(engine):
    octets, log = crashed(engine)
    put_back(engine, octets, log)
    assert waiting(engine) == 20
    before = 20
    for cut in range(len(log), -1, -9001):
        put_back(engine, octets, log[:cut])
        now = waiting(engine)
        assert now <= before
        before = now
    put_back(engine, octets, bytes(len(log)))
    assert waiting(engine) == 0, "a log of zeros was never on disk"


def test_a_last_transaction_that_is_half_on_disk_is_a_crash_and_no_damage(engine):
    octets, log = crashed(engine)
    frame = 24 + PAGE
    put_back(engine, octets, log[: -2 * frame] + bytes(frame) + log[-frame:])
    assert waiting(engine) == 19


@pytest.mark.parametrize("where", [0, 3, 9, 20, 31, 32, 40, 5000, 20_000, 60_000])
def test_garbage_in_the_log_is_refused_and_left_as_it_is(engine, where):
    octets, log = crashed(engine)
    bad = log[:where] + bytes((log[where] ^ 0xFF,)) + log[where + 1 :]
    put_back(engine, octets, bad)
    with pytest.raises(SpoolUnusable, match=r"write-ahead log .*and was left as it is.*\.recover"):
        waiting(engine)
    assert (engine.file.read_bytes(), engine.file.with_name("spool.db-wal").read_bytes()) == (octets, bad)


def test_garbage_over_many_frames_and_over_the_whole_log(engine):
    octets, log = crashed(engine)
    noise = random.Random(3).randbytes(len(log))
    for bad in (noise, log[:9000] + noise[9000:30_000] + log[30_000:], b"\0" + noise[1:]):
        put_back(engine, octets, bad)
        with pytest.raises(SpoolUnusable, match="write-ahead log"):
            waiting(engine)


def test_a_log_that_begins_anew_over_an_older_one_is_whole(engine):
    """Frames of the older log stand behind those of the new one."""

    async def fill(spool):
        for number in range(8):
            await spool.put(arrival(spool, engine.clock, content=b"x" * 200_000))
            await spool.backlog()
            if number == 5:
                await spool._ask(lambda c: c.execute("PRAGMA wal_checkpoint(RESTART)").fetchone(), print)
        for name in ("spool.db", "spool.db-wal"):
            shutil.copy(engine.folder / name, engine.folder / f"copy-{name}")

    engine.run(fill)
    assert (engine.folder / "copy-spool.db-wal").stat().st_size > 1_000_000
    put_back(engine, *[(engine.folder / f"copy-{name}").read_bytes() for name in ("spool.db", "spool.db-wal")])
    assert waiting(engine) == 8


def test_no_log_is_no_damage(engine):
    assert log_check.damage(engine.file) is None
