"""`canary:`: which mails go by the upstream on trial, and that nothing wrong with it keeps mail waiting."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.rules import Canary, Pace, Rate, Route
from delivery.canary import Choosing, choosing, in_share
from delivery.choice import Standing, next_upstream
from routing.outcome import Outcome, Stage, Word
from tests.delivery.room import (
    BAD_LOGIN,
    BUSY,
    DOUBT,
    DOWN,
    NO_USER,
    SENT,
    Scripted,
    events,
    numbers_of,
    room,
    route,
)
from tests.waiting import until

TOO_LARGE = Outcome(Word.REJECT, "4 MB is the most", Stage.PREPARE, enhanced="5.3.4")
TEST = "test@callcenter.nl"


def on_trial(**settings: object) -> Route:
    """A route by `a`, with `new` on trial for the test address, or as told."""
    canary = Canary(via="new", **(settings or {"recipients": (TEST,)}))  # type: ignore[arg-type]
    return route("acme.nl", via="a", canary=canary)


# ---- which mails -----------------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 63) - 1), st.integers(0, 99), st.integers(0, 99))
def test_the_share_depends_on_the_number_alone_and_grows_by_adding(mail, one, other):
    small, large = sorted((one, other))
    assert in_share(mail, small) == in_share(mail, small)
    assert in_share(mail, large) or not in_share(mail, small)
    assert not in_share(mail, 0)


@given(st.integers(0, 1 << 62), st.sampled_from([1, 2, 4096, 1 << 20]), st.integers(1, 99))
def test_the_share_is_as_large_as_it_says(first, step, percent):
    """However the numbers lie: 2000 mails are within five deviations of what is expected."""
    share = percent / 100
    expected, deviation = 2000 * share, (2000 * share * (1 - share)) ** 0.5
    taken = sum(in_share(first + number * step, percent) for number in range(2000))
    assert abs(taken - expected) <= 5 * deviation + 1


@pytest.mark.parametrize(
    ("recipients", "takes"),
    [
        (("test@callcenter.nl",), True),
        (("TEST@CallCenter.nl", "anybody@münchen.de", "b@xn--mnchen-3ya.de"), True),
        (("test@callcenter.nl", "x@example.org"), False),
        (("other@callcenter.nl",), False),
        (("a@sub.münchen.de",), False),
        (('"odd one"@callcenter.nl',), False),
        (("no-domain",), False),
    ],
)
def test_the_allow_list_is_for_all_recipients(recipients, takes):
    chosen = choosing(Canary(via="new", recipients=("Test@callcenter.nl", "@München.de")))
    assert chosen.takes(1, recipients) is takes


def test_without_a_list_only_the_share_counts():
    assert not Choosing(0, frozenset()).takes(1, ("test@callcenter.nl",))
    taken = {mail for mail in range(100) if Choosing(50, frozenset({TEST})).takes(mail, ("x@example.org",))}
    assert taken == {mail for mail in range(100) if in_share(mail, 50)}


# ---- the order -------------------------------------------------------------------------------------------------


def test_what_passes_from_the_canary_to_the_usual_way():
    def following(outcome: Outcome, away: bool = False) -> str | None:
        canary = Standing(trial=True, unreachable_since=1000.0 if away else None)
        return next_upstream(("new", "a"), {"new": canary, "a": Standing()}, {"new": outcome}, 1000.0, 300.0)

    assert following(BAD_LOGIN) == following(TOO_LARGE) == following(DOWN, away=True) == "a"
    assert {following(outcome) for outcome in (DOUBT, BUSY, NO_USER, SENT)} == {None}
    assert following(DOUBT, away=True) is None


def test_the_share_and_the_list_go_by_the_canary_and_the_rest_as_ever(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, new = Scripted("a"), Scripted("new")
        async with room(tmp_path, (on_trial(percent=30, recipients=(TEST,)),), a, new) as r:
            tests = {await r.put("info@acme.nl", TEST)}
            await until(lambda: new.mails, "the test")
            mails = []
            for _ in range(40):
                mails.append(await r.put())
                await r.quiet()
            chosen = {mail for mail in mails if in_share(mail, 30)}
            assert set(numbers_of(new.mails)) == tests | chosen
            assert set(numbers_of(a.mails)) == set(mails) - chosen
            assert {event["upstream"] for event in events(caplog, "delivered")} == {"a", "new"}

    asyncio.run(scenario())


def test_a_retry_goes_the_same_way(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", BUSY, SENT)
        async with room(tmp_path, (on_trial(),), a, new) as r:
            await r.put("info@acme.nl", TEST)
            await until(lambda: new.mails, "the first try")
            await r.clock.advance(120)
            assert (len(new.mails), a.mails, await r.waiting()) == (2, [], {})

    asyncio.run(scenario())


def test_what_may_have_been_delivered_never_takes_the_usual_way(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", DOUBT)
        stop = route("acme.nl", via="a", canary=Canary(via="new", recipients=(TEST,)), unknown="stop")
        async with room(tmp_path, (stop,), a, new) as r:
            await r.put("info@acme.nl", TEST)
            await until(lambda: a.mails, "the report of the doubt")
            assert [mail.sender for mail in a.mails] == [""]
            assert len(new.mails) == 1

    asyncio.run(scenario())


# ---- what is wrong with it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [BAD_LOGIN, DOWN, TOO_LARGE])
def test_trouble_costs_no_time(tmp_path, trouble):
    """The clock does not move: not even a canary that has only just become unreachable is waited for."""

    async def scenario():
        a, new = Scripted("a"), Scripted("new", trouble)
        new.probe_answer = trouble
        async with room(tmp_path, (on_trial(percent=99, recipients=(TEST,)),), a, new) as r:
            for _ in range(30):
                await r.put("info@acme.nl", TEST)
            await until(lambda: len(a.mails) == 30, "all by the usual way")
            assert await r.waiting() == {}
            if trouble is not TOO_LARGE:
                assert len(new.mails) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [BAD_LOGIN, DOWN])
def test_a_canary_that_works_again_is_used_again(tmp_path, trouble):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", trouble, SENT)
        new.probe_answer = trouble
        async with room(tmp_path, (on_trial(),), a, new) as r:
            for _ in range(2):
                await r.put("info@acme.nl", TEST)
                await r.quiet()
            assert (len(a.mails), len(new.mails)) == (2, 1)
            new.probe_answer = SENT
            await r.clock.advance(3600)
            assert new.probes
            await r.put("info@acme.nl", TEST)
            await until(lambda: len(new.mails) == 2, "the canary again")
            assert len(a.mails) == 2

    asyncio.run(scenario())


def test_a_canary_that_hangs_delays_only_the_mail_it_has(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", concurrency=1)
        new.opened.clear()
        async with room(tmp_path, (on_trial(),), a, new) as r:
            await r.put("info@acme.nl", TEST)
            await until(lambda: new.under_way == 1, "the canary")
            for number in range(20):
                await r.put("info@acme.nl", TEST if number % 2 else "x@example.org")
            await until(lambda: len(a.mails) == 20, "all others")
            new.opened.set()

    asyncio.run(scenario())


def test_its_pace_is_kept_and_never_waited_for(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new")
        paces = {"new": Rate(per_hour=3)}
        async with room(tmp_path, (on_trial(),), a, new, paces=paces) as r:
            for _ in range(10):
                await r.put("info@acme.nl", TEST)
                await r.quiet()
            assert (len(new.mails), len(a.mails), await r.waiting()) == (3, 7, {})

    asyncio.run(scenario())


def test_another_routes_backlog_at_the_canary_is_not_waited_for(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", concurrency=2)
        paces = {"new": Rate(per_hour=5)}
        async with room(tmp_path, (on_trial(), route("globex.nl", via="new")), a, new, paces=paces) as r:
            for _ in range(30):
                await r.put("info@globex.nl", route="globex.nl")
            await r.quiet()
            for number in range(10):
                await r.put("info@acme.nl", TEST if number % 2 else "x@example.org")
            await until(lambda: len(a.mails) + sum(mail.route == "acme.nl" for mail in new.mails) == 10, "all of acme")
            assert len(new.mails) <= 5

    asyncio.run(scenario())


def test_the_routes_pace_counts_both_ways(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new")
        paced = route("acme.nl", via="a", canary=Canary(via="new", recipients=(TEST,)), pace=Pace(per_hour=6))
        async with room(tmp_path, (paced,), a, new) as r:
            for number in range(10):
                await r.put("info@acme.nl", TEST if number % 2 else "x@example.org")
            await r.quiet()
            assert len(a.mails) + len(new.mails) == 6
            await r.clock.advance(3700)
            assert len(a.mails) + len(new.mails) == 10

    asyncio.run(scenario())


def test_mail_of_a_held_route_waits_and_the_canarys_hold_is_its_own(tmp_path):
    async def scenario():
        a, new = Scripted("a", BAD_LOGIN), Scripted("new", BAD_LOGIN)
        a.probe_answer = new.probe_answer = BAD_LOGIN
        async with room(tmp_path, (on_trial(),), a, new) as r:
            await r.put("info@acme.nl", TEST)
            await until(lambda: len(r.scheduler.held()) == 2, "both on hold")
            assert await r.waiting() == {"acme.nl": 1}
            a.answers, a.probe_answer = [SENT], SENT
            await r.clock.advance(120)
            assert (await r.waiting(), [held.upstream for held in r.scheduler.held()]) == ({}, ["new"])

    asyncio.run(scenario())


def test_a_mail_that_waits_first_in_line_at_the_canary_is_not_waited_for(tmp_path):
    """The account has room for the small mail, but its turn is that of a larger one."""

    async def scenario():
        a, new = Scripted("a"), Scripted("new")
        routes = (on_trial(), route("globex.nl", via="new"), route("initech.nl", via="new"))
        async with room(tmp_path, routes, a, new, paces={"new": Rate(per_hour=6)}) as r:
            await r.put("info@initech.nl", *[f"{name}@example.org" for name in "pqrs"], route="initech.nl")
            await r.quiet()
            await r.put("info@globex.nl", *[f"{name}@example.org" for name in "xyz"], route="globex.nl")
            await r.quiet()
            await r.put("info@acme.nl", TEST)
            await r.quiet()
            assert (len(a.mails), [mail.route for mail in new.mails]) == (1, ["initech.nl"])

    asyncio.run(scenario())


def test_a_report_that_the_canary_does_not_take_waits_for_the_usual_way(tmp_path):
    async def scenario():
        a, new = Scripted("a"), Scripted("new", BAD_LOGIN)
        async with room(tmp_path, (on_trial(),), a, new, paces={"a": Rate(per_hour=1)}) as r:
            await r.put()
            await until(lambda: a.mails, "the hour's only mail")
            await r.put("", TEST)
            await until(lambda: new.mails, "the canary")
            assert await r.waiting() == {"acme.nl": 1}
            await r.clock.advance(3 * 3600)
            assert (len(a.mails), await r.waiting()) == (2, {})

    asyncio.run(scenario())


def test_expiry_runs_on_while_the_canary_is_on_hold(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, new = Scripted("a", BUSY), Scripted("new", BAD_LOGIN, BUSY)
        async with room(tmp_path, (on_trial(),), a, new, expire=600.0, retry=(100.0,)) as r:
            await r.put("info@acme.nl", TEST)
            await r.clock.advance(610)
            assert new.probes
            assert len(events(caplog, "expired")) == 1

    asyncio.run(scenario())
