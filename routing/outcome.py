"""What became of a mail at one recipient: a value, never an exception.

The words are those of the provider pages. This file must never decide what happens next; `delivery` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

TOO_LARGE: Final = "5.3.4"
"""RFC 3463 3.4: the message is too big for the system."""
NO_FORM: Final = "5.6.3"
"""RFC 3463 3.7: the mail would have to be converted into a form that there is not."""


class Word(StrEnum):
    """The verdict on one attempt for one recipient."""

    SENT = "sent"
    """The upstream took responsibility."""
    RETRY = "retry"
    """Temporary: back off and try again."""
    WAIT = "wait"
    """Temporary, and the upstream said for how long. It means all our mail, not only this one: the others wait too."""
    REJECT = "reject"
    """Permanent for this mail or recipient: bounce it."""
    CONFIG = "config"
    """The route is wrong, not the mail: hold the route, keep the mail, tell ops."""
    UNKNOWN = "unknown"
    """It may have been delivered; trying again may send it twice."""


class Stage(StrEnum):
    """How far the attempt came. `CONNECT` means nothing of the mail had been said yet."""

    PREPARE = "prepare"
    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    SENDER = "sender"
    RECIPIENT = "recipient"
    CONTENT = "content"
    REQUEST = "request"


BEFORE_MAIL: Final = (Stage.CONNECT, Stage.TLS, Stage.LOGIN)
"""Stages at which nothing was said about a mail yet: what is refused there can only be the route's."""


class Who(StrEnum):
    """Who can mend it."""

    CUSTOMER = "customer"
    """The customer's administrator: of the mail server, Microsoft 365, Entra or the DNS."""
    US = "us"
    """Who runs the relay: its settings, its machine, our accounts at providers."""
    CALLPRO = "callpro"
    """Who keeps CallPro: its addresses and the mails it makes."""
    RECIPIENT = "recipient"
    """The other side, whom none of these can move."""
    NOBODY = "nobody"
    """It goes on by itself."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Who must do what, in one or two plain sentences, English and Dutch. As a text it is the English one."""

    who: Who
    en: str
    nl: str

    def after(self, en: str, nl: str) -> Hint:
        """This hint with a sentence in front."""
        return Hint(self.who, f"{en} {self.en}", f"{nl} {self.nl}")

    def __str__(self) -> str:
        return self.en


@dataclass(frozen=True, slots=True)
class Outcome:
    """One verdict with its evidence.

    `reply` is the upstream's own text, verbatim (without any secret or content of the mail); `code` its SMTP basic
    code or HTTP status; `enhanced` an RFC 3463 status such as `5.7.1`, or a provider's error code such as
    `ErrorAccessDenied`. `wait` is in seconds and belongs to `WAIT` (and to `RETRY`/`CONFIG` when stated).
    `upstream_id` is the id the upstream gave the mail. `hint` says who must do what: every `CONFIG` of an
    upstream has one.
    """

    word: Word
    reply: str
    stage: Stage
    code: int | None = None
    enhanced: str | None = None
    wait: float | None = None
    upstream_id: str | None = None
    hint: Hint | None = None

    @property
    def only_here(self) -> bool:
        """The mail is over this upstream's size limit, or needs a form that it has not (RFC 3463 x.3.4, x.6.3): another
        upstream may still take it.
        """
        return self.word is Word.REJECT and self.enhanced in (TOO_LARGE, NO_FORM)

    @property
    def whoever_sends(self) -> bool:
        """Any mail would have met it, whatever its sender: the upstream had not heard of the mail, or it refused our
        key (RFC 9110 15.5.2).
        """
        return self.stage in BEFORE_MAIL or (self.stage is Stage.REQUEST and self.code == 401)

    @property
    def next_transaction(self) -> bool:
        """The server took others of the same mail and wants the rest at once in a new transaction (RFC 5321
        4.5.3.1.10).
        """
        return self.word is Word.RETRY and self.wait == 0.0

    def __str__(self) -> str:
        return f"{self.word} at {self.stage}: {self.reply}"


Results = dict[str, Outcome]
"""Recipient (as it was handed in) -> its outcome. Every recipient handed in has one."""
