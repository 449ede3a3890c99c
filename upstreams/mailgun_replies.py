"""What Mailgun's answers mean (provider page mailgun.md, section 2). Pure: `now` is handed in.

A 400 may be about the mail, an address or the account: only its text tells. Must never call an account's trouble the
mail's, or a good mail bounces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from routing.outcome import TOO_LARGE, Hint, Outcome, Stage, Who, Word
from upstreams.api_reply import bounded, member, told, verdict, words
from upstreams.http_client import Reply, retry_after
from upstreams.mailgun_request import NOT_ALLOWED

LONGEST_WAIT: Final = 86400.0
"""Mailgun's limits are by the second, the hour or the day."""

ADDRESS: Final = Hint(
    Who.CALLPRO,
    "Mailgun takes one of the addresses for none: correct it in CallPro.",
    "Mailgun vindt een van de adressen ongeldig: verbeter het in CallPro.",
)
OUR_BUG: Final = Hint(
    Who.US,
    "The relay asked Mailgun for something it does not understand: tell its maintainers, with the reply.",
    "De relay vroeg Mailgun iets wat het niet begrijpt: meld het met het antwoord aan de makers.",
)
_KEY: Final = Hint(
    Who.US,
    "The key is wrong, revoked or of the other region: check `api_key` and `region` with the account's owner.",
    "De sleutel is fout, ingetrokken of van de andere regio: controleer `api_key` en `region` "
    "met de eigenaar van het account.",
)
_URL: Final = Hint(
    Who.US,
    "No messages.mime answers at that address: check `base_url` and `region`.",
    "Op dat adres antwoordt geen Mailgun: controleer `base_url` en `region`.",
)

_ACCOUNT_TEXT: Final = re.compile(r"^Domain |not allowed to send", re.IGNORECASE)
_ADDRESS_TEXT: Final = re.compile(r"\bto parameter is not a valid address", re.IGNORECASE)
_SECONDS: Final = re.compile(r"try again (?:after|in) (\d{1,9}) ?s(?:ec|\b)", re.IGNORECASE)
_DATE: Final = re.compile(r"try again after (.{8,60})", re.IGNORECASE)
_OFFSET: Final = re.compile(r"\s+(?=[+-]\d\d:?\d\d)")

_BY_STATUS: Final[Mapping[int, tuple[Word, Hint | None]]] = {
    400: (Word.REJECT, OUR_BUG),
    401: (Word.CONFIG, _KEY),
    402: (
        Word.CONFIG,
        Hint(
            Who.US,
            "The Mailgun account is unpaid, or its plan does not cover this: its owner must mend that.",
            "Het Mailgun-account is niet betaald, of het abonnement staat dit niet toe: de eigenaar moet dat oplossen.",
        ),
    ),
    403: (Word.CONFIG, NOT_ALLOWED),
    404: (
        Word.CONFIG,
        Hint(
            Who.US,
            "Mailgun does not know this domain here: check `domain`, and `region` (an EU domain needs eu).",
            "Mailgun kent dit domein hier niet: controleer `domain` en `region` (een EU-domein vraagt eu).",
        ),
    ),
    405: (Word.CONFIG, _URL),
    408: (Word.RETRY, None),
    413: (
        Word.REJECT,
        Hint(
            Who.CALLPRO,
            "The mail is larger than Mailgun takes (25 MB): send a smaller one.",
            "De mail is groter dan Mailgun aanneemt (25 MB): verstuur een kleinere.",
        ),
    ),
    429: (Word.RETRY, None),
}


def outcome_of(reply: Reply, now: float, *secrets: str) -> Outcome:
    """The outcome of one answer, for all recipients of the request. `now` is in unix seconds."""
    message = words(member(reply, "message"))
    text = told(reply, message, *secrets)
    if reply.status == 200:
        return _taken(reply, text)
    if reply.status == 400 and _ADDRESS_TEXT.search(message):
        return Outcome(Word.REJECT, text, Stage.RECIPIENT, 400, hint=ADDRESS)
    word, hint = _verdict(reply.status, message)
    wait = stated_wait(reply, message, now) if reply.status == 429 else None
    size = TOO_LARGE if reply.status == 413 else None
    return Outcome(Word.WAIT if wait else word, text, Stage.REQUEST, reply.status, size, wait, hint=hint)


def _taken(reply: Reply, text: str) -> Outcome:
    """Mailgun's success has an id. Without one the answer was cut, or another's: the mail may be on its way."""
    given = words(member(reply, "id"))
    if given:
        return Outcome(Word.SENT, text, Stage.REQUEST, 200, upstream_id=given)
    hint = Hint(
        Who.US,
        "Mailgun's answer holds no id: look into its log before the mail is sent again, and check `base_url`.",
        "In het antwoord van Mailgun staat geen id: kijk in het logboek daar voordat de mail "
        "opnieuw wordt verstuurd, en controleer `base_url`.",
    )
    return Outcome(Word.UNKNOWN, text, Stage.REQUEST, 200, hint=hint)


def _verdict(status: int, message: str) -> tuple[Word, Hint | None]:
    if status == 400 and _ACCOUNT_TEXT.search(message):
        return Word.CONFIG, NOT_ALLOWED
    return verdict(status, _BY_STATUS, OUR_BUG, _URL)


def stated_wait(reply: Reply, message: str, now: float) -> float | None:
    """Seconds until "try again after ...", which names seconds or a date; by Retry-After (not documented) else."""
    if seconds := _SECONDS.search(message):
        return bounded(float(seconds[1]), LONGEST_WAIT)
    named = _DATE.search(message)
    when = _date(named[1]) if named else None
    stated = when - now if when is not None else retry_after(reply.headers, now)
    return None if stated is None else bounded(stated, LONGEST_WAIT)


def _date(text: str) -> float | None:
    """Unix seconds of a date as mail (RFC 5322 3.3) or ISO 8601 writes it; UTC when it names no zone."""
    text = text.strip(" .")
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        try:
            when = datetime.fromisoformat(_OFFSET.sub("", text.removesuffix("UTC").strip()))
        except ValueError:
            return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
