"""The simulation of a day, small: no provider sees too much, nothing is lost or sent twice, nobody waits for others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.simulate import Account, Customer, main, run, simulate, table
from bench.virtual_time import VirtualLoop
from config.fields import Duration
from config.rules import Rate


def test_a_small_day_breaks_no_limit_and_loses_nothing():
    result = simulate(scale=0.05, hours=24.0, seed=3)
    assert result.good, table(result)
    assert result.waiting == 0
    assert len(result.accounts) == 24
    assert result.accounts["mailbox-0"].most[0] == 30, "the limit is used in full"
    assert max(result.delays["own mailbox"]) < 10
    assert max(result.delays["shared mailbox"]) < 10, "the campaign on the same account delays nobody"
    assert result.accounts["own-server"].unreached < 60
    assert "0 lost, 0 twice, 0 over a limit" in table(result)


def test_it_notices_a_limit_that_is_broken(tmp_path):
    account = Account("a", Rate(per_minute=5), enforces=Rate(per_minute=4))

    async def scenario():
        return await run(tmp_path, [account], [Customer("one.nl", ("a",), "one", 0, 6, 9.0)], 10.0, 1)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(scenario())
    assert (result.breaches, result.good) == (1, False)
    assert "1 over a limit" in table(result)


rates = st.builds(
    Rate,
    per_second=st.none() | st.integers(1, 3),
    per_minute=st.none() | st.integers(1, 20),
    per_hour=st.none() | st.integers(3, 60),
    per_day=st.none() | st.integers(20, 200),
)
away = st.lists(st.tuples(st.floats(8, 12), st.floats(0.01, 2)), max_size=2).map(
    lambda spans: tuple((begin, begin + length) for begin, length in spans)
)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(
        st.builds(Account, st.just("x"), rates, st.sampled_from((0.1, 5.0)), st.integers(1, 6), away),
        min_size=2,
        max_size=2,
    ),
    st.sampled_from((None, 0.0, 60.0)),
    st.integers(0, 40),
    st.integers(0, 999),
)
def test_whatever_the_limits_and_outages_none_is_broken_and_all_gets_out(tmp_path_factory, made, spill, heap, seed):
    accounts = [
        Account(f"a{number}", one.rate, one.seconds, one.concurrency, one.away) for number, one in enumerate(made)
    ]
    customers = [
        Customer("one.nl", ("a0", "a1"), "one", 3, heap, 8.5, None if spill is None else Duration(spill)),
        Customer("two.nl", ("a0",), "two", 3),
        Customer("three.nl", ("a1", "a0"), "three", 3, heap // 2, 9.0),
    ]

    async def scenario():
        result = await run(tmp_path_factory.mktemp("spool"), accounts, customers, 24.0 * 6, seed)
        assert result.good, table(result)
        assert result.waiting == 0, table(result)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scenario())


def test_its_exit_code_says_whether_all_was_kept(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["simulate", "--scale", "0.01", "--hours", "12"])
    assert main() == 0
    assert "own mailbox, campaign" in capsys.readouterr().out


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level("CRITICAL")
