"""The step of a way that asks Entra for a token first, and what Entra answers (microsoft-graph.md, section 8)."""

from __future__ import annotations

from typing import Any

from routing.outcome import Word
from tests.conformance.case import Documented, Step, Trouble
from tests.fakes.entra import ERRORS, FakeEntra, aadsts
from tests.fakes.http_server import Fault, Response

TOKEN_STEP = Step("token", Word.RETRY, Word.RETRY)
"""Until there is a token, nobody has heard of the mail."""

_OURS = (70011, 900144)
"""What Entra says of a request that msal never makes."""

TOKEN_REPLIES = (
    *(Documented(aadsts(number), "token", Word.CONFIG) for number in ERRORS if number not in _OURS),
    Documented(Response(429, {"Retry-After": "17"}), "token", Word.WAIT),
    Documented(Response(503), "token", Word.RETRY),
)


class TokenStep:
    """What a place does with the step `token`."""

    def __init__(self, entra: FakeEntra) -> None:
        self._entra = entra

    def script(self, said: Any) -> None:
        match said:
            case Trouble.STALL:
                self._entra.before_answer.clear()
            case Trouble.CUT:
                self._entra.script.append(Fault.CUT)
            case _:
                self._entra.script += [said, said]

    def stalled(self) -> bool:
        return not self._entra.before_answer.is_set() and self._entra.token_calls > 0

    def release(self) -> None:
        self._entra.before_answer.set()


def quoted_by_entra(text: str) -> Response:
    return aadsts(7000215, extra=f" There is no such thing as {text}")
