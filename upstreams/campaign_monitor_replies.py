"""What Campaign Monitor's answers mean (provider page campaign-monitor.md, section 1). Pure.

A success is one entry for each recipient: must never call a recipient served whom the list does not name as received.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.addresses import addresses
from routing.outcome import TOO_LARGE, Hint, Outcome, Results, Stage, Who, Word
from upstreams.api_message import plain_address
from upstreams.api_reply import bounded, member, parsed, told, verdict, words
from upstreams.http_client import Reply, retry_after

RECEIVED: Final = "Received"
OUR_BUG: Final = Hint(
    Who.CALLPRO,
    "Campaign Monitor refuses a field or an address of this mail; the reply says which. Correct it in CallPro.",
    "Campaign Monitor weigert een veld of adres van deze mail; in het antwoord staat welk. Verbeter het in CallPro.",
)
NOT_RECEIVED: Final = Hint(
    Who.US,
    "Campaign Monitor took the request but not for this recipient: look at its suppression list there.",
    "Campaign Monitor nam de opdracht aan, maar niet voor deze ontvanger: kijk daar op de "
    "lijst met geblokkeerde adressen.",
)
_KEY: Final = Hint(
    Who.US,
    "The API key is not valid: the account's owner must make one, for the client of `client_id`.",
    "De API-sleutel is niet geldig: de eigenaar van het account moet er een maken, voor de client van `client_id`.",
)
_SENDER: Final = Hint(
    Who.US,
    "Whoever manages the Campaign Monitor account must authenticate the domain of the From there.",
    "De beheerder van het Campaign Monitor-account moet daar het domein van de afzender (From) verifiëren.",
)
_URL: Final = Hint(
    Who.US,
    "No classic transactional send answers at that address: check `base_url` and `client_id`.",
    "Op dat adres antwoordt geen Campaign Monitor: controleer `base_url` en `client_id`.",
)
_UNCLEAR: Final = Hint(
    Who.US,
    "Look into Campaign Monitor's message log before the mail is sent again.",
    "Kijk in het berichtenlogboek van Campaign Monitor voordat de mail opnieuw wordt verstuurd.",
)

_BY_CODE: Final[Mapping[int, Hint]] = {993: _SENDER, 994: _SENDER}
"""Codes of a 400 that are the account's trouble."""

_BY_STATUS: Final[Mapping[int, tuple[Word, Hint | None]]] = {
    400: (Word.REJECT, OUR_BUG),
    401: (Word.CONFIG, _KEY),
    403: (
        Word.CONFIG,
        Hint(
            Who.US,
            "The Campaign Monitor account may not send: its owner must look at billing and permissions.",
            "Het Campaign Monitor-account mag niet versturen: de eigenaar moet de betaling en de rechten nakijken.",
        ),
    ),
    404: (Word.CONFIG, _URL),
    405: (Word.CONFIG, _URL),
    408: (Word.RETRY, None),
    413: (
        Word.REJECT,
        Hint(
            Who.CALLPRO,
            "The mail is larger than Campaign Monitor takes: send a smaller one.",
            "De mail is groter dan Campaign Monitor aanneemt: verstuur een kleinere.",
        ),
    ),
    429: (Word.RETRY, None),
    502: (Word.UNKNOWN, _UNCLEAR),
    504: (Word.UNKNOWN, _UNCLEAR),
}


def results_of(reply: Reply, recipients: tuple[str, ...], now: float, *secrets: str) -> Results:
    """The outcome of one answer for each recipient of the request. `now` is in unix seconds."""
    if not 200 <= reply.status < 300:
        return dict.fromkeys(recipients, refusal(reply, now, *secrets))
    entries = _entries(parsed(reply.body))
    return {
        each: _entry_outcome(reply, entries.get((plain_address(each) or "").lower()), *secrets) for each in recipients
    }


def refusal(reply: Reply, now: float, *secrets: str) -> Outcome:
    """The outcome of an answer that is no success, for everybody it concerns."""
    read = member(reply, "Code")
    code = read if isinstance(read, int) else None
    text = told(reply, member(reply, "Message"), *secrets)
    word, hint = _verdict(reply.status, code)
    wait = _wait(reply.headers, now) if reply.status == 429 else None
    shown = TOO_LARGE if reply.status == 413 else None if code is None else str(code)
    return Outcome(Word.WAIT if wait else word, text, Stage.REQUEST, reply.status, shown, wait, hint=hint)


def _verdict(status: int, code: int | None) -> tuple[Word, Hint | None]:
    if status == 400 and code is not None and code in _BY_CODE:
        return Word.CONFIG, _BY_CODE[code]
    return verdict(status, _BY_STATUS, OUR_BUG, _URL)


def _wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds by X-RateLimit-Reset (here a length of time, not a moment), or by Retry-After."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    if reset.isascii() and reset.isdigit():
        return bounded(float(reset[:9]))
    stated = retry_after(headers, now)
    return None if stated is None else bounded(stated)


def _entries(read: Any) -> dict[str, Mapping[str, Any]]:
    """The answer's entries by recipient. `Recipient` comes as it was given or as `"Name" <address>`."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in read if isinstance(read, list) else ():
        if isinstance(entry, dict):
            for mailbox in addresses(words(entry.get("Recipient")).encode()):
                found[mailbox.address.lower()] = entry
    return found


def _entry_outcome(reply: Reply, entry: Mapping[str, Any] | None, *secrets: str) -> Outcome:
    if entry is None:
        text = f"{reply.status} without a word on this recipient"
        return Outcome(Word.UNKNOWN, text, Stage.REQUEST, reply.status, hint=_UNCLEAR)
    status, message_id = told(reply, words(entry.get("Status")) or "no status", *secrets), words(entry.get("MessageID"))
    if entry.get("Status") == RECEIVED:
        return Outcome(Word.SENT, status, Stage.REQUEST, reply.status, upstream_id=message_id or None)
    return Outcome(
        Word.REJECT, status, Stage.RECIPIENT, reply.status, upstream_id=message_id or None, hint=NOT_RECEIVED
    )
