"""Slots that nodes share: never more than the limit in use, whoever dies, and nobody in line is forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spool import postgres_node, postgres_schema
from spool import postgres_slots as slots
from spool.cluster import TRIAL_LASTS
from tests.spool.test_postgres_nodes import fall_silent, nodes
from tests.waiting import until

START = 1_700_000_000.0
LIMIT = "upstream one"


@pytest.fixture
def connection(database):
    options = postgres_schema.options_of(database)
    postgres_schema.prepare(options)
    with postgres_schema.connect(options) as opened:
        yield opened


def node(connection) -> int:
    with connection.transaction():
        return postgres_node.enter(connection, postgres_node.this_process(30.0))[0]


STEP = st.tuples(
    st.integers(0, 2),  # which node
    st.integers(1, 4),  # how many it wants, or gives back
    st.sampled_from([0.0, 0.1, 1.0, 4.0]),  # time that passes before it
    st.sampled_from(["takes", "takes", "takes", "begins", "ends", "gives back", "dies", "comes back"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(size=st.integers(1, 5), steps=st.lists(STEP, min_size=10, max_size=80))
def test_three_nodes_never_use_more_slots_than_there_are(connection, size, steps):
    """Sends are begun only in slots that a node has; a node that died has none, and its sends are over."""
    connection.execute("TRUNCATE slots")
    connection.execute("DELETE FROM node")
    numbers = [node(connection) for _ in range(3)]
    held, busy = [0, 0, 0], [0, 0, 0]
    now = START
    for which, count, passes, what in steps:
        now += passes
        if what == "takes":
            held[which] += slots.take(connection, numbers[which], LIMIT, size, count, at=now).count
        elif what == "begins" and busy[which] < held[which]:
            busy[which] += 1
        elif what == "ends" and busy[which]:
            busy[which] -= 1
        elif what == "gives back":
            given_back = min(count, held[which] - busy[which])
            held[which] -= given_back
            slots.give_back(connection, numbers[which], LIMIT, given_back, now)
        elif what == "dies":
            postgres_node.bury(connection, [numbers[which]])
            held[which] = busy[which] = 0
            assert slots.take(connection, numbers[which], LIMIT, size, count, at=now).count == 0, "the dead get nothing"
        elif what == "comes back" and not held[which]:
            postgres_node.bury(connection, [numbers[which]])
            numbers[which] = node(connection)
        assert sum(busy) <= sum(held) <= size
        row = connection.execute("SELECT coalesce(sum(held), 0) FROM slots").fetchone()
        assert row == (sum(held),), "what the database counts is what they have"
    for which in range(3):  # whatever came before: once all are dead, everything is free for who comes then
        postgres_node.bury(connection, [numbers[which]])
    assert slots.take(connection, node(connection), LIMIT, size, size, at=now).count == size


def test_who_waits_longer_goes_first_and_nobody_takes_more_than_a_part(connection):
    one, two, three = (node(connection) for _ in range(3))
    assert slots.take(connection, one, LIMIT, 4, 4, at=START).count == 4
    assert slots.take(connection, two, LIMIT, 4, 4, at=START + 0.1) == slots.Taken(0, 2, short=True)
    assert slots.take(connection, three, LIMIT, 4, 4, at=START + 0.2) == slots.Taken(0, 1, short=True, line=True)
    assert slots.give_back(connection, one, LIMIT, 1, START + 0.3), "somebody is in line"
    assert slots.take(connection, three, LIMIT, 4, 4, at=START + 0.4).count == 0, "it came later"
    assert slots.take(connection, one, LIMIT, 4, 4, at=START + 0.5).count == 0, "it has more than its part"
    assert slots.take(connection, two, LIMIT, 4, 4, at=START + 0.6).count == 1
    slots.give_back(connection, one, LIMIT, 2, START + 0.7)
    assert slots.take(connection, three, LIMIT, 4, 4, at=START + 0.8).count == 2, "nobody has less and waits"


def test_a_slot_that_was_lent_for_a_time_goes_to_the_next_after_it(connection):
    one, two = node(connection), node(connection)
    assert slots.take(connection, one, LIMIT, 1, 1, TRIAL_LASTS, START).count == 1
    assert slots.take(connection, two, LIMIT, 1, 1, TRIAL_LASTS, START + TRIAL_LASTS).count == 0
    assert slots.take(connection, two, LIMIT, 1, 1, TRIAL_LASTS, START + TRIAL_LASTS + 0.1).count == 1
    slots.give_back(connection, one, LIMIT, 1, START + TRIAL_LASTS + 0.2)  # late: it is the other's
    assert slots.take(connection, one, LIMIT, 1, 1, TRIAL_LASTS, START + TRIAL_LASTS + 0.3).count == 0


def test_nodes_at_one_moment_do_not_take_a_slot_twice(database):
    async def test():
        async with nodes(database, 3) as spools:
            taken = await asyncio.gather(*(spool.cluster.take(LIMIT, 7, 1) for spool in spools * 10))
            assert sum(taken) == 7

    asyncio.run(test())


def test_the_death_of_a_node_frees_its_slots(database):
    async def test():
        async with nodes(database, 2) as (one, other):
            assert await one.cluster.take(LIMIT, 2, 2) == 2
            assert await other.cluster.take(LIMIT, 2, 1) == 0
            await fall_silent(one)

            async def free() -> bool:
                return await other.cluster.take(LIMIT, 2, 2) > 0

            await until(free)

    asyncio.run(test())


class Ears:
    def __init__(self):
        self.told = []

    def news(self, news):
        self.told.append(("news", news))

    def wanted(self, limit, part):
        self.told.append(("wanted", limit, part))

    def freed(self, limit):
        self.told.append(("freed", limit))

    def works(self, key):
        self.told.append(("works", key))

    def reborn(self):
        self.told.append(("reborn",))


def test_who_has_slots_hears_of_who_wants_one_and_that_one_hears_of_a_free_one(database):
    async def test():
        async with nodes(database, 2, lease=30.0) as (one, other):
            for spool in (one, other):
                spool.ears = Ears()
                spool.cluster.listen(spool.ears)
            assert await one.cluster.take(LIMIT, 2, 2) == 2
            assert await other.cluster.take(LIMIT, 2, 2) == 0

            async def asked() -> bool:
                return ("wanted", LIMIT, 1) in one.ears.told

            async def free() -> bool:
                return ("freed", LIMIT) in other.ears.told

            await until(asked)
            one.cluster.give_back(LIMIT, 1)
            await until(free)
            assert await other.cluster.take(LIMIT, 2, 2) == 1

    asyncio.run(test())
