"""What every engine must do: the contract of the spool, one test per promise."""

from __future__ import annotations

import asyncio

import pytest

from spool.contract import Backlog, Pending, Settled, Settlement, SpoolFull
from tests.spool.engines import RETRY, arrival, put_all, settlement


def test_a_mail_comes_back_as_it_was_put(engine):
    async def test(spool):
        mail = arrival(
            spool, engine.clock, recipients=("jan@example.org", "Zoë@example.org"), content=bytes(range(256))
        )
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 10, engine.clock.now)
        assert (leased.id, leased.route, leased.sender, leased.content) == (
            mail.id,
            "acme.nl",
            mail.sender,
            mail.content,
        )
        assert set(leased.recipients) == {Pending("jan@example.org"), Pending("Zoë@example.org")}
        assert (leased.received_at, leased.attempts) == (mail.received_at, 0)

    engine.run(test)


def test_a_mail_read_back_from_disk_is_the_same_as_from_memory(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock, recipients=("a@example.org", "b@example.org", "a@example.org"))
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 10, engine.clock.now)
        seen.append(leased)

    seen = []
    engine.run(test, memory=0)

    async def again(spool):
        seen.extend(await spool.lease("acme.nl", 10, engine.clock.now))

    engine.run(again)

    async def fresh(spool):
        await spool.put(
            arrival(spool, engine.clock, recipients=("a@example.org", "b@example.org", "a@example.org"), route="r")
        )
        (leased,) = await spool.lease("r", 10, engine.clock.now)
        assert leased.recipients == seen[0].recipients

    engine.run(fresh)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_a_leased_mail_is_nobody_elses(engine, memory):
    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(5)])
        first = await spool.lease("acme.nl", 3, engine.clock.now)
        second = await spool.lease("acme.nl", 3, engine.clock.now)
        assert len(first) == 3
        assert len(second) == 2
        assert len({mail.id for mail in first + second}) == 5
        assert await spool.lease("acme.nl", 3, engine.clock.now) == []
        assert await spool.next_due("acme.nl") is None

    engine.run(test, memory=memory)


def test_leases_asked_at_one_time_never_share_a_mail(engine):
    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock) for _ in range(40)])
        taken = await asyncio.gather(*(spool.lease("acme.nl", 7, engine.clock.now) for _ in range(8)))
        ids = [mail.id for some in taken for mail in some]
        assert len(ids) == len(set(ids))
        rest = await spool.lease("acme.nl", 40, engine.clock.now)
        assert len(ids) + len(rest) == 40

    engine.run(test, memory=0)


def test_what_became_of_one_mail_is_written_however_much_mail_comes_meanwhile(engine):
    """It waits for others to be written with, but no put after put may keep it waiting."""

    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        written = spool.settle(settlement(mail))
        while not written.done():
            await spool.put(arrival(spool, engine.clock))
        assert written.result() is None

    engine.run(test)


def test_a_lease_is_void_after_a_restart(engine):
    async def leave(spool):
        await spool.put(arrival(spool, engine.clock))
        assert len(await spool.lease("acme.nl", 1, engine.clock.now)) == 1

    async def find(spool):
        assert await spool.next_due("acme.nl") == engine.clock.now
        assert len(await spool.lease("acme.nl", 1, engine.clock.now)) == 1

    engine.run(leave)
    engine.run(find)


def test_mail_waits_until_it_is_due_and_then_goes_longest_due_first(engine):
    async def test(spool):
        now = engine.clock.now
        mails = [arrival(spool, engine.clock) for _ in range(3)]
        for mail in mails:
            await spool.put(mail)
        first, second, third = await spool.lease("acme.nl", 10, now)
        waits = {first.id: 300.0, second.id: 100.0, third.id: 200.0}
        await asyncio.gather(*(spool.settle(settlement(m, RETRY, now + waits[m.id])) for m in (first, second, third)))
        assert await spool.next_due("acme.nl") == now + 100
        assert await spool.lease("acme.nl", 10, now + 99) == []
        again = await spool.lease("acme.nl", 10, now + 300)
        assert [mail.id for mail in again] == [second.id, third.id, first.id]
        assert {mail.attempts for mail in again} == {1}

    engine.run(test)


@pytest.mark.parametrize("memory", [0, 2000, 1 << 20])
def test_mail_leaves_in_the_order_it_came_whatever_fits_in_memory(engine, memory):
    async def test(spool):
        mails = []
        for size in [100, 900, 100, 3000, 100, 100, 900, 100] * 4:
            engine.clock.now += 1
            mails.append(arrival(spool, engine.clock, content=b"x" * size))
            await spool.put(mails[-1])
        order = []
        while taken := await spool.lease("acme.nl", 3, engine.clock.now):
            order += [mail.id for mail in taken]
            await asyncio.gather(*(spool.settle(settlement(mail)) for mail in taken))
        assert order == [mail.id for mail in mails]

    engine.run(test, memory=memory)


def test_new_mail_does_not_overtake_a_backlog_on_disk_nor_the_other_way_round(engine):
    async def test(spool):
        put, taken = [], []
        for _ in range(60):
            for _ in range(2):
                engine.clock.now += 1
                put.append(arrival(spool, engine.clock, content=b"x" * 500))
                await spool.put(put[-1])
            for mail in await spool.lease("acme.nl", 1, engine.clock.now):
                taken.append(mail.id)
                spool.settle(settlement(mail))
        while some := await spool.lease("acme.nl", 7, engine.clock.now):
            taken += [mail.id for mail in some]
        assert taken == [mail.id for mail in put]

    engine.run(test, memory=4000)


def test_a_route_that_does_not_move_leaves_memory_for_the_others(engine):
    async def test(spool):
        for route, count in (("stuck.nl", 50), ("acme.nl", 5)):
            for _ in range(count):
                await spool.put(arrival(spool, engine.clock, route=route, content=b"x" * 1000))
        for route, count in (("acme.nl", 5), ("stuck.nl", 50)):
            assert len(await spool.lease(route, 100, engine.clock.now)) == count

    engine.run(test, memory=20_000)


def test_recipients_settle_one_by_one_and_the_content_goes_with_the_last(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock, recipients=("a@x.nl", "b@x.nl", "c@x.nl"))
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(
            Settlement(
                leased,
                done={"a@x.nl": Settled.DELIVERED, "b@x.nl": Settled.FAILED},
                doubted=frozenset({"c@x.nl"}),
                due_at=engine.clock.now,
            )
        )
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert leased.recipients == (Pending("c@x.nl", doubts=1),)
        assert leased.content == mail.content
        await spool.settle(Settlement(leased, done={"c@x.nl": Settled.EXPIRED}, due_at=None))
        assert await spool.backlog() == {}
        with engine.view() as view:
            story = view.show(mail.id)
        assert [(line.address, line.state) for line in story.mail.recipients] == [
            ("a@x.nl", "delivered"),
            ("b@x.nl", "failed"),
            ("c@x.nl", "expired"),
        ]

    engine.run(test)


def test_a_settlement_that_cannot_be_is_our_own_bug(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        with pytest.raises(ValueError, match="due_at"):
            spool.settle(Settlement(leased, due_at=None))
        with pytest.raises(ValueError, match="recipients"):
            spool.settle(Settlement(leased, done={"other@x.nl": Settled.DELIVERED}))
        done = spool.settle(settlement(leased))
        with pytest.raises(ValueError, match="not leased"):
            spool.settle(settlement(leased))
        await done
        with pytest.raises(ValueError, match="not leased"):
            spool.settle(settlement(leased))

    engine.run(test)


def test_a_wait_of_ours_is_not_counted_as_an_attempt(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(
            Settlement(leased, due_at=engine.clock.now, counted=False, note="The route is on hold.", attempts=())
        )
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert leased.attempts == 0

    engine.run(test)


def test_a_settlement_may_give_the_mail_another_route(engine):
    async def test(spool):
        arrived = []
        await spool.put(arrival(spool, engine.clock))
        spool.on_arrival(arrived.append)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased, RETRY, engine.clock.now, route="globex.nl"))
        assert "globex.nl" in arrived
        assert list(await spool.backlog()) == ["globex.nl"]
        assert await spool.lease("acme.nl", 1, engine.clock.now) == []
        (leased,) = await spool.lease("globex.nl", 1, engine.clock.now)
        assert leased.route == "globex.nl"

    engine.run(test)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_the_backlog_tells_what_waits_and_since_when(engine, memory):
    async def test(spool):
        start = engine.clock.now
        assert await spool.backlog() == {}
        for route in ("acme.nl", "acme.nl", "globex.nl", "acme.nl"):
            await spool.put(arrival(spool, engine.clock, route=route))
            engine.clock.now += 10
        assert await spool.backlog() == {
            "acme.nl": Backlog(3, start, start),
            "globex.nl": Backlog(1, start + 20, start + 20),
        }
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert (await spool.backlog())["acme.nl"] == Backlog(2, start + 10, start + 10)
        await spool.settle(settlement(leased, RETRY, start + 500))
        assert (await spool.backlog())["acme.nl"] == Backlog(3, start, start + 10)

    engine.run(test, memory=memory)


def test_every_arrival_is_told(engine):
    async def test(spool):
        told = []
        spool.on_arrival(told.append)
        await spool.put(arrival(spool, engine.clock))
        await spool.put(arrival(spool, engine.clock, route="globex.nl"))
        assert told == ["acme.nl", "globex.nl"]

    engine.run(test)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_wake_makes_a_route_due_now_and_no_other(engine, memory):
    async def test(spool):
        now = engine.clock.now
        for route in ("acme.nl", "globex.nl"):
            await put_all(spool, [arrival(spool, engine.clock, route=route) for _ in range(3)])
            for mail in await spool.lease(route, 3, now):
                await spool.settle(settlement(mail, RETRY, now + 3600))
        told = []
        spool.on_arrival(told.append)
        await spool.wake("acme.nl", now + 1)
        assert told == ["acme.nl"]
        assert await spool.next_due("acme.nl") == now + 1
        woken = await spool.lease("acme.nl", 10, now + 1)
        assert [mail.id for mail in woken] == sorted(mail.id for mail in woken)
        assert len(woken) == 3
        assert await spool.lease("globex.nl", 10, now + 1) == []
        assert await spool.next_due("globex.nl") == now + 3600

    engine.run(test, memory=memory)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_new_rules_move_waiting_mail(engine, memory):
    async def test(spool):
        now = engine.clock.now
        senders = ["info@acme.nl", "sales@acme.nl", "info@gone.nl"]
        for sender in senders * 3:
            await spool.put(arrival(spool, engine.clock, sender=sender))
        held = await spool.lease("acme.nl", 1, now)
        told = []
        spool.on_arrival(told.append)
        rules = {"info@acme.nl": "acme.nl", "sales@acme.nl": "sales@acme.nl"}
        assert await spool.reroute(rules.get) == 3
        assert set(told) == {"sales@acme.nl"}
        moved = await spool.lease("sales@acme.nl", 10, now)
        assert {mail.sender for mail in moved} == {"sales@acme.nl"}
        assert {mail.route for mail in moved} == {"sales@acme.nl"}
        rest = await spool.lease("acme.nl", 10, now)
        assert sorted(mail.sender for mail in rest + held) == ["info@acme.nl"] * 3 + ["info@gone.nl"] * 3
        assert await spool.reroute(rules.get) == 0
        await asyncio.gather(*(spool.settle(settlement(mail)) for mail in moved + rest + held))
        assert await spool.backlog() == {}

    engine.run(test, memory=memory)


def test_a_leased_mail_moves_too_and_comes_back_under_its_new_route(engine):
    async def test(spool):
        await spool.put(arrival(spool, engine.clock))
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert await spool.reroute(lambda sender: "new.nl") == 1
        await spool.settle(settlement(leased, RETRY, engine.clock.now))
        assert list(await spool.backlog()) == ["new.nl"]
        assert len(await spool.lease("new.nl", 1, engine.clock.now)) == 1

    engine.run(test)


def test_the_size_limit_counts_what_waits_and_nothing_else(engine):
    async def test(spool):
        await put_all(spool, [arrival(spool, engine.clock, content=b"x" * 1000) for _ in range(3)])
        with pytest.raises(SpoolFull):
            await spool.put(arrival(spool, engine.clock, content=b"x" * 1000))
        await spool.put(arrival(spool, engine.clock, content=b"x" * 500))
        leased = await spool.lease("acme.nl", 2, engine.clock.now)
        await asyncio.gather(*(spool.settle(settlement(mail)) for mail in leased))
        await spool.put(arrival(spool, engine.clock, content=b"x" * 2000))

    async def afterwards(spool):
        with pytest.raises(SpoolFull):
            await spool.put(arrival(spool, engine.clock, content=b"x"))

    engine.run(test, size_limit=3500)
    engine.run(afterwards, size_limit=3500)


def test_puts_at_one_time_do_not_pass_the_size_limit_together(engine):
    async def test(spool):
        puts = (spool.put(arrival(spool, engine.clock, content=b"x" * 1000)) for _ in range(10))
        answers = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(answer is None for answer in answers) == 3
        assert sum(isinstance(answer, SpoolFull) for answer in answers) == 7

    engine.run(test, size_limit=3500)


def test_history_is_forgotten_by_when_a_mail_was_settled(engine):
    async def test(spool):
        start = engine.clock.now
        mails = [arrival(spool, engine.clock) for _ in range(3)]
        await put_all(spool, mails)
        old, late, _waiting = await spool.lease("acme.nl", 3, start)
        engine.clock.now = start + 10
        await spool.settle(settlement(old))
        engine.clock.now = start + 1000
        await spool.settle(settlement(late))
        assert await spool.prune(start + 500) == 1
        with engine.view() as view:
            assert view.show(old.id) is None
            assert view.show(late.id) is not None
            assert view.show(mails[2].id) is not None
        assert await spool.prune(start + 5000) == 1

    engine.run(test)


def test_a_clock_that_was_ahead_once_keeps_no_history_for_ever(engine):
    """Numbers go on from the greatest, which is years ahead from then on."""
    year = 366 * 86400.0

    async def test(spool):
        start = engine.clock.now
        engine.clock.now = start + 10 * year
        await spool.put(arrival(spool, engine.clock))
        engine.clock.now = start
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        for leased in await spool.lease("acme.nl", 2, start + 11 * year):
            await spool.settle(settlement(leased))
        engine.clock.now = start + year
        await spool.put(arrival(spool, engine.clock))
        await spool.prune(start + year - 3600)
        with engine.view() as view:
            assert view.show(mail.id) is None

    engine.run(test)


def test_one_mail_that_cannot_be_kept_does_not_take_the_others_with_it(engine):
    async def test(spool):
        good = [arrival(spool, engine.clock) for _ in range(3)]
        twice = arrival(spool, engine.clock, id=good[0].id)
        broken = arrival(spool, engine.clock, sender="\udce9@acme.nl")
        odd = arrival(spool, engine.clock, helo="\udce9")
        answers = await asyncio.gather(*map(spool.put, [*good, twice, broken, odd]), return_exceptions=True)
        assert [answer is None for answer in answers] == [True, True, True, False, False, True]
        assert len(await spool.lease("acme.nl", 10, engine.clock.now)) == 4

    engine.run(test)


def test_a_sender_who_was_warned_of_the_delay_stays_so_over_a_restart(engine):
    async def first(spool):
        await spool.put(arrival(spool, engine.clock))
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert not mail.warned
        await spool.settle(settlement(mail, RETRY, engine.clock.now + 1, warned=True))
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now + 1)
        assert mail.warned
        await spool.settle(settlement(mail, RETRY, engine.clock.now + 2))

    async def second(spool):
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now + 2)
        assert mail.warned
        await spool.settle(settlement(mail))

    engine.run(first)
    engine.run(second)
