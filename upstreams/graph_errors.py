"""What Graph's answers to sendMail mean and who must do what (microsoft-graph.md 7). Pure; knows no mail.

Only 202 is success. The error's code decides before the HTTP status; its message only picks a hint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.outcome import TOO_LARGE, Hint, Outcome, Stage, Who, Word
from upstreams.api_reply import REPLY_SHOWN, member
from upstreams.http_client import Reply, retry_after

DAILY_WAIT: Final = 3600.0

_OUR_BUG: Final = Hint(
    Who.US,
    "Graph calls the request itself wrong: a fault of this relay, tell its maintainers.",
    "Graph noemt de opdracht zelf fout: een fout van deze relay, meld het aan de makers.",
)
_NO_MAILBOX: Final = Hint(
    Who.CUSTOMER,
    "Graph knows no such mailbox in Exchange Online: check mailbox and the sender with the customer.",
    "Graph kent deze mailbox niet in Exchange Online: controleer de mailbox en de afzender met de klant.",
)
_ACCESS: Final = Hint(
    Who.CUSTOMER,
    "The app may not send as this mailbox: the customer's admin must give it Application Mail.Send for the mailbox by "
    "RBAC for Applications, or add the mailbox to the scope that is there (Mail.Send in Entra would be for all their "
    "mailboxes); a change may take two hours.",
    "De app mag niet namens deze mailbox versturen: de beheerder van de klant moet haar via RBAC for Applications het "
    "recht Application Mail.Send voor deze mailbox geven, of de mailbox opnemen in het bereik dat er al is (Mail.Send "
    "in Entra zou voor al hun mailboxen gelden); een wijziging kan twee uur duren.",
)
_ODATA: Final = Hint(
    Who.CUSTOMER,
    "An application access policy shuts the app out: the customer's admin must include the mailbox.",
    "Een toegangsbeleid voor toepassingen (application access policy) sluit de app uit: de "
    "beheerder van de klant moet de mailbox daarin opnemen.",
)

_CODES: Final[Mapping[str, tuple[Word, Hint | None]]] = {
    "ErrorInvalidRecipients": (Word.REJECT, Hint(Who.CALLPRO,
"Graph found a recipient not valid and so refused the mail for all: correct the address "
"in CallPro.",
"Graph vond een ontvanger ongeldig en weigerde de mail daarom voor iedereen: verbeter het "
"adres in CallPro.",)),
    "ErrorMimeContentInvalidBase64String": (Word.REJECT, _OUR_BUG),
    "InvalidInternetMessageHeader": (Word.REJECT, _OUR_BUG),
    "BadRequest": (Word.REJECT, _OUR_BUG),
    "ErrorInvalidRequest": (Word.REJECT, _OUR_BUG),
    "ErrorAccessDenied": (Word.CONFIG, _ACCESS),
    "ErrorSendAsDenied": (
        Word.CONFIG,
        Hint(Who.CUSTOMER,
"From is not the mailbox that sends: we set `sender:` or `mailbox:`, or the customer's "
"admin grants the mailbox Send As.",
"De afzender (From) is niet de mailbox die verstuurt: wij zetten `sender:` of `mailbox:`, "
"of de beheerder van de klant geeft de mailbox het recht Verzenden als.",),
    ),
    "ErrorMessageSubmissionBlocked": (
        Word.CONFIG,
        Hint(Who.CUSTOMER,
"Microsoft blocks this mailbox from sending: the customer's admin must release it.",
"Microsoft blokkeert het versturen vanuit deze mailbox: de beheerder van de klant moet "
"haar vrijgeven.",),
    ),
    "ErrorQuotaExceeded": (
        Word.CONFIG,
        Hint(Who.CUSTOMER,
"The mailbox is full (Sent Items grows with every mail): the customer must empty it.",
"De mailbox is vol (Verzonden items groeit met elke mail): de klant moet haar legen.",),
    ),
    "ErrorExceededMessageLimit": (Word.WAIT, Hint(Who.NOBODY,
"The mailbox has used its daily limit of messages or recipients; it goes on by itself.",
"De mailbox heeft de daglimiet van berichten of ontvangers verbruikt; het gaat vanzelf "
"verder.",)),
    "ErrorInvalidUser": (Word.CONFIG, _NO_MAILBOX),
    "ResourceNotFound": (Word.CONFIG, _NO_MAILBOX),
    "MailboxNotEnabledForRESTAPI": (
        Word.CONFIG,
        Hint(Who.CUSTOMER,
"The mailbox is inactive or not in Exchange Online, so Graph cannot send from it: the "
"customer's admin must restore it, or we use another way out.",
"De mailbox is niet actief of staat niet in Exchange Online: Graph kan er niet uit "
"versturen. De beheerder van de klant moet haar herstellen, of wij gebruiken een andere "
"weg.",),
    ),
    "generalException": (Word.RETRY, None),
    "ServiceUnavailable": (Word.RETRY, None),
    "ErrorInternalServerTransientError": (Word.RETRY, None),
    "ApplicationThrottled": (Word.RETRY, None),
    "TooManyRequests": (Word.RETRY, None),
}  # fmt: skip

_STATUSES: Final[Mapping[int, tuple[Word, Hint | None]]] = {
    400: (Word.REJECT, _OUR_BUG),
    403: (Word.CONFIG, _ACCESS),
    404: (Word.CONFIG, _NO_MAILBOX),
    408: (Word.RETRY, None),
    409: (Word.RETRY, None),
    412: (Word.RETRY, None),
    429: (Word.RETRY, None),
    507: (
        Word.CONFIG,
        Hint(
            Who.CUSTOMER,
            "The mailbox or its tenant has no room left: the customer's admin must make some.",
            "De mailbox of de tenant is vol: de beheerder van de klant moet ruimte maken.",
        ),
    ),
}


def outcome_of(reply: Reply, now: float, hidden: str) -> Outcome:
    """The outcome of one answer to sendMail. `now` is in unix seconds; `hidden` is the token, taken out of the text."""
    code, message, request_id = _said(reply)
    text = f"HTTP {reply.status} {code} {message}".strip()
    text = (text.replace(hidden, "[token]") if hidden else text)[:REPLY_SHOWN]
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


def _verdict(status: int, code: str, message: str) -> tuple[Word, str | None, Hint | None]:
    if status == 202:
        return Word.SENT, None, None
    if status < 300:
        return (
            Word.UNKNOWN,
            None,
            Hint(
                Who.CUSTOMER,
                "Only 202 means sent: look into the mailbox's Sent Items before sending it again.",
                "Alleen 202 betekent verstuurd: kijk in Verzonden items van de mailbox voordat u opnieuw verstuurt.",
            ),
        )
    if status < 400:
        return (
            Word.CONFIG,
            None,
            Hint(
                Who.US,
                "Graph answers with a redirect, which is not followed: check base_url.",
                "Graph verwijst door naar een ander adres, en dat volgen we niet: controleer base_url.",
            ),
        )
    if status in (502, 504):
        return Word.UNKNOWN, None, None
    if _says_too_large(status, code, message):
        return (
            Word.REJECT,
            TOO_LARGE,
            Hint(
                Who.US,
                "Too large for one Graph request: give the route a second upstream that takes it.",
                "Te groot voor één opdracht aan Graph: geef de route een tweede upstream die hem aanneemt.",
            ),
        )
    if code == "ErrorAccessDenied" and "OData" in message:
        return Word.CONFIG, None, _ODATA
    if code in _CODES:
        return _CODES[code][0], None, _CODES[code][1]
    return _by_status(status)


def _by_status(status: int) -> tuple[Word, None, Hint | None]:
    if status in _STATUSES:
        return _STATUSES[status][0], None, _STATUSES[status][1]
    if status >= 500:
        return Word.RETRY, None, None
    if status == 401:
        return (
            Word.CONFIG,
            None,
            Hint(
                Who.US,
                "Graph refuses a fresh token: check that base_url and authority are of one cloud.",
                "Graph weigert een vers token: controleer of base_url en authority bij dezelfde cloud horen.",
            ),
        )
    return (
        Word.CONFIG,
        None,
        Hint(
            Who.US,
            "Graph answers something it should not: check base_url.",
            "Graph antwoordt iets wat niet kan: controleer base_url.",
        ),
    )


def _says_too_large(status: int, code: str, message: str) -> bool:
    return (
        status == 413
        or code == "ErrorMessageSizeExceeded"
        or (status == 400 and "maximum request length" in message.lower())
    )


def _said(reply: Reply) -> tuple[str, str, str | None]:
    """Code, message (on one line) and request id; "" and None where the answer has none. It may be HTML, or nothing."""
    error = _object(member(reply, "error"))
    inner = _object(error.get("innerError") or error.get("innererror"))
    request_id = reply.headers.get("request-id") or inner.get("request-id")
    message = " ".join(str(error.get("message", "")).split())
    return str(error.get("code", "")), message, str(request_id) if request_id else None


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
