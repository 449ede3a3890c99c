"""Every reply of microsoft-365-smtp-oauth.md, section 6, and what is said about it."""

from __future__ import annotations

import pytest

from routing.outcome import Stage, Word
from upstreams.smtp_oauth_replies import SMTP_OAUTH_REPLIES, refuses_token
from upstreams.smtp_replies import Reply

LOGIN, MAIL, DATA = Stage.LOGIN, Stage.SENDER, Stage.CONTENT
DISABLED = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the"

PAGE = [
    ("535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]", LOGIN, Word.CONFIG, "app"),
    (f"{DISABLED} Tenant. Visit https://aka.ms/smtp_auth_disabled", LOGIN, Word.CONFIG, "Set-CASMailbox"),
    (f"{DISABLED} Mailbox. Visit https://aka.ms/smtp_auth_disabled", LOGIN, Word.CONFIG, "Set-CASMailbox"),
    ("535 5.7.139 Authentication unsuccessful, something new", LOGIN, Word.CONFIG, "sign-in log"),
    ("550 5.7.30 Basic authentication is not supported for Client Submission.", LOGIN, Word.CONFIG, "password"),
    ("550 5.7.30 Basic authentication is not supported for Client Submission.", MAIL, Word.CONFIG, "password"),
    ("530 5.7.57 Client not authenticated to send mail", MAIL, Word.CONFIG, "fault of this relay"),
    ("550 5.7.57 SMTP; Client was not authenticated", MAIL, Word.CONFIG, "fault of this relay"),
    ("454 4.7.0 Temporary authentication failure", LOGIN, Word.RETRY, "nobody"),
    ("421 4.3.2 Service not available", Stage.CONNECT, Word.RETRY, "connections"),
    ("432 4.3.2 Concurrent connections limit exceeded", LOGIN, Word.RETRY, "connections"),
    ("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", DATA, Word.RETRY, "connections"),
    ("432 Concurrent connections limit exceeded", LOGIN, Word.RETRY, "nobody"),
    ("451 4.7.0 Temporary server error", DATA, Word.RETRY, "pace"),
    ("451 4.7.500 Server busy", MAIL, Word.RETRY, "pace"),
    ("451 4.7.699 Server busy", MAIL, Word.RETRY, "pace"),
    ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", DATA, Word.CONFIG, "Send As"),
    ("554 5.2.252 SendAsDenied; info@initech.nl not allowed to send as x@initech.nl", DATA, Word.CONFIG, "Send As"),
    (
        "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed",
        *(DATA, Word.CONFIG, "Send As"),
    ),
    (
        "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message",
        *(DATA, Word.CONFIG, "10,000"),
    ),
    (
        "554 5.2.2 STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
        *(DATA, Word.CONFIG, "full"),
    ),
    ("550 5.1.8 Access denied, bad outbound sender", DATA, Word.CONFIG, "Defender"),
    ("550 5.7.233 tenant external recipient rate limit", DATA, Word.CONFIG, "24 hours"),
    ("550 5.7.501 Access denied, spam abuse detected", DATA, Word.CONFIG, "Defender"),
    ("550 5.7.502 Access denied, banned sender", DATA, Word.CONFIG, "Defender"),
    ("550 5.7.503 Access denied, banned sender", DATA, Word.CONFIG, "Defender"),
    ("550 5.7.705 Access denied, tenant has exceeded threshold", DATA, Word.CONFIG, "tenant"),
    ("550 5.7.708 Access denied, traffic not accepted from this IP", DATA, Word.CONFIG, "tenant"),
    ("552 5.3.4 Message size exceeds fixed maximum message size", MAIL, Word.REJECT, "larger"),
    ("552 5.2.3 Message too large", DATA, Word.REJECT, "larger"),
    ("550 5.1.1 no such user", Stage.RECIPIENT, Word.REJECT, "address"),
    ("554 5.2.0 STOREDRV.Submission.Exception:SomethingElse", DATA, Word.REJECT, None),
]


@pytest.mark.parametrize(("line", "stage", "word", "hint"), PAGE)
def test_reply(line, stage, word, hint):
    outcome = SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), stage)
    assert (outcome.word, outcome.reply, outcome.stage) == (word, line, stage)
    assert (outcome.hint is None) if hint is None else hint in outcome.hint


@pytest.mark.parametrize("line", ["554 5.2.0 x:SubmissionQuotaExceededException", "550 5.7.233 x"])
def test_a_used_up_day_is_looked_at_again_in_an_hour(line):
    assert SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), DATA).wait == 3600


@pytest.mark.parametrize("line", [line for line, stage, word, _ in PAGE if word is Word.CONFIG and stage is LOGIN])
def test_no_hint_at_login_speaks_of_a_user_name_or_of_settings_that_are_not_there(line):
    hint = SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), LOGIN).hint
    assert not any(word in hint for word in ("user name", "`password`", "`tls"))


@pytest.mark.parametrize(
    ("line", "stage", "expected"),
    [
        ("535 5.7.3 x", LOGIN, True),
        ("535 x", LOGIN, True),
        ("535 5.7.139 x", LOGIN, False),
        ("454 4.7.0 x", LOGIN, False),
        ("535 5.7.3 x", MAIL, False),
    ],
)
def test_which_refusals_another_token_may_mend(line, stage, expected):
    assert refuses_token(SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), stage)) is expected
