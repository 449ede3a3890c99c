"""The step of a way that asks Entra for a token first, and what Entra answers (microsoft-graph.md, section 8)."""

from __future__ import annotations

from typing import Any

from routing.outcome import Word
from tests.conformance.case import Documented, Place, Step, Trouble
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


class AfterEntra(Place):
    """Goes in front of another place: the step `token` is here, the others there."""

    entra: FakeEntra

    def script(self, step: str, said: Any) -> None:
        match step, said:
            case "token", Trouble.STALL:
                self.entra.before_answer.clear()
            case "token", Trouble.CUT:
                self.entra.script.append(Fault.CUT)
            case "token", _:
                self.entra.script += [said, said]
            case _:
                super().script(step, said)

    def stalled(self) -> bool:
        return (not self.entra.before_answer.is_set() and self.entra.token_calls > 0) or super().stalled()

    def release(self) -> None:
        self.entra.before_answer.set()
        super().release()


def quoted_by_entra(text: str) -> Response:
    return aadsts(7000215, extra=f" There is no such thing as {text}")
