"""What Entra's refusals mean and who must do what (microsoft-graph.md 8). Pure; must never repeat a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.api_reply import REPLY_SHOWN

_HINTS: Final[Mapping[int, Hint]] = {
    7000215: Hint(
        Who.CUSTOMER,
        "The client secret is wrong: ask the customer's admin for the secret's value (not its id).",
        "Het clientgeheim klopt niet: vraag de beheerder van de klant om de waarde van het geheim (niet de id).",
    ),
    7000222: Hint(
        Who.CUSTOMER,
        "The client secret has expired: the customer's admin must make a new one and hand it over.",
        "Het clientgeheim is verlopen: de beheerder van de klant moet een nieuw maken en aan ons doorgeven.",
    ),
    700016: Hint(
        Who.CUSTOMER,
        "The tenant does not know this app: check client_id and tenant with the customer's admin, "
        "and that consent was given.",
        "De tenant kent deze app niet: controleer client_id en tenant met de beheerder van de "
        "klant, en of die toestemming heeft gegeven.",
    ),
    90002: Hint(
        Who.CUSTOMER,
        "There is no such tenant: check tenant with the customer's admin.",
        "Deze tenant bestaat niet: controleer tenant met de beheerder van de klant.",
    ),
    900023: Hint(
        Who.CUSTOMER,
        "There is no such tenant: check tenant with the customer's admin.",
        "Deze tenant bestaat niet: controleer tenant met de beheerder van de klant.",
    ),
    65001: Hint(
        Who.CUSTOMER,
        "The app has no consent: the customer's admin must grant admin consent to its permissions.",
        "De app heeft geen toestemming: de beheerder van de klant moet beheerderstoestemming voor "
        "de machtigingen geven.",
    ),
    700027: Hint(
        Who.CUSTOMER,
        "The certificate is not the app's, or it has expired: the customer's admin must upload ours.",
        "Dit certificaat hoort niet bij de app of is verlopen: de beheerder van de klant moet het onze uploaden.",
    ),
}
_OTHER: Final = Hint(
    Who.CUSTOMER,
    "Entra gives this app no token: show the customer's admin the AADSTS number.",
    "Entra geeft deze app geen token: geef het AADSTS-nummer door aan de beheerder van de klant.",
)


def refusal(status: int, said: Mapping[str, Any], hidden: str, wait: float | None = None) -> Outcome:
    """The outcome of an answer without a token: HTTP `status`, the JSON `said` ({} when it was none), and the seconds
    of its Retry-After. `hidden` is the secret, taken out should it be quoted.
    """
    text = _text(status, said, hidden)
    number = _number(said)
    enhanced = f"AADSTS{number}" if number else None
    if status == 429 or status >= 500 or said.get("error") in ("temporarily_unavailable", "server_error"):
        word = Word.RETRY if wait is None else Word.WAIT
        return Outcome(word, text, Stage.LOGIN, status, enhanced, wait)
    if 200 <= status < 400:
        hint = Hint(
            Who.US,
            "The login host does not answer like Entra: check authority.",
            "De aanmeldserver antwoordt niet zoals Entra: controleer authority.",
        )
        return Outcome(Word.CONFIG, text, Stage.LOGIN, status, hint=hint)
    return Outcome(Word.CONFIG, text, Stage.LOGIN, status, enhanced, hint=_HINTS.get(number, _OTHER))


def _number(said: Mapping[str, Any]) -> int:
    """The AADSTS number: the first of `error_codes`, else out of the description's first word; 0 when neither."""
    codes = said.get("error_codes")
    if isinstance(codes, list) and codes and isinstance(codes[0], int):
        return codes[0]
    digits = str(said.get("error_description", "")).partition(":")[0].removeprefix("AADSTS")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else 0


def _text(status: int, said: Mapping[str, Any], hidden: str) -> str:
    text = " ".join(str(said.get("error_description") or said.get("error") or "no explanation").split())
    if hidden:
        text = text.replace(hidden, "[secret]")
    return f"token refused: HTTP {status} {text}"[:REPLY_SHOWN]
