"""Charts: the right stretches of time, bars that add up, a scale that reads well."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from ops.status.charts import PERIODS, chart, edges, spark


@pytest.fixture
def amsterdam(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Amsterdam")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("period", "count"), [("hour", 12), ("day", 24), ("month", 31)])
def test_a_period_ends_now_and_has_its_bars(period, count):
    now = 1_700_000_123.0
    marks = edges(period, now)
    assert len(marks) == count + 1
    assert list(marks) == sorted(set(marks))
    assert marks[-2] <= now < marks[-1]


def test_days_are_those_of_the_calendar_here(amsterdam):
    now = time.mktime((2026, 4, 10, 3, 0, 0, 0, 0, -1))  # the clock changed on 29 March
    marks = edges("month", now)
    assert {time.strftime("%H:%M", time.localtime(mark)) for mark in marks} == {"00:00"}
    assert sorted({round((end - start) / 3600) for start, end in pairwise(marks)}) == [23, 24]


@pytest.mark.parametrize(("most", "top"), [(0, 1), (3, 3), (7, 8), (11, 20), (50, 50), (51, 60), (1234567, 2000000)])
def test_the_scale_is_round(most, top):
    assert chart("day", [0.0], [(most, 0, 0)]).top == top


def test_bars_stand_on_each_other_and_inside():
    marks = edges("hour", 1_700_000_000.0)
    drawn = chart("hour", marks[:-1], [(number, number * 2, number) for number in range(12)], 100, 50)
    for number, bar in enumerate(drawn.bars):
        assert bar.counts == (number, number * 2, number)
        assert bar.delivered[0] + bar.delivered[1] == pytest.approx(50, abs=0.02)
        assert bar.failed[0] + bar.failed[1] == pytest.approx(bar.delivered[0], abs=0.02)
        assert bar.failed[0] >= 0
        assert 0 <= bar.x <= bar.x + bar.width <= 100


@pytest.mark.parametrize("period", PERIODS)
def test_some_bars_are_labelled(period):
    marks = edges(period, time.time())
    drawn = chart(period, marks[:-1], [(0, 0, 0)] * (len(marks) - 1))
    assert 4 <= sum(bool(bar.label) for bar in drawn.bars) <= 8


def test_a_small_chart_has_a_bar_for_each_stretch_that_had_mail():
    drawn = spark([(4, 2, 1), (0, 0, 0), (2, 2, 0)], width=30, height=8)
    assert (drawn.delivered.count("M"), drawn.failed.count("M"), drawn.accepted.count("M")) == (2, 1, 2)
    assert drawn.delivered.startswith("M0.0 8h7.5v-4.0h-7.5z")
    assert drawn.failed == "M0.0 4.0h7.5v-2.0h-7.5z"
    assert spark([]).delivered == spark([(0, 0, 0)]).accepted == ""
