"""Every row of the reply tables of the provider page on SMTP logins, sections 2 and 3, and how tables are read."""

from __future__ import annotations

import pytest

from routing.outcome import Stage, Word
from upstreams.smtp_replies import SMTP_REPLIES, Reply, ReplyTable, Row

LOGIN, TLS, MAIL, RCPT, DATA = Stage.LOGIN, Stage.TLS, Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT

LOGIN_PAGE = [
    ("432 4.7.12 A password transition is needed", Word.CONFIG),
    ("454 4.7.0 Temporary authentication failure", Word.RETRY),
    ("454 4.7.0 Too many login attempts, please try again later", Word.RETRY),
    ("500 5.5.6 Authentication Exchange line is too long", Word.CONFIG),
    ("501 5.5.2 Cannot decode argument", Word.CONFIG),
    ("504 5.5.4 Unrecognized authentication type", Word.CONFIG),
    ("530 5.7.0 Authentication required", Word.CONFIG),
    ("530 5.7.0 Must issue a STARTTLS command first", Word.CONFIG),
    ("534 5.7.9 Application-specific password required", Word.CONFIG),
    ("535 5.7.8 Username and Password not accepted", Word.CONFIG),
    ("538 5.7.11 Encryption required for requested authentication mechanism", Word.CONFIG),
    ("535 no", Word.CONFIG),
    ("550 go away", Word.CONFIG),
    ("421 4.7.0 try later", Word.RETRY),
]

MAIL_PAGE = [
    ("421 4.3.2 shutting down", MAIL, Word.RETRY),
    ("421 4.7.0 slow down", DATA, Word.RETRY),
    ("450 4.2.0 mailbox busy", RCPT, Word.RETRY),
    ("450 4.2.1 mailbox busy", RCPT, Word.RETRY),
    ("450 4.7.1 greylisted", RCPT, Word.RETRY),
    ("451 4.3.0 local error", DATA, Word.RETRY),
    ("451 4.7.1 greylisted", RCPT, Word.RETRY),
    ("451 4.7.651 policy delay", MAIL, Word.RETRY),
    ("452 4.2.2 full for now", RCPT, Word.RETRY),
    ("452 4.3.1 no storage", MAIL, Word.RETRY),
    ("452 4.5.3 too many recipients", RCPT, Word.RETRY),
    ("454 4.7.0 TLS not available", TLS, Word.RETRY),
    ("500 5.5.2 what?", RCPT, Word.REJECT),
    ("501 5.5.4 bad argument", RCPT, Word.REJECT),
    ("502 5.5.1 not implemented", DATA, Word.REJECT),
    ("503 5.5.1 bad sequence", DATA, Word.REJECT),
    ("504 5.5.4 parameter not implemented", MAIL, Word.REJECT),
    ("521 does not accept mail", RCPT, Word.REJECT),
    ("556 5.1.10 domain does not accept mail", RCPT, Word.REJECT),
    ("530 5.7.0 Authentication required", MAIL, Word.CONFIG),
    ("535 5.7.8 not logged in", MAIL, Word.CONFIG),
    ("550 5.7.1 authentication required", MAIL, Word.CONFIG),
    ("550 5.7.1 Unable to relay", RCPT, Word.CONFIG),
    ("550 5.7.1 sending as this domain is not permitted", RCPT, Word.CONFIG),
    ("550 5.1.1 no such user", RCPT, Word.REJECT),
    ("550 5.1.2 no such domain", RCPT, Word.REJECT),
    ("550 5.1.3 bad syntax", RCPT, Word.REJECT),
    ("550 5.1.7 bad sender", MAIL, Word.CONFIG),
    ("550 5.1.8 bad sender", MAIL, Word.CONFIG),
    ("553 5.1.8 sender refused", MAIL, Word.CONFIG),
    ("553 5.7.1 Sender address rejected: not owned by user", RCPT, Word.CONFIG),
    ("550 5.4.5 Daily user sending limit exceeded", DATA, Word.CONFIG),
    ("551 5.1.6 not local", RCPT, Word.REJECT),
    ("553 5.1.3 name not allowed", RCPT, Word.REJECT),
    ("552 5.2.2 mailbox full", RCPT, Word.REJECT),
    ("552 5.3.4 too big", DATA, Word.REJECT),
    ("554 5.7.1 message looks like spam", DATA, Word.REJECT),
]

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
]


def _classify(line: str, stage: Stage):
    return SMTP_REPLIES.classify(Reply(int(line[:3]), line[4:]), stage)


@pytest.mark.parametrize(("line", "word"), LOGIN_PAGE)
def test_reply_to_a_login(line, word):
    outcome = _classify(line, LOGIN)
    assert (outcome.word, outcome.reply, outcome.stage, outcome.code) == (word, line, LOGIN, int(line[:3]))
    assert outcome.hint or word is Word.RETRY


@pytest.mark.parametrize(("line", "stage", "word"), MAIL_PAGE + BEYOND_PAGE)
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
