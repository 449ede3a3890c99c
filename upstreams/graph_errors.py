"""What Graph's answers to sendMail mean and who must do what (microsoft-graph.md 7). Pure; knows no mail.

Only 202 is success. The error's code decides before the HTTP status; its message only picks a hint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from routing.outcome import Outcome, Stage, Word
from upstreams.http_client import Reply, retry_after

TOO_LARGE: Final = "5.3.4"
"""The enhanced status (RFC 3463) of a REJECT that another upstream may be able to take: too large for one request."""

DAILY_WAIT: Final = 3600.0
REPLY_LENGTH: Final = 500

_OUR_BUG: Final = "Graph calls the request itself wrong: a fault of this relay, tell its maintainers."
_NO_MAILBOX: Final = "Graph knows no such mailbox in Exchange Online: check mailbox and the sender with the customer."
_ACCESS: Final = (
    "The app may not send as this mailbox: the customer's admin must grant Mail.Send (application) with admin consent, "
    "and include the mailbox in the app's scope; a change may take two hours."
)
_ODATA: Final = "An application access policy shuts the app out: the customer's admin must include the mailbox."

_CODES: Final[Mapping[str, tuple[Word, str | None]]] = {
    "ErrorInvalidRecipients": (Word.REJECT, "Graph found a recipient not valid and so refused the mail for all."),
    "ErrorMimeContentInvalidBase64String": (Word.REJECT, _OUR_BUG),
    "InvalidInternetMessageHeader": (Word.REJECT, _OUR_BUG),
    "BadRequest": (Word.REJECT, _OUR_BUG),
    "ErrorInvalidRequest": (Word.REJECT, _OUR_BUG),
    "ErrorAccessDenied": (Word.CONFIG, _ACCESS),
    "ErrorSendAsDenied": (
        Word.CONFIG,
        "From is not the mailbox that sends: set `sender:` or `mailbox:`, or the admin grants Send As.",
    ),
    "ErrorMessageSubmissionBlocked": (
        Word.CONFIG,
        "Microsoft blocks this mailbox from sending: the customer's admin must release it.",
    ),
    "ErrorQuotaExceeded": (
        Word.CONFIG,
        "The mailbox is full (Sent Items grows with every mail): the customer must empty it.",
    ),
    "ErrorExceededMessageLimit": (Word.WAIT, "The mailbox has used its daily limit of messages or recipients."),
    "ErrorInvalidUser": (Word.CONFIG, _NO_MAILBOX),
    "ResourceNotFound": (Word.CONFIG, _NO_MAILBOX),
    "MailboxNotEnabledForRESTAPI": (
        Word.CONFIG,
        "The mailbox is inactive or not in Exchange Online: Graph cannot send from it, use another way out.",
    ),
    "generalException": (Word.RETRY, None),
    "ServiceUnavailable": (Word.RETRY, None),
    "ErrorInternalServerTransientError": (Word.RETRY, None),
    "ApplicationThrottled": (Word.RETRY, None),
    "TooManyRequests": (Word.RETRY, None),
}  # fmt: skip

_STATUSES: Final[Mapping[int, tuple[Word, str | None]]] = {
    400: (Word.REJECT, _OUR_BUG),
    403: (Word.CONFIG, _ACCESS),
    404: (Word.CONFIG, _NO_MAILBOX),
    408: (Word.RETRY, None),
    409: (Word.RETRY, None),
    412: (Word.RETRY, None),
    429: (Word.RETRY, None),
    507: (Word.CONFIG, "The mailbox or its tenant has no room left: the customer's admin must make some."),
}


def outcome_of(reply: Reply, now: float, hidden: str) -> Outcome:
    """The outcome of one answer to sendMail. `now` is in unix seconds; `hidden` is the token, taken out of the text."""
    code, message, request_id = _said(reply)
    text = f"HTTP {reply.status} {code} {message}".strip()
    text = (text.replace(hidden, "[token]") if hidden else text)[:REPLY_LENGTH]
    wait = retry_after(reply.headers, now)
    word, enhanced, hint = _verdict(reply.status, code, message)
    if code == "ErrorExceededMessageLimit" and wait is None:
        wait = DAILY_WAIT
    if word is Word.RETRY and wait is not None:
        word = Word.WAIT
    return Outcome(word, text, Stage.REQUEST, reply.status, enhanced or code or None, wait, request_id, hint)


def is_our_bug(outcome: Outcome) -> bool:
    """True when the request was wrong, not the mail or the route: worth an alert besides the bounce."""
    return outcome.hint == _OUR_BUG


def _verdict(status: int, code: str, message: str) -> tuple[Word, str | None, str | None]:
    if status == 202:
        return Word.SENT, None, None
    if status < 300:
        return Word.UNKNOWN, None, "Only 202 means sent: look into the mailbox's Sent Items before sending it again."
    if status < 400:
        return Word.CONFIG, None, "Graph answers with a redirect, which is not followed: check base_url."
    if status in (502, 504):
        return Word.UNKNOWN, None, None
    if _says_too_large(status, code, message):
        return (
            Word.REJECT,
            TOO_LARGE,
            "Too large for one Graph request: give the route a second upstream that takes it.",
        )
    if code == "ErrorAccessDenied" and "OData" in message:
        return Word.CONFIG, None, _ODATA
    if code in _CODES:
        return _CODES[code][0], None, _CODES[code][1]
    return _by_status(status)


def _by_status(status: int) -> tuple[Word, None, str | None]:
    if status in _STATUSES:
        return _STATUSES[status][0], None, _STATUSES[status][1]
    if status >= 500:
        return Word.RETRY, None, None
    if status == 401:
        return Word.CONFIG, None, "Graph refuses a fresh token: check that base_url and authority are of one cloud."
    return Word.CONFIG, None, "Graph answers something it should not: check base_url."


def _says_too_large(status: int, code: str, message: str) -> bool:
    return (
        status == 413
        or code == "ErrorMessageSizeExceeded"
        or (status == 400 and "maximum request length" in message.lower())
    )


def _said(reply: Reply) -> tuple[str, str, str | None]:
    """Code, message (on one line) and request id; "" and None where the answer has none. It may be HTML, or nothing."""
    error = _object(_parsed(reply.body).get("error"))
    inner = _object(error.get("innerError") or error.get("innererror"))
    request_id = reply.headers.get("request-id") or inner.get("request-id")
    message = " ".join(str(error.get("message", "")).split())
    return str(error.get("code", "")), message, str(request_id) if request_id else None


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return _object(json.loads(body))
    except ValueError:
        return {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
