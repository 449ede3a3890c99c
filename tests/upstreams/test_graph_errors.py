"""What Graph's answers tell beside their word (which tests/conformance has), also when they look bad."""

from __future__ import annotations

import pytest

from routing.outcome import TOO_LARGE, Word
from tests.fakes.graph import error
from upstreams.graph_errors import DAILY_WAIT, is_our_bug, outcome_of
from upstreams.http_client import Reply

NOW = 1_795_332_485.0


def judged(response, token="token-text"):
    headers = {name.lower(): value for name, value in response.headers.items()}
    return outcome_of(Reply(response.status, headers, response.body), NOW, token)


@pytest.mark.parametrize("status", [429, 500, 503, 509])
def test_a_stated_wait_is_wait(status):
    assert judged(error(status, "X", headers={"Retry-After": "9"})).wait == 9.0
    assert judged(error(status, "X", headers={"Retry-After": "9"})).word is Word.WAIT
    dated = judged(error(status, "X", headers={"Retry-After": "Sun, 22 Nov 2026 07:29:05 GMT"}))
    assert (dated.word, dated.wait) == (Word.WAIT, 60.0)


def test_the_daily_limit_waits_an_hour_unless_told_otherwise():
    assert judged(error(429, "ErrorExceededMessageLimit")).wait == DAILY_WAIT
    assert judged(error(429, "ErrorExceededMessageLimit", headers={"Retry-After": "7200"})).wait == 7200.0


def test_too_large_is_marked_however_it_is_said():
    for answer in (
        error(413, ""),
        error(400, "X", "Maximum request length ..."),
        error(400, "ErrorMessageSizeExceeded"),
    ):
        assert judged(answer).enhanced == TOO_LARGE
    assert judged(error(400, "BadRequest")).enhanced == "BadRequest"


def test_our_own_faults_are_known_as_such():
    assert is_our_bug(judged(error(400, "BadRequest")))
    assert not is_our_bug(judged(error(400, "ErrorInvalidRecipients")))
    assert not is_our_bug(judged(error(202, "")))


def test_the_hint_tells_a_policy_from_a_missing_right():
    assert "policy" in str(judged(error(403, "ErrorAccessDenied", "Access to OData is disabled.")).hint)
    hint = judged(error(403, "ErrorAccessDenied", "Access is denied.")).hint
    assert hint
    for told in (hint.en, hint.nl):  # what the sheet asks for: a right for the mailbox, not for all of them
        assert told.index("RBAC for Applications") < told.index("Mail.Send in Entra")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Bad Gateway</html>", b"[1]", b'{"error":"text"}', b'{"error":{"code":5}}', b"\xff", b"[" * 100_000],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_graph_error_is_judged_by_its_status(body):
    outcome = outcome_of(Reply(503, {}, body), NOW, "")
    assert (outcome.word, outcome.code) == (Word.RETRY, 503)
    assert outcome.reply.startswith("HTTP 503")


def test_the_request_id_is_found_in_the_header_or_the_body():
    assert outcome_of(Reply(202, {"request-id": "r-1"}, b""), NOW, "").upstream_id == "r-1"
    nested = b'{"error":{"code":"X","innerError":{"request-id":"r-2"}}}'
    assert outcome_of(Reply(500, {}, nested), NOW, "").upstream_id == "r-2"


def test_the_text_is_one_line_of_limited_length_without_the_token():
    outcome = judged(error(403, "X", "a\r\nb token-text " + "x" * 5000))
    assert "a b [token] xx" in outcome.reply
    assert len(outcome.reply) <= 500
