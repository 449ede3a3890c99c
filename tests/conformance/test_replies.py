"""Every answer of the provider pages, over the wire: its word, and a hint that helps."""

from __future__ import annotations

from routing.outcome import Word
from tests.conformance.harness import at, mail, sent
from tests.conformance.hints import assert_helpful
from tests.fakes.http_server import Response


def test_a_documented_answer_has_its_word(case, documented, setting):
    async def story(place):
        place.script(documented.step, documented.said)
        return await sent(place, mail("a0@x.nl"))

    outcome = at(case, setting, story)
    assert outcome.word is documented.word, outcome
    assert outcome.reply.isprintable()
    if isinstance(documented.said, Response):
        assert outcome.code == documented.said.status
    else:
        assert documented.said in outcome.reply
    assert documented.hint in str(outcome.hint)
    assert_helpful(outcome)
    assert (outcome.wait or 0) > 0 or outcome.word is not Word.WAIT
