"""Each outcome of the word config says who must do what, whatever the other side answers, in Dutch and English."""

from __future__ import annotations

import pytest

from routing.outcome import Hint, Stage, Who, Word
from tests.conformance.harness import at, mail, sent
from tests.conformance.hints import assert_bilingual, assert_helpful
from tests.fakes.http_server import Response
from upstreams.connector_replies import CONNECTOR_REPLIES
from upstreams.sendgrid_replies import SENDGRID_REPLIES
from upstreams.smtp_oauth_replies import SMTP_OAUTH_REPLIES
from upstreams.smtp_providers import provider_of
from upstreams.smtp_replies import SMTP_REPLIES, Reply

TABLES = {
    "smtp": SMTP_REPLIES,
    "connector": CONNECTOR_REPLIES,
    "sendgrid": SENDGRID_REPLIES,
    "smtp_oauth": SMTP_OAUTH_REPLIES,
    "mailgun": provider_of("smtp.mailgun.org").replies,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_helps(name):
    hints = [row.hint for row in TABLES[name].rows if row.hint]
    assert len(hints) > 20
    for hint in hints:
        assert_bilingual(hint)
    assert all(row.hint for row in TABLES[name].rows if row.word is Word.CONFIG)


@pytest.mark.parametrize("name", TABLES)
def test_no_reply_is_config_without_help(name):
    statuses = ("", *(f"{k}.{x}.{y} " for k in "45" for x in range(8) for y in (0, 1, 3, 5, 8, 57, 64, 139, 510, 708)))
    replies = (Reply(code, f"{status}no") for code in (400, 421, 450, 454, *range(500, 560)) for status in statuses)
    outcomes = (TABLES[name].classify(reply, stage) for reply in replies for stage in Stage)
    kinds = {(outcome.word, outcome.hint): outcome for outcome in outcomes}
    assert {word for word, _ in kinds} >= {Word.CONFIG, Word.REJECT, Word.RETRY}
    for outcome in kinds.values():
        assert_helpful(outcome)


def test_no_status_of_an_api_is_config_without_help(remote, setting):
    if not any(isinstance(row.said, Response) and row.step == "request" for row in remote.replies):
        pytest.skip("not an API")

    async def story(place):
        words = set()
        for status in (*range(300, 430), *range(430, 600, 10), *range(500, 512)):
            place.script("request", Response(status))
            for outcome in (await sent(place, mail("a0@x.nl")), await sent(place, mail("a0@x.nl"))):  # said twice
                assert_helpful(outcome)
                words.add(outcome.word)
        return words

    assert {Word.CONFIG, Word.REJECT, Word.RETRY} <= at(remote, setting, story)


def test_what_is_no_help_is_found():
    for hint in (
        Hint(Who.US, "Look at the host.", "Look at the host."),
        Hint(Who.US, "Look at `host` of it.", "Kijk naar de `port` ervan."),
        Hint(Who.US, "Look at the host", "Kijk naar de host"),
    ):
        with pytest.raises(AssertionError):
            assert_bilingual(hint)
    good = Hint(Who.US, "Look at the host.", "Kijk naar de host.")
    assert_bilingual(good)
    assert str(good.after("It is gone.", "Hij is weg.")) == "It is gone. Look at the host."
    assert good.after("It is gone.", "Hij is weg.").nl == "Hij is weg. Kijk naar de host."
