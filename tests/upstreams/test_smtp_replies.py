"""How reply tables are read, and replies that no provider page has (those that one has are in tests/conformance)."""

from __future__ import annotations

import pytest

from routing.outcome import Stage, Word
from upstreams.smtp_replies import SMTP_REPLIES, Reply, ReplyTable, Row

LOGIN, TLS, MAIL, RCPT, DATA = Stage.LOGIN, Stage.TLS, Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT

BEYOND_PAGE = [
    ("554 5.7.1 <b@x.nl>: Relay access denied", RCPT, Word.CONFIG),
    ("550 relay not permitted", RCPT, Word.CONFIG),
    ("554 5.7.1 Service unavailable; client host blocked using relays.example", RCPT, Word.REJECT),
    ("503 5.5.4 Error: send AUTH command first", MAIL, Word.CONFIG),
    ("550 5.7.1 message refused as spam", DATA, Word.REJECT),
    ("554 no SMTP service here", Stage.CONNECT, Word.CONFIG),
    ("521 does not accept mail", Stage.CONNECT, Word.CONFIG),
    ("502 no STARTTLS", TLS, Word.CONFIG),
    ("299 what is that", MAIL, Word.RETRY),
    ("421 4.7.26 Your email has been blocked, the sender is unauthenticated. x1-2 - gsmtp", DATA, Word.CONFIG),
    (
        "451 4.7.23 The sending IP address does not have a PTR record; see https://support.google.com/mail",
        RCPT,
        Word.CONFIG,
    ),
    ("421 4.7.32 From: header isn't aligned with SPF or DKIM. gsmtp", DATA, Word.CONFIG),
    ("421 4.7.28 unusual rate of unsolicited mail. gsmtp", DATA, Word.RETRY),
    ("451 4.7.26 multiple authentication checks failed", DATA, Word.RETRY),
]


def _classify(line: str, stage: Stage):
    return SMTP_REPLIES.classify(Reply(int(line[:3]), line[4:]), stage)


@pytest.mark.parametrize(("line", "stage", "word"), BEYOND_PAGE)
def test_reply_to_a_mail(line, stage, word):
    outcome = _classify(line, stage)
    assert (outcome.word, outcome.reply, outcome.stage) == (word, line, stage)
    assert outcome.hint or word is not Word.CONFIG, "config names who must do what"


def test_basic_code_wins_over_an_enhanced_code_of_another_class():
    assert _classify("450 5.1.1 busy", RCPT).word is Word.RETRY
    assert _classify("553 4.7.1 odd", RCPT).word is Word.REJECT
    assert _classify("550 4.1.8 odd", MAIL).word is Word.REJECT


def test_enhanced_code_is_the_head_of_the_text_only():
    assert Reply(550, "5.1.1 no").enhanced == "5.1.1"
    assert Reply(550, "no 5.1.1").enhanced is None
    assert Reply(250, "2.0.0").enhanced == "2.0.0"
    assert Reply(550, "5.1.1.9 no").enhanced is None


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("5.7.606-649", "5.7.606 x", True),
        ("5.7.606-649", "5.7.649 x", True),
        ("5.7.606-649", "5.7.650 x", False),
        ("5.7.606-649", "5.1.610 x", False),
        ("5.7.*", "5.7.9 x", True),
        ("5.7.*", "5.70.9 x", False),
        ("5.7.1", "5.7.12 x", False),
        ("", "no code", True),
        ("", "5.7.1 a code", False),
    ],
)
def test_patterns_of_enhanced_codes(pattern, text, fits):
    assert Row(Word.CONFIG, enhanced=(pattern,)).fits(Reply(550, text), MAIL) is fits


def test_rows_in_front_decide_first():
    table = SMTP_REPLIES.before([Row(Word.WAIT, (550,), ("5.1.1",), wait=5.0)])
    assert table.classify(Reply(550, "5.1.1 x"), RCPT).wait == 5.0
    assert SMTP_REPLIES.classify(Reply(550, "5.1.1 x"), RCPT).word is Word.REJECT


def test_nothing_is_rejected_before_a_mail_was_named():
    table = ReplyTable(Row(Word.REJECT, (5,)))
    assert table.classify(Reply(550, "x"), Stage.CONNECT).word is Word.CONFIG
    assert table.classify(Reply(550, "x"), Stage.RECIPIENT).word is Word.REJECT
