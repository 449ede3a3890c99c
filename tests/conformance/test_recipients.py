"""Whoever is in the envelope gets the mail, nobody else, nobody twice; and each recipient has an outcome."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing.outcome import Word
from tests.conformance.harness import PEOPLE, alive, at, mail, sent

ANYBODY = st.lists(st.sampled_from([*PEOPLE, "Elsewhere <elsewhere@y.nl>", "A0@X.nl"]), max_size=5)
SOMEBODY = st.lists(st.sampled_from(PEOPLE), min_size=1, unique=True)
REFUSED = st.sets(st.sampled_from(PEOPLE), max_size=2)


@pytest.fixture
def place(case, setting):
    """One place for all examples of a test, and the runner that its loop belongs to."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield runner, runner.run(stack.enter_async_context(alive(case, setting)))
        runner.run(stack.aclose())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(to=ANYBODY, cc=ANYBODY, bcc=ANYBODY, envelope=SOMEBODY, refused=REFUSED)
def test_exactly_the_envelope_whatever_the_header_says(case, place, to, cc, bcc, envelope, refused):
    runner, there = place
    refused = refused & set(envelope) if case.refuses else set()
    if case.refuses:
        there.refuse(tuple(sorted(refused)))
    header = "".join(f"{name}: {', '.join(who)}\r\n" for name, who in (("To", to), ("Cc", cc), ("Bcc", bcc)) if who)
    before = len(there.delivered())
    outcomes = runner.run(_to_its_end(there, envelope, header or "X-Nobody: here\r\n"))
    assert sorted(there.delivered()[before:]) == sorted(set(envelope) - refused)
    assert outcomes == {who: Word.REJECT if who in refused else Word.SENT for who in envelope}


async def _to_its_end(place, envelope, header):
    """The words in the end. Who may have to wait while another is refused is tried again, as delivery does."""
    outcomes = {}
    while left := [who for who in envelope if outcomes.get(who, Word.RETRY) is Word.RETRY]:
        results = await place.upstream.send(mail(*left, header=header))
        assert set(results) == set(left)
        outcomes |= {who: outcome.word for who, outcome in results.items()}
        assert Word.REJECT in outcomes.values() or Word.RETRY not in outcomes.values(), results
    return outcomes


def test_as_many_as_the_limit_go_in_one_send(case, setting):
    people = [f"a{number}@x.nl" for number in range(case.limit)]

    async def story(place):
        results = await place.upstream.send(mail(*people))
        return set(results), {outcome.word for outcome in results.values()}, sorted(place.delivered())

    assert at(case, setting, story) == (set(people), {Word.SENT}, sorted(people))


def test_as_many_mails_as_it_says_go_at_one_time(case, setting):
    async def story(place):
        count = place.upstream.concurrency
        outcomes = await asyncio.gather(*(sent(place, mail("a0@x.nl", id=f"{n:013}")) for n in range(count)))
        assert place.open_connections() <= count
        return {outcome.word for outcome in outcomes}, len(place.delivered()) == count

    assert at(case, setting, story) == ({Word.SENT}, True)


@pytest.mark.parametrize(
    "odd",
    ["x>\r\nRCPT TO:<thief@y.nl", "x@y.nl\r\nBcc: thief@y.nl", "x@y.nl, thief@y.nl", "thief@y.nl>,<x@y.nl", "x y@y.nl"],
)
def test_an_address_that_is_none_reaches_nobody_else_and_costs_nobody_the_mail(remote, odd, setting):
    async def story(place):
        results = await place.upstream.send(mail("a0@x.nl", odd))
        return {who: outcome.word for who, outcome in results.items()}, place.delivered()

    assert at(remote, setting, story) == ({"a0@x.nl": Word.SENT, odd: Word.REJECT}, ["a0@x.nl"])
