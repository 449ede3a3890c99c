"""The look-alike SMTP server as a place of the suite, and the steps that every way by SMTP has."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from routing.outcome import Word
from tests.conformance.case import Documented, Place, Step, Trouble
from tests.fakes.smtp import CUT, STALL, Cut, FakeSmtp, Stall
from upstreams.base import Upstream

PASSWORD = "s3cret-Pa55.of-acme"


class SmtpPlace(Place):
    """`user` and `password` are what the server lets in."""

    def __init__(self, server: FakeSmtp, upstream: Upstream, user: str = "", password: str = "") -> None:
        self.server, self.upstream = server, upstream
        self._user, self._password = user, password
        self._refused: tuple[str, ...] = ()

    def script(self, step: str, said: Any) -> None:
        match said:
            case Trouble.STALL:
                said = [Stall(deaf=True) if step == "CONTENT" else STALL]
            case Trouble.CUT:
                said = [Cut(after=100_000) if step == "CONTENT" else CUT]
        self.server.script({step: said})

    def delivered(self) -> list[str]:
        return [recipient for mail in self.server.received for recipient in mail.recipients]

    def stalled(self) -> bool:
        return self.server.stalled > 0

    def release(self) -> None:
        self.server.hearing.set()

    def open_connections(self) -> int:
        return self.server.open_connections

    def secrets(self, step: str) -> tuple[str, ...]:
        return login_secrets(self._password, f"\0{self._user}\0{self._password}")

    def refuse(self, recipients: tuple[str, ...]) -> None:
        self.server.script({f"RCPT {recipient}": [] for recipient in self._refused})
        self.server.script({f"RCPT {recipient}": "550 5.1.1 no such user" for recipient in recipients})
        self._refused = recipients

    async def hang_up(self) -> None:
        await self.server.hang_up()

    async def leave(self) -> None:
        await self.server.__aexit__(None)


def login_secrets(secret: str, login: str) -> tuple[str, ...]:
    """A secret as it is, in base64, and in the line that logs in with it."""
    return secret, b64encode(secret.encode()).decode(), b64encode(login.encode()).decode()


def smtp_steps(*, login: bool = True) -> tuple[Step, ...]:
    """In order. Before the final dot nothing can have been taken."""
    early = ("CONNECT", "EHLO", "STARTTLS", *(("AUTH",) if login else ()), "MAIL", "RCPT", "DATA")
    return (
        *(Step(name, Word.RETRY, Word.RETRY) for name in early),
        Step("CONTENT", Word.RETRY, Word.RETRY, large=True),
        Step(".", Word.UNKNOWN, Word.UNKNOWN),
    )


def said(step: str, word: Word, *lines: str, hint: str = "") -> tuple[Documented, ...]:
    """Replies at one step that mean the same."""
    return tuple(Documented(line, step, word, hint) for line in lines)


def quoted_at_login(text: str) -> str:
    return f"535 5.7.8 there is no such thing as {text}"
