"""Limits that nodes share: the sum of what they send never exceeds them, and a node's death frees its share."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool import postgres_pace as pace
from spool import postgres_schema
from spool.contract import Toll
from tests.spool.test_postgres_nodes import fall_silent, nodes
from tests.waiting import until

START = 1_700_000_000.0


@pytest.fixture
def connection(database):
    options = postgres_schema.options_of(database)
    postgres_schema.prepare(options)
    with postgres_schema.connect(options) as opened:
        for number in range(3):
            opened.execute(
                "INSERT INTO node (id, slot, name, machine, process, born, started_at, seen_at, lease) "
                "OVERRIDING SYSTEM VALUE VALUES (%s, %s, 'a', 'a', 1, '', 0, 0, 30)",
                (number, number),
            )
        yield opened


STEP = st.tuples(
    st.integers(0, 2),  # which node
    st.integers(1, 4),  # recipients
    st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 61.0]),  # time that passes before it
    st.sampled_from(["ends", "ends", "says nothing", "goes on", "dies"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, min_size=5, max_size=60))
def test_the_sum_of_three_nodes_never_exceeds_a_limit(connection, steps):
    limits = (2, 6, 15, None)
    toll_windows = ((1.0, 2, False), (60.0, 6, False), (3600.0, 15, True))
    connection.execute("TRUNCATE account, pace, fare")
    now = START
    sent: list[tuple[float, int]] = []  # what the provider saw: when, and for how many
    open_sends: dict[int, tuple[int, int]] = {}
    for node, recipients, passes, fate in steps:
        now += passes
        tickets = pace.admit(connection, node, [Toll("account", limits, recipients)], now)
        if isinstance(tickets, pace.Full):
            assert tickets.wait > 0
            continue
        if fate != "says nothing":
            sent.append((now, recipients))
        if fate == "goes on":
            open_sends[tickets[0]] = (node, recipients)
        elif fate == "dies":
            pace.bury(connection, [node], now)
            open_sends = {number: one for number, one in open_sends.items() if one[0] != node}
        else:
            pace.passed(connection, tickets, fate == "ends", now)
        for length, limit, of_recipients in toll_windows:
            window = [count for at, count in sent if at > now - length]
            assert (sum(window) if of_recipients else len(window)) <= limit


def test_a_limit_is_used_up_to_the_last(connection):
    toll = [Toll("account", (None, 5, None, None), 1)]
    for _ in range(5):
        tickets = pace.admit(connection, 1, toll, START)
        assert isinstance(tickets, tuple)
        pace.passed(connection, tickets, True, START)
    full = pace.admit(connection, 2, toll, START + 1)
    assert isinstance(full, pace.Full)
    assert 58 < full.wait <= 61
    assert isinstance(pace.admit(connection, 2, toll, START + 1 + full.wait), tuple)


def test_a_send_needs_room_on_all_its_accounts_or_counts_on_none(connection):
    one, other = Toll("one", (None, 1, None, None), 1), Toll("other", (None, 5, None, None), 1)
    assert isinstance(pace.admit(connection, 1, [other, one], START), tuple)
    assert isinstance(pace.admit(connection, 2, [one, other], START), pace.Full)
    assert connection.execute("SELECT count(*) FROM fare").fetchone() == (2,)


def test_a_node_that_was_declared_dead_begins_no_send_that_would_count_for_ever(connection):
    toll = [Toll("account", (None, 5, None, None), 1)]
    connection.execute("DELETE FROM node WHERE id = 1")
    assert pace.admit(connection, 1, toll, START) == pace.Full("account", 0.5)
    assert connection.execute("SELECT count(*) FROM fare").fetchone() == (0,)
    assert isinstance(pace.admit(connection, 2, toll, START), tuple)


def test_nodes_at_one_moment_do_not_pass_a_limit_together(database):
    async def test():
        async with nodes(database, 3) as spools:
            toll = [Toll("account", (None, 10, None, None), 1)]
            answers = await asyncio.gather(*(spool.admit(toll) for spool in spools * 10))
            assert sum(not isinstance(answer, float) for answer in answers) == 10
            number, tickets = next(
                (number, answer) for number, answer in enumerate(answers) if not isinstance(answer, float)
            )
            spools[number % 3].passed(tickets, counted=False)  # said nothing: its place is free again

            async def free() -> bool:
                return not isinstance(await spools[(number + 1) % 3].admit(toll), float)

            await until(free)

    asyncio.run(test())


def test_the_death_of_a_node_frees_its_share(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            toll = [Toll("account", (1, None, None, None), 1)]
            assert not isinstance(await one.admit(toll), float)
            assert isinstance(await other.admit(toll), float)
            await fall_silent(one)

            async def free() -> bool:
                return not isinstance(await other.admit(toll), float)

            await until(free)

    asyncio.run(test())
