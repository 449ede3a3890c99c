"""An upstream that is not there: asked by one probe at a time, not by every mail, and found again."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.backoff import reach_waits
from delivery.ways import BROKEN_AFTER, Gate
from routing.outcome import Outcome, Stage, Word
from spool.sqlite_view import SqliteView
from tests.delivery.room import BUSY, DOWN, SENT, START, Scripted, events, room, route

TLS_DOWN = Outcome(Word.RETRY, "handshake timed out", Stage.TLS)


def test_it_breaks_after_failed_connects_in_a_row_and_any_answer_mends_it():
    gate = Gate(Scripted("one"))
    for number in range(1, BROKEN_AFTER + 2):
        gate.unanswered(DOWN, float(number))
        assert gate.broken == (number >= BROKEN_AFTER)
    assert gate.unreachable_since == 1.0
    gate.answered()
    assert (gate.broken, gate.unreachable_since, gate.trouble) == (False, None, None)


def test_a_heap_for_a_dead_host_is_a_few_sends_and_then_probes(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", DOWN, concurrency=4)
        one.probe_answer = DOWN
        names = tuple(f"c{number}.nl" for number in range(4))
        async with room(tmp_path, tuple(route(name, via="one") for name in names), one, start=False) as r:
            numbers = [await r.put(f"info@{name}", route=name) for name in names for _ in range(5)]
            await r.scheduler.start()
            await r.clock.advance(1500)
            assert len(one.mails) <= BROKEN_AFTER + 4
            assert 4 <= len(one.probes) <= 1500 / 300 + 2
            assert all(later - earlier >= 60 for earlier, later in zip(one.probes, one.probes[1:], strict=False))
            assert sum((await r.waiting()).values()) == 20
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(numbers[-1])
            view.close()
            assert "Connection refused" in story.entries[-1].text
            sends = len(one.mails)
            one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            assert len(one.mails) == sends + 20, "all at once, not by their own back-off"
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_to_a_dead_host_expires_when_it_should_with_the_reason(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one, two = Scripted("one", DOWN), Scripted("two")
        one.probe_answer = DOWN
        routes = (route("acme.nl", via="one"), route("<>", via="two"))
        async with room(tmp_path, routes, one, two, expire=7200.0) as r:
            for _ in range(6):
                await r.put()
            await r.clock.advance(7100)
            assert events(caplog, "expired") == []
            await r.clock.advance(200)
            assert len(events(caplog, "expired")) == 6
            assert b"Connection refused" in two.mails[-1].content
            assert len(two.mails) == 6

    asyncio.run(scenario())


ANSWERS = st.lists(st.sampled_from((DOWN, TLS_DOWN, BUSY, SENT)), max_size=12)


@settings(max_examples=12, deadline=None)
@given(ANSWERS, st.lists(st.sampled_from((DOWN, SENT)), max_size=4), st.integers(1, 6))
def test_whatever_the_outage_every_mail_gets_out_after_it(answers, probes, mails):
    async def scenario(folder: Path):
        one = Scripted("one", *answers, SENT)
        left = list(probes)
        ask = one.probe

        async def probe() -> Outcome:
            one.probe_answer = left.pop(0) if left else SENT
            return await ask()

        one.probe = probe
        async with room(folder, (route("acme.nl", via="one"),), one, retry=(60.0, 300.0)) as r:
            for _ in range(mails):
                await r.put()
            await r.clock.advance(7200)
            assert await r.waiting() == {}
            assert r.scheduler.unreachable() == {}
            assert r.clock.at == START + 7200

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def test_how_often_a_host_that_does_not_answer_is_asked():
    """As often as mail would be tried, and never so seldom that mail waits hours for a host that is back."""
    assert reach_waits((60.0, 300.0, 900.0)) == (60.0, 300.0)
    assert reach_waits((1.0,)) == (1.0,)
    assert reach_waits((3600.0,)) == (60.0, 300.0)


def test_the_log_says_when_nobody_answers_and_when_somebody_does_again(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", DOWN)
        one.probe_answer = DOWN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            for _ in range(6):
                await r.put()
            await r.clock.advance(1000)
            (unreachable,) = events(caplog, "unreachable")
            assert (unreachable["upstream"], unreachable["reply"]) == ("one", DOWN.reply)
            one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            (reached,) = events(caplog, "reached")
            assert reached["seconds"] >= 1000
            assert await r.waiting() == {}

    asyncio.run(scenario())
