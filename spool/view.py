"""The spool as people ask about it: what waits, and the story of one mail. Read-only; never content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from routing.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Filter:
    """Which mails to list. Times are unix seconds; `sender`/`recipient` are an address or `@domain`."""

    route: str | None = None
    sender: str | None = None
    recipient: str | None = None
    older_than: float | None = None
    settled: bool = False


@dataclass(frozen=True, slots=True)
class RecipientLine:
    """A recipient and how it stands: `waiting` or a `Settled` word; `last` is the newest outcome."""

    address: str
    state: str
    last: Outcome | None


@dataclass(frozen=True, slots=True)
class MailLine:
    """A mail in a list. `due_at` is None when settled; `size` in octets."""

    id: int
    route: str
    sender: str
    recipients: tuple[RecipientLine, ...]
    received_at: float
    due_at: float | None
    attempts: int
    size: int
    leased: bool


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One thing that happened. `event`: received, repaired, attempt or note, with `outcomes` by recipient; or what the
    provider told later (a `routing.provider_events.Told` word) of one `recipient`, with its words as `text`.
    """

    at: float
    event: str
    text: str
    upstream: str | None = None
    seconds: float | None = None
    outcomes: tuple[tuple[str, Outcome], ...] = ()
    recipient: str | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """A mail and all that happened to it, in the order in which we came to know."""

    mail: MailLine
    message_id: str | None
    peer: str
    helo: str
    entries: tuple[TimelineEntry, ...]


class SpoolView(ABC):
    """Reads beside a running relay, from another process."""

    @abstractmethod
    def list(self, which: Filter, limit: int, after: int = 0) -> Sequence[MailLine]:
        """Mails by arrival, oldest first, from the id behind `after`."""

    @abstractmethod
    def show(self, number: int) -> Story | None:
        """The story of one mail; None when it is not known (or its history time is over)."""

    @abstractmethod
    def close(self) -> None: ...
