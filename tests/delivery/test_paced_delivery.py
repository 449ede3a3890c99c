"""Pace through the scheduler: limits kept, turns fair, restarts and outages survived, nothing polled."""

from __future__ import annotations

import asyncio
import logging

from config.rules import Pace, Rate
from delivery.plan import build_plan
from routing.mail import Outgoing
from spool.contract import SPENT_SLOT, Leased, SpoolUnavailable
from spool.view import Spent
from tests.delivery.room import DOWN, SENT, START, Scripted, events, numbers_of, room, route, rules
from tests.delivery.room import kinds as kinds_of
from upstreams.base import Host

ACME = route("acme.nl", via="one")


def most_in(times: list[float], length: float) -> int:
    """The most of `times` in any window of that length."""
    return max((sum(end - length < at <= end for at in times) for end in times), default=0)


def test_a_routes_pace_is_kept_to_the_mail_and_used_in_full(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one", pace=Pace(per_minute=5)),), one) as r:
            for _ in range(23):
                await r.put()
            await r.clock.advance(0)
            assert len(one.mails) == 5
            await r.clock.advance(59)
            assert len(one.mails) == 5
            await r.clock.advance(185)
            assert len(one.mails) == 23
            assert most_in(one.sent_at, 60.0) == 5
            assert await r.waiting() == {}
            assert numbers_of(one.mails) == sorted(numbers_of(one.mails))

    asyncio.run(scenario())


def test_a_lane_that_waits_for_its_pace_has_one_mail_at_hand_and_one_timer(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one", pace=Pace(per_day=3)),), one) as r:
            for _ in range(40):
                await r.put()
            await r.clock.advance(3600)
            assert len(one.mails) == 3
            assert r.scheduler.octets == len(one.mails[0].content)
            assert len(r.clock.timers) == 1
            assert r.clock.timers[0] == START + 86400
            assert len(asyncio.all_tasks()) == 1
            await r.put()
            await r.quiet()
            assert len(r.clock.timers) == 1
            assert (await r.waiting())["acme.nl"] == 37

    asyncio.run(scenario())


def test_whoever_waits_for_its_pace_is_told_with_whose_until_when_and_what_is_at_hand(tmp_path):
    async def scenario():
        one = Scripted("one")
        routes = (route("acme.nl", via="one", pace=Pace(per_day=2)), route("globex.nl", via="one"))
        async with room(tmp_path, routes, one) as r:
            sent = [await r.put() for _ in range(2)]
            await r.clock.advance(0)
            assert r.scheduler.paced() == (), "nothing waits yet"
            sent += [await r.put() for _ in range(3)]
            await r.put("info@globex.nl", route="globex.nl")
            await r.clock.advance(3600)
            assert len(one.mails) == 3
            (told,) = r.scheduler.paced()
            assert (told.route, told.upstream, told.next_probe) == ("acme.nl", "one", START + 86400)
            assert told.reply == "the pace of route acme.nl has no room"
            assert (told.since, told.at_hand) == (START, (sent[2],)), "the others lie in the spool"
            await r.clock.advance(83000)
            assert len(one.mails) == 5
            (told,) = r.scheduler.paced()
            assert (told.next_probe, told.at_hand) == (START + 2 * 86400, (sent[4],))
            assert r.scheduler.held() == r.scheduler.silent() == ()

    asyncio.run(scenario())


def test_an_accounts_pace_is_shared_and_a_campaign_leaves_the_others_room(tmp_path):
    async def scenario():
        shared = Scripted("shared")
        routes = tuple(route(name, via="shared") for name in ("acme.nl", "globex.nl", "hooli.nl"))
        async with room(tmp_path, routes, shared, paces={"shared": Rate(per_minute=10, per_day=100)}) as r:
            for _ in range(300):
                await r.put()
            for _ in range(5):
                await r.clock.advance(301)
                before = len(shared.mails)
                number = await r.put("info@globex.nl", route="globex.nl")
                await r.clock.advance(0)
                assert number in numbers_of(shared.mails[before:]), "the single mail goes at once"
            await r.clock.advance(3600)
            number = await r.put("info@hooli.nl", route="hooli.nl")
            await r.clock.advance(0)
            assert number in numbers_of(shared.mails), "though the campaign has had all it may of the day"
            assert len(shared.mails) < 100
            assert most_in(shared.sent_at, 60.0) <= 10
            await r.clock.advance(86400)
            assert most_in(shared.sent_at, 86400.0) <= 100

    asyncio.run(scenario())


def test_one_route_at_its_pace_does_not_hold_up_another_on_the_same_upstream(tmp_path):
    async def scenario():
        shared = Scripted("shared", concurrency=1)
        routes = (route("acme.nl", via="shared", pace=Pace(per_minute=1)), route("globex.nl", via="shared"))
        async with room(tmp_path, routes, shared) as r:
            for _ in range(20):
                await r.put()
                await r.put("info@globex.nl", route="globex.nl")
            await r.clock.advance(0)
            assert [mail.route for mail in shared.mails].count("globex.nl") == 20
            assert [mail.route for mail in shared.mails].count("acme.nl") == 1
            await r.clock.advance(20 * 61)
            assert len(shared.mails) == 40

    asyncio.run(scenario())


def test_recipients_count_for_the_day_and_a_mail_that_is_split_comes_back_for_its_rest(tmp_path):
    async def scenario():
        one = Scripted("one", recipients_limit=4)
        async with room(tmp_path, (route("acme.nl", via="one", pace=Pace(per_day=10)),), one) as r:
            await r.put("info@acme.nl", *[f"x{number}@example.org" for number in range(25)])
            await r.clock.advance(86400 * 4)
            assert [len(mail.recipients) for mail in one.mails][:2] == [4, 4]
            reached = [to for mail in one.mails for to in mail.recipients]
            assert sorted(reached) == sorted({f"x{number}@example.org" for number in range(25)})
            for end in one.sent_at:
                pairs = zip(one.sent_at, one.mails, strict=True)
                assert sum(len(mail.recipients) for at, mail in pairs if end - 86400 < at <= end) <= 10
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_restart_forgets_nothing_of_the_day(tmp_path):
    async def scenario():
        total = 0
        for days in range(3):
            one = Scripted("one")
            at = START + days * 1000
            async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=7)}, at=at) as r:
                for _ in range(4):
                    await r.put()
                await r.clock.advance(900)
                total += len(one.mails)
        assert total == 7

    asyncio.run(scenario())


def test_a_restart_within_the_minute_does_not_begin_a_new_one(tmp_path):
    async def scenario():
        times: list[float] = []
        for at in (START, START + 30):
            one = Scripted("one")
            async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_minute=3)}, at=at) as r:
                for _ in range(3):
                    await r.put()
                await r.clock.advance(29 if at == START else 70)
                times += one.sent_at
        assert len(times) == 6
        assert most_in(times, 60.0) == 3

    asyncio.run(scenario())


def test_a_mail_that_needs_the_whole_hour_is_not_passed_for_ever_by_small_ones(tmp_path):
    async def scenario():
        shared = Scripted("shared")
        routes = (route("acme.nl", via="shared"), route("globex.nl", via="shared"))
        async with room(tmp_path, routes, shared, paces={"shared": Rate(per_hour=10)}) as r:
            for minute in range(180):
                await r.put("info@globex.nl", route="globex.nl")
                if minute == 30:
                    await r.put("info@acme.nl", *[f"x{number}@example.org" for number in range(10)])
                await r.clock.advance(60)
            sent = [at for at, mail in zip(shared.sent_at, shared.mails, strict=True) if mail.route == "acme.nl"]
            assert len(sent) == 1
            assert sent[0] <= 30 * 60 + 3700

    asyncio.run(scenario())


def test_what_is_sent_was_on_disk_before(tmp_path):
    async def scenario():
        seen: list[int] = []

        async with room(tmp_path, (ACME,), one := Scripted("one"), paces={"one": Rate(per_day=100)}) as r:

            def look(mail: Outgoing):
                seen.append(sum(spent.recipients for spent in noted))
                return dict.fromkeys(mail.recipients, SENT)

            noted: list[Spent] = []
            spend = r.spool.spend

            async def watched(spent: list[Spent]) -> None:
                await spend(spent)
                noted.extend(spent)

            r.spool.spend = watched
            one.answers = [look]
            for _ in range(5):
                await r.put("info@acme.nl", "a@example.org", "b@example.org")
            await r.clock.advance(0)
            assert len(seen) == 5
            assert all(on_disk >= 2 * number for number, on_disk in enumerate(seen, 1))
            await r.clock.advance(2)
            stored = await r.spool.spent(START)
            assert sum(spent.recipients for spent in stored) == 10

    asyncio.run(scenario())


def test_a_stream_of_mail_is_noted_ahead_in_few_commits_and_what_did_not_come_is_taken_back(tmp_path):
    async def scenario():
        paces = {"one": Rate(per_minute=10_000, per_day=10_000)}
        one = Scripted("one", concurrency=4)
        async with room(tmp_path, (route("acme.nl", via="one", pace=Pace(per_day=5_000)),), one, paces=paces) as r:
            spend, on_disk, commits, short = r.spool.spend, dict.fromkeys(("upstream one", "route acme.nl"), 0), 0, 0

            async def watched(spent: list[Spent]) -> None:
                nonlocal commits
                await spend(spent)
                commits += 1
                for noted in spent:
                    on_disk[noted.account] += noted.mails

            def look(mail: Outgoing):
                nonlocal short
                short += min(on_disk.values()) < len(one.mails)
                return dict.fromkeys(mail.recipients, SENT)

            r.spool.spend = watched
            one.answers = [look]
            for _ in range(300):
                await r.put()
            await r.quiet()
            assert (len(one.mails), short) == (300, 0)
            assert commits < 40
            assert min(on_disk.values()) > 300
            await r.clock.advance(2)
            assert set(on_disk.values()) == {300}
            assert r.clock.timers == []

    asyncio.run(scenario())


def test_no_more_is_noted_ahead_than_a_limit_bears_however_the_others_are(tmp_path):
    async def scenario():
        paces, one = {"one": Rate(per_day=10_000)}, Scripted("one")
        async with room(tmp_path, (route("acme.nl", via="one", pace=Pace(per_day=200)),), one, paces=paces) as r:
            spend, on_disk, most = r.spool.spend, dict.fromkeys(("upstream one", "route acme.nl"), 0), dict[str, int]()

            async def watched(spent: list[Spent]) -> None:
                await spend(spent)
                for noted in spent:
                    on_disk[noted.account] += noted.mails
                    ahead = on_disk[noted.account] - len(one.mails)
                    most[noted.account] = max(most.get(noted.account, 0), ahead)

            r.spool.spend = watched
            for _ in range(190):
                await r.put()
            await r.quiet()
            assert len(one.mails) == 190
            under_way = 5
            assert most["route acme.nl"] <= 200 // 20 + under_way
            assert 200 // 20 < most["upstream one"] <= 32 + under_way

    asyncio.run(scenario())


def test_what_was_noted_ahead_in_one_slot_does_not_serve_the_next(tmp_path):
    """The spool forgets a slot as a whole: a send of the next would count for too short a time."""

    async def scenario():
        one, at = Scripted("one"), START // SPENT_SLOT * SPENT_SLOT + SPENT_SLOT - 0.5
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=10_000)}, at=at) as r:
            for _ in range(100):
                await r.put()
            await r.quiet()
            spend, commits = r.spool.spend, 0

            async def counted(spent: list[Spent]) -> None:
                nonlocal commits
                await spend(spent)
                commits += 1

            r.spool.spend = counted
            r.clock.at += 0.6
            for _ in range(100):
                await r.put()
            await r.clock.advance(5)
            assert commits < 20
            slots = {spent.at: spent.mails for spent in await r.spool.spent(START - 1000)}
            assert list(slots.values()) == [100, 100]

    asyncio.run(scenario())


def test_a_restart_right_after_a_stream_counts_what_was_sent_and_no_more(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=10_000)}) as r:
            for _ in range(70):
                await r.put()
            await r.quiet()
        async with room(tmp_path, (ACME,), Scripted("one"), paces={"one": Rate(per_day=10_000)}) as r:
            assert [meter.used_today(r.clock.now()) for meter in r.scheduler.meters()] == [70]

    asyncio.run(scenario())


def test_what_is_taken_back_and_may_be_on_disk_is_not_taken_back_twice(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=10_000)}) as r:
            spend = r.spool.spend

            async def half(spent: list[Spent]) -> None:
                await spend(spent)
                if any(noted.mails < 0 for noted in spent):
                    raise SpoolUnavailable("disk I/O error")

            r.spool.spend = half
            for _ in range(70):
                await r.put()
            await r.clock.advance(5)
            await r.put()
            await r.clock.advance(5)
            assert sum(spent.mails for spent in await r.spool.spent(START)) == 71

    asyncio.run(scenario())


def test_a_spool_that_cannot_note_it_means_no_send(tmp_path, caplog):
    async def scenario():
        async with room(tmp_path, (ACME,), one := Scripted("one"), paces={"one": Rate(per_day=5)}) as r:

            async def unable(spent: list[Spent]) -> None:
                raise SpoolUnavailable("disk I/O error")

            spend, r.spool.spend = r.spool.spend, unable
            await r.put()
            await r.clock.advance(0)
            assert one.mails == []
            r.spool.spend = spend
            await r.clock.advance(70)
            assert len(one.mails) == 1
            assert sum(spent.recipients for spent in await r.spool.spent(START)) == 1

    asyncio.run(scenario())


def test_an_outage_uses_up_nothing(tmp_path):
    async def scenario():
        one = Scripted("one", DOWN)
        one.probe_answer = DOWN
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_minute=50, per_day=3)}) as r:
            for _ in range(3):
                await r.put()
            await r.clock.advance(7200)
            one.answers, one.probe_answer = [SENT], SENT
            before = len(one.mails)
            await r.clock.advance(600)
            assert len(one.mails) == before + 3
            await r.put()
            await r.clock.advance(60)
            assert len(one.mails) == before + 3

    asyncio.run(scenario())


def test_a_route_that_spills_goes_by_the_next_instead_of_waiting_and_back(tmp_path):
    async def scenario():
        one, two = Scripted("one"), Scripted("two")
        spilling = route("acme.nl", via=("one", "two"), spill_after=600.0)
        async with room(tmp_path, (spilling,), one, two, paces={"one": Rate(per_minute=4, per_day=6)}) as r:
            for _ in range(9):
                await r.put()
            await r.clock.advance(0)
            assert (len(one.mails), len(two.mails)) == (4, 0), "a minute is not worth another way"
            await r.clock.advance(61)
            assert (len(one.mails), len(two.mails)) == (6, 3)
            assert one.probes == []
            await r.clock.advance(86400)
            await r.put()
            await r.clock.advance(0)
            assert len(one.mails) == 7

    asyncio.run(scenario())


def test_a_route_that_spills_uses_the_next_as_soon_as_that_is_there_again(tmp_path):
    async def scenario():
        one, two = Scripted("one"), Scripted("two", DOWN)
        two.probe_answer = DOWN
        spilling = route("acme.nl", via=("one", "two"), spill_after=600.0)
        async with room(tmp_path, (spilling,), one, two, paces={"one": Rate(per_day=1)}) as r:
            for _ in range(8):
                await r.put()
            await r.clock.advance(4000)
            assert len(one.mails) == 1
            tried = len(two.mails)
            two.answers, two.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            assert len(two.mails) == tried + 7
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_route_that_spills_takes_whichever_has_room_first(tmp_path):
    async def scenario():
        one, two = Scripted("one"), Scripted("two")
        spilling = route("acme.nl", via=("one", "two"), spill_after=10.0)
        paces = {"one": Rate(per_day=1), "two": Rate(per_minute=1)}
        async with room(tmp_path, (spilling,), one, two, paces=paces) as r:
            for _ in range(6):
                await r.put()
            await r.clock.advance(301)
            assert (len(one.mails), len(two.mails)) == (1, 5)

    asyncio.run(scenario())


def test_without_it_mail_waits_for_its_own_way(tmp_path):
    async def scenario():
        one, two = Scripted("one"), Scripted("two")
        async with room(
            tmp_path, (route("acme.nl", via=("one", "two")),), one, two, paces={"one": Rate(per_day=2)}
        ) as r:
            for _ in range(4):
                await r.put()
            await r.clock.advance(86399)
            assert (len(one.mails), len(two.mails)) == (2, 0)
            await r.clock.advance(2)
            assert (len(one.mails), len(two.mails)) == (4, 0)

    asyncio.run(scenario())


def test_a_reload_that_changes_a_pace_counts_on(tmp_path):
    async def scenario():
        one = Scripted("one")
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=2)}) as r:
            for _ in range(9):
                await r.put()
            await r.clock.advance(100)
            assert len(one.mails) == 2
            wider = rules((ACME,), paces={"one": Rate(per_day=5)})
            await r.scheduler.replace(build_plan(wider, kinds_of(), Host("relay.callcenter.nl"), r.plan))
            await r.clock.advance(100)
            assert len(one.mails) == 5
            assert one.closed == 0
            free = build_plan(rules((ACME,)), kinds_of(), Host("relay.callcenter.nl"), r.plan)
            await r.scheduler.replace(free)
            await r.clock.advance(0)
            assert len(one.mails) == 9

    asyncio.run(scenario())


def test_people_hear_of_the_days_limit_before_it_is_reached(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", concurrency=1)
        async with room(tmp_path, (ACME,), one, paces={"one": Rate(per_day=20)}) as r:
            for _ in range(15):
                await r.put()
            await r.clock.advance(0)
            assert events(caplog, "quota_near") == []
            for _ in range(15):
                await r.put()
            await r.clock.advance(3600)
            (told,) = events(caplog, "quota_near")
            assert (told["account"], told["per_day"], told["level"]) == ("upstream one", 20, "WARNING")
            assert told["recipients"] < 20

    asyncio.run(scenario())


def test_a_drain_ends_a_pause(tmp_path):
    async def scenario():
        async with room(tmp_path, (ACME,), Scripted("one"), paces={"one": Rate(per_day=1)}) as r:
            for _ in range(3):
                await r.put()
            await r.clock.advance(0)
            await r.scheduler.stop(1.0)
            await r.quiet()
            assert r.clock.timers == []
            left: list[Leased] = await r.spool.lease("acme.nl", 10, r.clock.now())
            assert len(left) == 2

    asyncio.run(scenario())
