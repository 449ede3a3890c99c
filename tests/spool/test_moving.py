"""From the file to the database: everything arrives, once, however often it is broken off."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from spool import postgres_schema
from spool.contract import Settlement, SpoolInUse, Toll, id_text
from spool.holding import Hold, Scope
from spool.moving import move
from spool.view import Filter, GivenOrder, Spent, Volume
from tests.spool.engines import REJECT, Postgres, Sqlite, arrival, settlement

ROOT = Path(__file__).resolve().parents[2]


async def fill(spool, engine) -> None:
    for number in range(60):
        engine.clock.now += 1
        await spool.put(
            arrival(
                spool, engine.clock, sender="Info@ACME.nl", recipients=(f"r{number}@x.nl", "é@y.nl"), helo="a\0b",
                content=b"x" * number * 100, repairs=("date",),
            )
        )  # fmt: skip
    mails = await spool.lease("acme.nl", 30, engine.clock.now)
    for mail in mails[:10]:
        await spool.settle(settlement(mail))
    for mail in mails[10:20]:
        await spool.settle(settlement(mail, REJECT, engine.clock.now + 60, doubted=frozenset({"é@y.nl"})))
    await spool.settle(Settlement(mails[20], due_at=engine.clock.now + 5, warned=True, note="één \0"))
    await spool.hold(Hold(Scope.MAIL, id_text(mails[25].id), 1.0, "jan", "x"))
    await spool.hold(Hold(Scope.ROUTE, "other.nl", 2.0, "jan", "x"))
    await spool.spend([Spent("a", engine.clock.now, 3, 9)])
    await spool.tally([Volume(engine.clock.now, "acme.nl", "acme.nl", 5, 6, 7, 8)])
    await spool.record(GivenOrder(1.0, "jan", "drop", "route x", "", 1, 2))


def seen(engine) -> list[object]:
    with engine.view() as view:
        lines = view.list(Filter(settled=None), 100)
        stories = [view.show(line.id) for line in lines]
        # Leases are void after a start; a slow machine has marked them in the file by now.
        stories = [replace(story, mail=replace(story.mail, leased=False)) for story in stories]
        return [
            [repr(story).replace("\\x00", "").replace("\\\\x00", "").replace("\\", "") for story in stories],
            view.holds(),
            view.spent(0),
            view.volumes([0, 3e9]),
            view.orders(9),
            sorted(view.loads().items()),
        ]


def test_everything_is_moved_and_looks_the_same(tmp_path, database):
    here, there = Sqlite(tmp_path), Postgres(database)
    here.run(lambda spool: fill(spool, here))
    before = seen(here)
    told: list[tuple[int, int]] = []
    assert move(here.file, postgres_schema.options_of(database), lambda *now: told.append(now)) == 60
    assert (told[0], told[-1]) == ((0, 60), (60, 60))
    assert seen(there) == before
    there.clock.now = here.clock.now

    async def send(spool):
        assert spool.octets == sum(number * 100 for number in range(10, 60))
        mails = await spool.lease("acme.nl", 100, there.clock.now + 100)
        assert sorted(len(mail.content) for mail in mails) == [n * 100 for n in range(10, 60) if n != 25]
        assert sum(mail.warned for mail in mails) == 1
        assert {mail.sender for mail in mails} == {"Info@ACME.nl"}

    there.run(send)
    here.run(lambda spool: empty(spool))


async def empty(spool) -> None:
    assert await spool.backlog() == {}


class BrokenOff(Exception):
    pass


def test_a_move_that_is_broken_off_again_and_again_loses_nothing_and_doubles_nothing(tmp_path, database, monkeypatch):
    monkeypatch.setattr("spool.moving._CHUNK", 7)
    here, there = Sqlite(tmp_path), Postgres(database)
    here.run(lambda spool: fill(spool, here))
    before = seen(here)
    chance = random.Random(1)

    def strike(done: int, of: int) -> None:
        if chance.random() < 0.4:
            raise BrokenOff

    for _ in range(200):
        try:
            move(here.file, postgres_schema.options_of(database), strike)
            break
        except BrokenOff:
            continue
    assert seen(there) == before


def test_counts_are_added_to_those_that_are_there_and_limits_hold_from_the_first_mail_on(tmp_path, database):
    """A relay runs on the database already, and has sent; what the file's relay sent counts for both from now on."""
    here, there = Sqlite(tmp_path), Postgres(database)
    now = here.clock.now = there.clock.now = time.time()
    toll = Toll("up", (None, None, None, 1000), 1)
    volume = Volume(now - 400, "acme.nl", "acme.nl", 1, 2, 3, 4)

    async def before(spool):
        await spool.spend([Spent("up", now - 3600, 890, 890), Spent("up", now, 9, 9)])
        await spool.tally([volume])
        await spool.record(GivenOrder(1.0, "jan", "drop", "route x", "", 1, 2))

    async def beside(spool):
        tickets = await spool.admit([Toll("up", (None, None, None, 1000), 100)])
        spool.passed(tickets, counted=True)
        await spool.spend([Spent("up", now, 100, 100)])
        await spool.tally([volume])
        assert isinstance(await spool.admit([toll]), tuple)
        await asyncio.to_thread(move, here.file, postgres_schema.options_of(database), lambda *_: None)
        assert isinstance(await spool.admit([toll]), float), "899 there, 100 here and the one under way"

    here.run(before)
    there.run(beside)
    with there.view() as view:
        assert sum(one.recipients for one in view.spent(0)) == 999
        assert [(v.mails, v.recipients, v.delivered, v.failed) for v in view.volumes([0, 3e9])] == [(2, 4, 6, 8)]
        assert len(view.orders(9)) == 1


@pytest.mark.parametrize("table", ["spent", "volume", "given_order", "seal"])
def test_a_part_that_was_kept_and_not_deleted_counts_once(tmp_path, database, monkeypatch, table):
    from spool import moving

    here, there = Sqlite(tmp_path), Postgres(database)
    here.run(lambda spool: fill(spool, here))
    before, forget = seen(here), moving._forget

    def broken_off(connection, name):
        if name == table:
            raise BrokenOff
        forget(connection, name)

    with monkeypatch.context() as patch:
        patch.setattr("spool.moving._forget", broken_off)
        for _ in range(2):
            with pytest.raises(BrokenOff):
                move(here.file, postgres_schema.options_of(database), lambda *_: None)
    move(here.file, postgres_schema.options_of(database), lambda *_: None)
    assert seen(there) == before
    (tmp_path / "second").mkdir()
    other = Sqlite(tmp_path / "second")

    async def alike(spool):
        await spool.spend([Spent("a", here.clock.now, 3, 9)])

    other.clock.now = here.clock.now
    other.run(alike)
    move(other.file, postgres_schema.options_of(database), lambda *_: None)
    with there.view() as view:
        assert [(one.mails, one.recipients) for one in view.spent(0)] == [(6, 18)], "another file that says the same"


def test_a_mail_that_is_there_already_is_left_alone(tmp_path, database, monkeypatch):
    """Broken off between the commit there and the delete here; a relay there has sent it since."""
    here, there = Sqlite(tmp_path), Postgres(database)
    here.run(lambda spool: fill(spool, here))
    with monkeypatch.context() as patch:
        patch.setattr("spool.moving._delete", lambda *_: (_ for _ in ()).throw(BrokenOff))
        with pytest.raises(BrokenOff):
            move(here.file, postgres_schema.options_of(database), lambda *_: None)
    there.clock.now = here.clock.now

    async def send(spool):
        for mail in await spool.lease("acme.nl", 100, there.clock.now):
            await spool.settle(settlement(mail))

    there.run(send)
    after = seen(there)[0]
    move(here.file, postgres_schema.options_of(database), lambda *_: None)
    assert seen(there)[0] == after


def test_a_mail_whose_number_is_another_mails_there_gets_a_new_one(tmp_path, database):
    """The relays ran apart from each other, and two of their numbers are the same: neither mail may be lost."""
    here, there = Sqlite(tmp_path), Postgres(database)
    mails = []

    async def ours(spool):
        mails.append(arrival(spool, here.clock, sender="info@acme.nl"))
        mails.append(arrival(spool, here.clock, sender="info@acme.nl", id=mails[0].id + 1))
        for mail in mails:
            await spool.put(mail)
        await spool.hold(Hold(Scope.MAIL, id_text(mails[0].id), 1.0, "jan", "x"))

    async def theirs(spool):
        await spool.put(replace(mails[0], sender="x@globex.nl", route="globex.nl"))

    here.run(ours)
    there.run(theirs)
    assert move(here.file, postgres_schema.options_of(database), lambda *_: None) == 2
    with there.view() as view:
        found = {line.id: (line.sender, line.hold is not None) for line in view.list(Filter(), 9)}
    number = mails[0].id
    assert found.pop(number) == ("x@globex.nl", False)
    assert found == {number + 1: ("info@acme.nl", False), number + 2: ("info@acme.nl", True)}


def test_a_spool_that_a_relay_has_open_is_not_moved(tmp_path, database):
    here = Sqlite(tmp_path)

    async def test(spool):
        with pytest.raises(SpoolInUse):
            move(here.file, postgres_schema.options_of(database), lambda *_: None)

    here.run(test)


def test_the_command(tmp_path, database):
    here = Sqlite(tmp_path)
    here.run(lambda spool: fill(spool, here))
    command = [sys.executable, str(ROOT / "relay.py"), "spool", "move"]
    screen, theirs = os.openpty()  # the bar is for people: on a terminal only
    try:
        done = subprocess.run(
            [*command, f"sqlite:///{here.file}", database],
            stdout=subprocess.PIPE, stderr=theirs, text=True, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        seen_there = os.read(screen, 65536).decode()
    finally:
        os.close(theirs)
        os.close(screen)
    assert done.returncode == 0, seen_there
    assert "60 mails moved" in done.stdout
    assert "0 of 60 mails moved" in seen_there
    again = subprocess.run([*command, f"sqlite:///{here.file}", database], capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    wrong = subprocess.run([*command, database, database], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "moves from sqlite" in wrong.stderr
