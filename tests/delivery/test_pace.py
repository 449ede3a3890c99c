"""Sliding windows with a held clock: never too much in any window, never waiting for ever, never sooner for more."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from config.rules import Place, Rate, UpstreamRule
from delivery.accounts import Meters
from delivery.pace import Meter, Window, over, tightest
from tests.delivery.room import ScriptedSettings

LENGTHS = {"per_second": 1.0, "per_minute": 60.0, "per_hour": 3600.0, "per_day": 86400.0}
rates = st.builds(
    Rate,
    per_second=st.none() | st.integers(1, 4),
    per_minute=st.none() | st.integers(1, 30),
    per_hour=st.none() | st.integers(5, 60),
    per_day=st.none() | st.integers(5, 200),
)
steps = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(1, 5),
        st.sampled_from((0.0, 0.003, 0.4, 1.0, 7.0, 59.0, 600.0, 4000.0, 90000.0)),
        st.sampled_from((0.0, 0.5, 20.0)),
        st.booleans(),
    ),
    max_size=60,
)


def counted(rate: Rate, sent: list[tuple[float, float, int]], window: str, end: float) -> int:
    """What the other side can have counted in the window that ends at `end`, counting each send as it likes best."""
    length = LENGTHS[window]
    units = [n if length >= 3600 else 1 for began, ended, n in sent if began <= end and ended > end - length]
    return sum(units)


@given(rates, st.sampled_from((None, 1, 2, 3)), steps)
def test_no_window_ever_holds_more_than_its_limit(rate, sharers, steps):
    meter, now = Meter("m", rate, sharers), 1000.0
    sent: list[tuple[float, float, int]] = []
    for route, recipients, gap, took, said in steps:
        now += gap
        turn = meter.turn(route, recipients, now)
        assert turn.at >= now
        if turn.at > now:
            continue
        meter.begin(route, recipients)
        now += took
        meter.end(route, recipients, now, said)
        if said:
            sent.append((now - took, now, recipients))
        for window in LENGTHS:
            limit = getattr(rate, window)
            if limit is not None:
                assert counted(rate, sent, window, now) <= limit


@given(rates, st.sampled_from((None, 1, 2, 5)), steps)
def test_whoever_waits_until_it_is_told_may_send_then(rate, sharers, steps):
    meter, now = Meter("m", rate, sharers), 1000.0
    for route, recipients, gap, took, said in steps:
        now += gap
        turn = meter.turn(route, recipients, now)
        assert turn.at < inf, "with nothing under way there is always a time"
        assert turn.at <= now + 86400.0 + 1.0
        now = max(now, turn.at)
        assert meter.turn(route, recipients, now).at <= now
        meter.begin(route, recipients)
        now += took
        meter.end(route, recipients, now, said)


@given(steps, st.integers(1, 30), st.integers(1, 5))
def test_it_is_never_sooner_for_more_or_for_a_lower_limit_and_time_only_frees(steps, limit, units):
    window, now = Window(60.0), 1000.0
    for _, recipients, gap, took, said in steps:
        now += gap
        window.begin(recipients)
        now += took
        window.end(recipients, now, said)
    free_at = window.free_at(units, limit, now)
    assert free_at <= window.free_at(units + 1, limit, now)
    assert free_at <= window.free_at(units, limit - 1, now)
    used = [window.used(now + later) for later in (0.0, 10.0, 59.0, 61.0)]
    assert used == sorted(used, reverse=True)
    assert used[-1] == 0


def test_a_send_under_way_counts_until_a_windows_length_after_its_end():
    window = Window(60.0)
    window.begin(1)
    assert window.free_at(1, 1, 500.0) == inf
    window.end(1, 500.0, True)
    assert window.free_at(1, 1, 500.0) == 560.0
    assert window.free_at(1, 1, 559.9) == 560.0
    assert window.free_at(1, 1, 560.0) == 560.0


def test_sends_that_are_remembered_as_one_count_as_long_as_the_last_of_them():
    window = Window(128.0)
    for at in (1000.0, 1000.5, 1000.9):
        window.begin(1)
        window.end(1, at, True)
    assert window.used(1128.8) == 3
    assert window.free_at(1, 3, 1128.0) == 1128.9
    assert window.used(1128.9) == 0


def test_a_heap_of_one_route_leaves_room_for_the_others_of_the_account():
    meter = Meter("m", Rate(per_minute=30, per_day=1000), sharers=3)
    while meter.turn("heap", 1, 0.0).at <= 0.0:
        meter.begin("heap", 1)
        meter.end("heap", 1, 0.0, True)
    assert meter.used_today(0.0) == 27
    assert not meter.turn("heap", 1, 0.0).first
    for _ in range(3):
        assert meter.turn("single", 1, 0.0).at <= 0.0
        meter.begin("single", 1)
        meter.end("single", 1, 0.0, True)
    assert meter.turn("single", 1, 0.0).at == 60.0
    assert meter.turn("single", 1, 0.0).first


def test_seconds_and_minutes_count_mails_hours_and_days_recipients():
    meter = Meter("m", Rate(per_minute=2, per_day=10))
    meter.begin("r", 9)
    meter.end("r", 9, 0.0, True)
    assert meter.turn("r", 1, 0.0).at == 0.0
    assert meter.turn("r", 2, 0.0).at == 86400.0
    meter.begin("r", 1)
    meter.end("r", 1, 0.0, True)
    assert meter.turn("r", 1, 60.0).at == 86400.0
    assert meter.largest == 10


def test_the_day_coming_near_is_news_once_and_again_after_it_was_far():
    meter = Meter("m", Rate(per_day=10))
    told = []
    for at in (0.0, 1.0, 90000.0, 180000.0):
        for _ in range(5 if at < 2 else 1):
            meter.begin("r", 1)
            meter.end("r", 1, at, True)
            told.append(meter.news(at))
    assert told.count(True) == 1
    for _ in range(8):
        meter.begin("r", 1)
        meter.end("r", 1, 180000.0, True)
        told.append(meter.news(180000.0))
    assert told.count(True) == 2


def test_what_ops_write_goes_over_what_is_known_and_a_shared_account_takes_the_lowest():
    known = Rate(per_minute=30, per_day=10_000)
    assert over(Rate(per_day=500), known) == Rate(per_minute=30, per_day=500)
    assert over(Rate(), known) == known
    assert tightest([known, Rate(per_second=3, per_day=20_000)]) == Rate(per_second=3, per_minute=30, per_day=10_000)


def test_thousands_of_routes_are_walked_once():
    """New rules wait for it on the loop: by each of 5,000 upstreams it took four seconds in which no mail was taken."""
    walks = []

    class Settings:
        pace = None

        def __init__(self, upstream: str) -> None:
            self._upstream = upstream

        @property
        def upstreams(self) -> tuple[str, ...]:
            walks.append(self._upstream)
            return (self._upstream, "all")

    place, settings = Place("routes.yaml", 1), ScriptedSettings()
    paced = {name: UpstreamRule(name, "scripted", settings, place, Rate(per_day=9)) for name in ("u0", "u1", "all")}
    paced |= {f"u{number}": UpstreamRule(f"u{number}", "scripted", settings, place) for number in range(2, 50)}
    routes = [SimpleNamespace(name=f"r{number}", settings=Settings(f"u{number % 25}")) for number in range(50)]
    meters = Meters(paced, routes)
    assert {name: meter.sharers for name, meter in meters.upstreams.items()} == {"u0": 2, "u1": 2, "all": 50}
    assert len(walks) == 50
