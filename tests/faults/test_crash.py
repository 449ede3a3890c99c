"""The real process under load, struck at random moments: nothing that got its 250 is lost, and what arrives twice was
under way at a kill.

The long form is `scripts/torture --rounds 200` (or `--minutes N`).
"""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.kill_rounds import KILLS, OTHERS, Tally, kill_rounds


@pytest.mark.parametrize("kind", KILLS)
def test_what_got_its_250_arrives_though_the_relay_is_killed_again_and_again(kind, tmp_path):
    tally = asyncio.run(kill_rounds(tmp_path, rounds=4, seconds=15, strikes={kind: KILLS[kind]}))
    assert tally.promised
    assert tally.faults() == [], tally
    assert tally.opened >= tally.rounds[kind]


@pytest.mark.parametrize("kind", OTHERS)
def test_without_a_kill_everything_arrives_once(kind, tmp_path):
    tally = asyncio.run(kill_rounds(tmp_path, rounds=4, seconds=15, strikes={kind: OTHERS[kind]}))
    assert tally.promised
    assert tally.faults() == [], tally
    assert tally.duplicates == 0


def test_the_tally_sees_a_loss_and_a_double_that_no_kill_explains():
    tally = Tally(sent={"a", "b"}, promised={("a", "x"), ("b", "x")})
    assert [fault[:4] for fault in tally.faults()] == ["lost"]
    tally.arrived.update({("a", "x"): 2, ("b", "x"): 1})
    assert [fault[:5] for fault in tally.faults()] == ["twice"]
    tally.doubted["a", "x"] += 1
    assert tally.faults() == []
    tally.arrived["c", "x"] += 1
    assert [fault[:7] for fault in tally.faults()] == ["made up"]
