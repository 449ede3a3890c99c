"""Backoff and verdict: pure, so with tables and properties."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.fields import Duration
from config.relay_settings import Delivery
from config.rules import RouteSettings
from delivery.backoff import JITTER, PROBE_WAITS, next_try, probe_wait, retry_wait
from delivery.verdict import Final, judge
from routing.outcome import Outcome, Stage, Word
from spool.contract import Leased, Pending, Settled
from tests.delivery.room import BAD_LOGIN, BUSY, DOUBT, NO_USER, NOT_YOURS, SENT, START

HOUR = 3600.0
waits = st.lists(st.floats(1, 1e5), min_size=1, max_size=8).map(sorted)


@given(waits, st.integers(0, 50), st.integers())
def test_the_wait_is_that_of_the_list_and_at_most_the_jitter_longer(listed, attempts, seed):
    listed_wait = listed[min(attempts, len(listed) - 1)]
    assert listed_wait <= retry_wait(attempts, listed, Random(seed)) <= listed_wait * (1 + JITTER)


@given(waits, st.integers(0, 50), st.integers())
def test_waits_never_shrink_but_for_the_jitter(listed, attempts, seed):
    earlier, later = (retry_wait(number, listed, Random(seed)) for number in (attempts, attempts + 1))
    assert later >= earlier


@given(
    now=st.floats(0, 1e9),
    own=st.floats(1, 1e5),
    stated=st.none() | st.floats(0, 1e6),
    expires_in=st.floats(-1e5, 1e6),
)
def test_the_next_try_is_never_before_the_stated_time_and_the_last_one_is_at_expiry(now, own, stated, expires_in):
    at = next_try(now, own, stated, now + expires_in)
    assert at >= now + (stated or 0.0)
    assert at <= max(now + own, now + (stated or 0.0))
    if expires_in > 0 and not stated:
        assert at <= now + expires_in or at == pytest.approx(now + expires_in)


def test_probes_have_their_timetable_and_obey_a_stated_wait():
    assert [probe_wait(number) for number in range(7)] == [*PROBE_WAITS, PROBE_WAITS[-1], PROBE_WAITS[-1]]
    assert probe_wait(0, 7200.0) == 7200.0
    assert probe_wait(4, 60.0) == 3600.0


def verdict_on(*outcomes: Outcome | None, doubts=0, held=(), unknown="retry_once", age=0.0, sender="a@acme.nl", **more):
    recipients = tuple(Pending(f"r{number}@x.nl", doubts) for number in range(len(outcomes)))
    finals = {f"r{n}@x.nl": Final("a", one, n in held) for n, one in enumerate(outcomes) if one is not None}
    settings = RouteSettings(from_=("acme.nl",), via=("a",), unknown=unknown)
    return judge(
        Leased(1, "acme.nl", sender, recipients, b"\r\n", START, more.pop("attempts", 0)),
        finals,
        settings,
        Delivery(expire=Duration(10 * HOUR)),
        now=START + age,
        alive_since=more.pop("alive_since", START),
        random=Random(1),
    )


def test_every_word_has_its_end():
    verdict = verdict_on(SENT, NO_USER, BUSY)
    assert verdict.done == {"r0@x.nl": Settled.DELIVERED, "r1@x.nl": Settled.FAILED}
    assert [failure.address for failure in verdict.failures] == ["r1@x.nl"]
    assert START + 60 <= verdict.due_at <= START + 66
    assert verdict.counted
    assert verdict_on(SENT).due_at is None


def test_a_stated_wait_is_obeyed_for_the_whole_mail():
    wait = Outcome(Word.WAIT, "429", Stage.REQUEST, 429, wait=1800.0)
    assert verdict_on(wait, BUSY).due_at == START + 1800
    short = Outcome(Word.WAIT, "429", Stage.REQUEST, 429, wait=1.0)
    assert verdict_on(short).due_at >= START + 60


@pytest.mark.parametrize(
    ("unknown", "doubts", "ends"),
    [("retry_once", 0, False), ("retry_once", 1, True), ("retry", 5, False), ("stop", 0, True)],
)
def test_a_doubt_is_tried_as_often_as_the_route_says_and_then_reported_as_a_doubt(unknown, doubts, ends):
    verdict = verdict_on(DOUBT, unknown=unknown, doubts=doubts)
    assert (verdict.done == {"r0@x.nl": Settled.FAILED}) is ends
    assert verdict.doubted == (frozenset() if ends else {"r0@x.nl"})
    assert [failure.doubtful for failure in verdict.failures] == ([True] if ends else [])


def test_a_failure_after_a_doubt_says_that_the_mail_may_have_arrived():
    assert verdict_on(NO_USER, doubts=1).failures[0].doubtful
    assert not verdict_on(NO_USER).failures[0].doubtful


def test_a_mail_expires_at_its_last_try_and_not_before():
    assert verdict_on(BUSY, age=10 * HOUR - 30, attempts=9).due_at == pytest.approx(START + 10 * HOUR)
    verdict = verdict_on(BUSY, age=10 * HOUR)
    assert verdict.done == {"r0@x.nl": Settled.EXPIRED}
    assert verdict_on(SENT, age=20 * HOUR).done == {"r0@x.nl": Settled.DELIVERED}


def test_held_mail_does_not_expire_and_its_time_begins_again_after_the_hold():
    held = verdict_on(BAD_LOGIN, held=(0,), age=50 * HOUR)
    assert (held.done, held.failures, held.counted) == ({}, (), False)
    assert verdict_on(BUSY, age=50 * HOUR, alive_since=START + 49 * HOUR).done == {}


def test_a_held_recipient_does_not_keep_the_others_waiting():
    verdict = verdict_on(BUSY, BAD_LOGIN, held=(1,))
    assert verdict.due_at <= START + 66
    assert verdict.counted


def test_recipients_that_were_not_tried_come_back_at_once_uncounted():
    verdict = verdict_on(SENT, None)
    assert (verdict.due_at, dict(verdict.done)) == (START, {"r0@x.nl": Settled.DELIVERED})
    assert not verdict_on(None).counted


def test_a_report_that_a_way_does_not_take_is_not_kept():
    assert verdict_on(NOT_YOURS, sender="").done == {"r0@x.nl": Settled.FAILED}


def test_what_is_wrong_with_a_way_for_everybody_ends_no_report():
    assert verdict_on(BAD_LOGIN, sender="").done == {}


some_outcome = st.builds(Outcome, st.sampled_from(Word), st.just("x"), st.sampled_from(Stage))


@given(
    st.lists(st.none() | some_outcome, min_size=1, max_size=6),
    st.integers(0, 3),
    st.sampled_from(("retry_once", "retry", "stop")),
    st.floats(0, 1e6),
    st.booleans(),
)
def test_nobody_is_lost_and_every_failure_is_reported(outcomes, doubts, unknown, age, null_sender):
    sender = "" if null_sender else "a@acme.nl"
    verdict = verdict_on(*outcomes, doubts=doubts, unknown=unknown, age=age, sender=sender)
    assert (verdict.due_at is None) == (len(verdict.done) == len(outcomes))
    failed = {address for address, how in verdict.done.items() if how is not Settled.DELIVERED}
    assert {failure.address for failure in verdict.failures} == failed
    delivered = {address for address, how in verdict.done.items() if how is Settled.DELIVERED}
    assert delivered == {f"r{n}@x.nl" for n, one in enumerate(outcomes) if one and one.word is Word.SENT}
    assert not verdict.doubted & verdict.done.keys()
    if failed:
        back = verdict.unreported(START + age + 60)
        assert back.done.keys() == delivered
        assert back.due_at >= START + age + 60
