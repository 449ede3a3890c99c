"""What the replies of client submission lead to, beside their words (which tests/conformance has)."""

from __future__ import annotations

import pytest

from routing.outcome import Stage, Word
from tests.conformance.cases.smtp_oauth import REPLIES
from upstreams.smtp_oauth_replies import SMTP_OAUTH_REPLIES, refuses_token
from upstreams.smtp_replies import Reply

LOGIN, MAIL, DATA = Stage.LOGIN, Stage.SENDER, Stage.CONTENT


@pytest.mark.parametrize("line", ["554 5.2.0 x:SubmissionQuotaExceededException", "550 5.7.233 x"])
def test_a_used_up_day_is_looked_at_again_in_an_hour(line):
    assert SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), DATA).wait == 3600


@pytest.mark.parametrize("line", [row.said for row in REPLIES if row.word is Word.CONFIG and row.step == "AUTH"])
def test_no_hint_at_login_speaks_of_a_user_name_or_of_settings_that_are_not_there(line):
    hint = str(SMTP_OAUTH_REPLIES.classify(Reply(int(line[:3]), line[4:]), LOGIN).hint)
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
