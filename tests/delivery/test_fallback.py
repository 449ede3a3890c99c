"""`via: [a, b]`: when b is used, that a is used again, and that nothing is ever passed on in doubt."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delivery.choice import Standing, next_upstream
from routing.mail import Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from spool.sqlite_view import SqliteView
from tests.delivery.room import BAD_LOGIN, BUSY, DOUBT, DOWN, NO_USER, SENT, Scripted, events, room, route
from tests.waiting import until

VIA = ("a", "b")
FINE = {"a": Standing(), "b": Standing()}
THROTTLED = Outcome(Word.WAIT, "429 slow down", Stage.REQUEST, 429, wait=30.0)
TLS_DOWN = Outcome(Word.RETRY, "handshake timed out", Stage.TLS)


def choose(tried: dict[str, Outcome], a: Standing = FINE["a"], b: Standing = FINE["b"]) -> str | None:
    return next_upstream(VIA, {"a": a, "b": b}, tried, now=1000.0, fallback_after=300.0)


def test_which_upstream_is_next():
    away = Standing(unreachable_since=700.0)
    not_yet = Standing(unreachable_since=701.0)
    held, gone = Standing(held=True), Standing(gone=True)
    table = [
        # tried, a, b, expected
        ({}, Standing(), Standing(), "a"),
        ({}, held, Standing(), "b"),
        ({}, gone, Standing(), "b"),
        ({}, away, Standing(), "b"),
        ({}, not_yet, Standing(), "a"),
        ({}, held, held, None),
        ({}, away, held, "a"),
        ({}, held, away, "b"),
        ({}, away, away, "a"),
        ({"a": SENT}, Standing(), Standing(), None),
        ({"a": NO_USER}, Standing(), Standing(), None),
        ({"a": BUSY}, Standing(), Standing(), None),
        ({"a": BUSY}, away, Standing(), None),
        ({"a": THROTTLED}, Standing(), Standing(), None),
        ({"a": DOUBT}, Standing(), Standing(), None),
        ({"a": DOUBT}, away, Standing(), None),
        ({"a": BAD_LOGIN}, held, Standing(), "b"),
        ({"a": BAD_LOGIN}, held, held, None),
        ({"a": BAD_LOGIN}, held, away, None),
        ({"a": DOWN}, not_yet, Standing(), None),
        ({"a": DOWN}, away, Standing(), "b"),
        ({"a": TLS_DOWN}, away, Standing(), "b"),
        ({"a": DOWN, "b": BUSY}, away, Standing(), None),
        ({"a": DOWN, "b": BAD_LOGIN}, away, held, None),
    ]
    for tried, a, b, expected in table:
        assert choose(tried, a, b) == expected, (tried, a, b)


outcomes = st.builds(Outcome, st.sampled_from(Word), st.just("x"), st.sampled_from(Stage))
some_standing = st.builds(Standing, st.booleans(), st.none() | st.floats(0, 2000, allow_nan=False), st.booleans())


@given(
    via=st.lists(st.sampled_from("abcd"), min_size=1, unique=True),
    standings=st.fixed_dictionaries({name: some_standing for name in "abcd"}),
    data=st.data(),
)
def test_the_choice_is_never_closed_never_twice_and_never_behind_a_doubt(via, standings, data):
    tried = {name: data.draw(outcomes) for name in via[: data.draw(st.integers(0, len(via)))]}
    chosen = next_upstream(via, standings, tried, 1000.0, 300.0)
    if chosen is not None:
        assert chosen in via
        assert chosen not in tried
        assert not standings[chosen].held
        assert not standings[chosen].gone
        assert all(outcome.word in (Word.CONFIG, Word.RETRY) for outcome in tried.values())
    elif not tried:
        assert all(standings[name].held or standings[name].gone for name in via)


def test_config_at_the_first_goes_to_the_second_in_the_same_attempt(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b = Scripted("a", BAD_LOGIN), Scripted("b")
        a.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            number = await r.put()
            await until(lambda: b.mails, "the fallback")
            for _ in range(5):
                await r.put()
            await until(lambda: len(b.mails) == 6, "the others, straight")
            assert len(a.mails) == 1
            assert await r.waiting() == {}
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(number)
            view.close()
            assert [entry.upstream for entry in story.entries if entry.event == "attempt"] == ["a", "b"]
            assert [line["upstream"] for line in events(caplog, "delivered")] == ["b"] * 6
            a.probe_answer, a.answers = SENT, [SENT]
            await r.clock.advance(400)
            await r.put()
            await until(lambda: len(a.mails) == 2, "the way back")

    asyncio.run(scenario())


def test_only_the_recipients_that_config_is_for_go_to_the_second(tmp_path):
    def answer(mail: Outgoing) -> Results:
        config = Outcome(Word.CONFIG, "550 5.7.54 unable to relay", Stage.RECIPIENT, 550, "5.7.54")
        return {to: config if to.endswith("outside.nl") else SENT for to in mail.recipients}

    async def scenario():
        a, b = Scripted("a", answer), Scripted("b")
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put("info@acme.nl", "x@inside.nl", "y@outside.nl", "z@inside.nl")
            await until(lambda: b.mails, "the fallback")
            assert a.mails[0].recipients == ("x@inside.nl", "y@outside.nl", "z@inside.nl")
            assert b.mails[0].recipients == ("y@outside.nl",)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_unreachable_is_waited_out_then_gone_round_then_used_again(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b = Scripted("a", DOWN), Scripted("b")
        a.probe_answer = DOWN
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put()
            await until(lambda: len(a.mails) == 1, "the first try")
            await r.clock.advance(70)
            assert (len(a.mails), len(b.mails)) == (2, 0)
            assert "a" in r.scheduler.unreachable()
            await r.clock.advance(400)
            assert (len(a.mails), len(b.mails)) == (2, 1)
            await r.put()
            await until(lambda: len(b.mails) == 2, "new mail goes straight to the second")
            assert len(a.mails) == 2
            await r.clock.advance(130)
            assert len(a.probes) == 1
            a.probe_answer, a.answers = SENT, [SENT]
            await r.clock.advance(300)
            assert r.scheduler.unreachable() == {}
            await r.put()
            await until(lambda: len(a.mails) == 3, "the way back")
            assert await r.waiting() == {}
            before = len(a.probes)
            await r.clock.advance(7200)
            assert len(a.probes) == before

    asyncio.run(scenario())


def test_a_doubt_is_never_sent_by_the_other_way(tmp_path):
    async def scenario():
        a, b = Scripted("a", DOUBT), Scripted("b")
        async with room(tmp_path, (route("acme.nl", via=VIA, unknown="stop"), route("<>", via="b")), a, b) as r:
            await r.put()
            await until(lambda: b.mails, "the report")
            await r.quiet()
            assert len(a.mails) == 1
            assert [mail.sender for mail in b.mails] == [""]

    asyncio.run(scenario())


def test_routes_with_each_others_upstreams_as_fallback_do_not_block_each_other(tmp_path):
    async def scenario():
        def refuse(name: str):
            def answer(mail: Outgoing) -> Results:
                return dict.fromkeys(mail.recipients, BAD_LOGIN if mail.route == name else SENT)

            return answer

        a, b = Scripted("a", refuse("acme.nl"), concurrency=1), Scripted("b", refuse("globex.nl"), concurrency=1)
        a.probe_answer = b.probe_answer = BAD_LOGIN
        routes = (route("acme.nl", via=("a", "b")), route("globex.nl", via=("b", "a")))
        async with room(tmp_path, routes, a, b, start=False) as r:
            for _ in range(10):
                await r.put()
                await r.put("info@globex.nl", route="globex.nl")
            await r.scheduler.start()
            await r.clock.advance(0)
            await until(lambda: len(a.mails) + len(b.mails) == 22, "everything by the other's way")
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_second_that_is_wrong_too_is_logged_into_once(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b = Scripted("a", SENT), Scripted("b", BAD_LOGIN)
        a.probe_answer = b.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put()
            await until(lambda: len(events(caplog, "delivered")) == 1, "a way that works")
            a.answers = [BAD_LOGIN]
            a.opened.clear()
            for _ in range(8):
                await r.put()
            await until(lambda: a.under_way == 8, "eight sends")
            a.opened.set()
            await until(lambda: len(events(caplog, "held")) == 2, "both ways held")
            await r.quiet()
            assert len(b.mails) == 1
            assert await r.waiting() == {"acme.nl": 8}

    asyncio.run(scenario())


TOO_LARGE = Outcome(Word.REJECT, "4 MB is the most", Stage.PREPARE, enhanced="5.3.4")
NO_FORM = Outcome(Word.REJECT, "the API has no multipart/signed", Stage.PREPARE, enhanced="5.6.3")


def test_a_mail_too_large_for_the_first_goes_by_the_second_at_once():
    held, away = Standing(held=True), Standing(unreachable_since=0.0)
    assert choose({"a": TOO_LARGE}) == "b"
    assert choose({"a": TOO_LARGE}, b=held) is None
    assert choose({"a": TOO_LARGE}, b=away) is None
    assert choose({"a": TOO_LARGE, "b": TOO_LARGE}) is None


@pytest.mark.parametrize("refusal", [TOO_LARGE, NO_FORM], ids=["too large", "no form"])
def test_what_the_first_cannot_carry_is_no_failure_of_it(tmp_path, refusal):
    async def scenario():
        a, b = Scripted("a", refusal, SENT), Scripted("b")
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put()
            await until(lambda: b.mails, "the second")
            await r.put()
            await until(lambda: len(a.mails) == 2, "the first, for a mail of the usual size")
            assert (len(b.mails), a.probes, await r.waiting()) == (1, [], {})

    asyncio.run(scenario())


def test_a_large_mail_waits_for_the_second_while_that_is_on_hold(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b = Scripted("a", TOO_LARGE), Scripted("b", BAD_LOGIN, SENT)
        b.probe_answer = BAD_LOGIN
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put()
            await until(lambda: b.mails, "the second, which closes")
            await r.put()
            await until(lambda: len(a.mails) == 2, "the second mail")
            assert events(caplog, "failed") == []
            b.probe_answer = SENT
            await r.clock.advance(3600)
            await until(lambda: len(b.mails) >= 3, "both by the second")
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_too_large_for_all_is_final(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b = Scripted("a", TOO_LARGE, SENT), Scripted("b", TOO_LARGE)
        async with room(tmp_path, (route("acme.nl", via=VIA),), a, b) as r:
            await r.put()
            await until(lambda: events(caplog, "failed"), "the failure")

    asyncio.run(scenario())
