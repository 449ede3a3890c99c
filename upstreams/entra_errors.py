"""What Entra's refusals mean and who must do what (microsoft-graph.md 8). Pure; must never repeat a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from routing.outcome import Outcome, Stage, Word

REPLY_LENGTH: Final = 500

_HINTS: Final[Mapping[int, str]] = {
    7000215: "The client secret is wrong: ask the customer's admin for the secret's value (not its id).",
    7000222: "The client secret has expired: the customer's admin must make a new one and hand it over.",
    700016: "The tenant does not know this app: check client_id and tenant, and that the admin gave consent.",
    90002: "There is no such tenant: check tenant with the customer's admin.",
    900023: "There is no such tenant: check tenant with the customer's admin.",
    65001: "The app has no consent: the customer's admin must grant admin consent to its permissions.",
    700027: "The certificate is not the app's: the customer's admin must upload ours, or it has expired.",
}
_OTHER: Final = "Entra gives this app no token: show the customer's admin the AADSTS number."


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
        hint = "The login host does not answer like Entra: check authority."
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
    return f"token refused: HTTP {status} {text}"[:REPLY_LENGTH]
