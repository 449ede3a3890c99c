"""Silence, a cut and impatience at every step: what is said of the mail, and that the next mail goes out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from routing.outcome import Stage, Word
from tests.conformance.case import Trouble
from tests.conformance.harness import LARGE, TWO, at, mail, sent
from tests.conformance.hints import assert_helpful
from tests.waiting import until


def of(step):
    return mail(body=LARGE) if step.large else mail()


async def next_mail_goes_out(place) -> None:
    """What came of the first is past: the next one reaches its recipients once."""
    place.release()
    before = place.delivered()
    assert (await sent(place, mail(id="123456789ABCD"))).word is Word.SENT
    assert place.delivered()[len(before) :] == list(TWO)


@pytest.mark.parametrize("trouble", list(Trouble), ids=lambda trouble: trouble.name.lower())
def test_trouble_at_a_step(case, step, trouble, setting):
    word = step.stalled if trouble is Trouble.STALL else step.cut
    if word is None:
        pytest.skip(step.why)

    async def story(place):
        place.script(step.name, trouble)
        outcome = await sent(place, of(step))
        assert outcome.word is word, outcome
        assert word is Word.SENT or place.delivered() == []
        await next_mail_goes_out(place)

    at(case, replace(setting, timeout=1.0 if trouble is Trouble.STALL else 30.0), story)


def test_a_cancelled_send_leaves_no_connection_and_no_task(case, step, setting):
    if not step.cancelled:
        pytest.skip(step.why)

    async def story(place):
        place.script(step.name, Trouble.STALL)
        sending = asyncio.create_task(place.upstream.send(of(step)))
        await until(place.stalled)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        place.release()  # one that reads nothing would not notice
        await until(lambda: place.open_connections() == 0)
        assert place.delivered() == []
        await next_mail_goes_out(place)

    at(case, replace(setting, timeout=30.0), story)


def test_nobody_listens(remote, setting):
    async def story(place):
        await place.leave()
        return await sent(place), await place.upstream.probe()

    for outcome in at(remote, setting, story):
        assert (outcome.word, outcome.stage) == (Word.RETRY, Stage.CONNECT)


def test_a_certificate_nobody_vouches_for_is_the_routes_fault(remote, setting, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")

    async def story(place):
        outcomes = await sent(place), await place.upstream.probe()
        assert place.delivered() == []
        return outcomes

    for outcome in at(remote, setting, story):
        assert (outcome.word, outcome.stage) == (Word.CONFIG, Stage.TLS)
        assert_helpful(outcome)


def test_a_connection_is_kept_for_the_next_mail(remote, setting):
    async def story(place):
        for _ in range(3):
            assert (await sent(place)).word is Word.SENT
            assert place.open_connections() == 1

    at(remote, setting, story)


def test_a_probe_says_ready_and_sends_nothing(case, setting):
    async def story(place):
        outcome = await place.upstream.probe()
        assert place.delivered() == []
        return outcome.word

    assert at(case, setting, story) is Word.SENT
