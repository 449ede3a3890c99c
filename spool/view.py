"""The spool as people ask about it: what waits, and the story of one mail. Read-only; never content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from routing.outcome import Outcome
from spool.holding import Hold


@dataclass(frozen=True, slots=True)
class Filter:
    """Which mails. Times are unix seconds; `sender`/`recipient` are an address or `@domain`; `ids`, when there are any,
    are the only ones. `settled` mail, mail that waits, or with None both.
    """

    route: str | None = None
    sender: str | None = None
    recipient: str | None = None
    older_than: float | None = None
    settled: bool | None = False
    ids: tuple[int, ...] = ()

    @property
    def says_something(self) -> bool:
        """False when it stands for all mail."""
        return bool(self.ids) or (self.route, self.sender, self.recipient, self.older_than) != (None,) * 4

    @property
    def asks_for_a_domain_alone(self) -> bool:
        """Whether the mails to a domain have to be walked. Another condition may leave few of them, and of mail that
        waits there is little: both have a shorter way.
        """
        others = (self.route, self.sender, self.older_than, *self.ids)
        return self.settled is not False and (self.recipient or "").startswith("@") and others == (None,) * 3


@dataclass(frozen=True, slots=True)
class Load:
    """What waits on a route: mails, and the recipients that they still have."""

    mails: int
    recipients: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What was sent on one account, as `pace:` counts it: `mails` handed to the upstream and their `recipients`.

    `at` is unix seconds. Negative numbers take back what was counted at that time and not sent after all.
    """

    account: str
    at: float
    mails: int
    recipients: int


@dataclass(frozen=True, slots=True)
class Volume:
    """What went through for one customer (the domain of the envelope sender, "" for reports) on one route: `mails`
    accepted and their `recipients`, and recipients `delivered` and `failed`. `at` is the time it is counted for, or the
    start of a stretch of time.
    """

    at: float
    route: str
    customer: str
    mails: int = 0
    recipients: int = 0
    delivered: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class GivenOrder:
    """An order that somebody gave: `action` (a word), the `subject` it was about, in words, and of the mails or holds
    that were named, those it was `done` to and those `left` alone.
    """

    at: float
    who: str
    action: str
    subject: str
    reason: str
    done: int
    left: int


@dataclass(frozen=True, slots=True)
class SlowMail:
    """A mail that is settled, and how many seconds that took."""

    id: int
    route: str
    sender: str
    received_at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A relay on a spool that several share. `version` and `rules` (a hash of them) are "" until it told; `seen_ago` is
    seconds since its last sign of life, `skew` how far its clock is behind the database's. After `lease` seconds of
    silence it is not `alive`, and others take its mail.
    """

    number: int
    name: str
    version: str
    rules: str
    started_at: float
    seen_ago: float
    skew: float
    lease: float

    @property
    def alive(self) -> bool:
        return self.seen_ago <= self.lease


@dataclass(frozen=True, slots=True)
class Taken:
    """What the `node` with that number has under way of a route: how many mails, and when the oldest came."""

    node: int
    route: str
    mails: int
    oldest: float


@dataclass(frozen=True, slots=True)
class RecipientLine:
    """A recipient and how it stands: `waiting` or a `Settled` word; `last` is the newest outcome."""

    address: str
    state: str
    last: Outcome | None


@dataclass(frozen=True, slots=True)
class MailLine:
    """A mail in a list. `due_at` is None when settled and means nothing under a `hold`; `size` in octets."""

    id: int
    route: str
    sender: str
    recipients: tuple[RecipientLine, ...]
    received_at: float
    due_at: float | None
    attempts: int
    size: int
    leased: bool
    hold: Hold | None = None


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


@dataclass(frozen=True, slots=True)
class FailureLine:
    """A recipient that did not get its mail: `how` is failed, expired or dropped, `at` is when (unix seconds), `last`
    what the upstream said last.

    With `told_by`, the provider behind that upstream told it later of mail that it had taken: `how` is bounced, dropped
    or complained, and `words` are the provider's.
    """

    mail: int
    at: float
    route: str
    sender: str
    recipient: str
    how: str
    last: Outcome | None = None
    told_by: str | None = None
    words: str = ""


class SpoolView(ABC):
    """Reads beside a running relay, from another process."""

    @abstractmethod
    def list(self, which: Filter, limit: int, after: int = 0, *, newest_first: bool = False) -> Sequence[MailLine]:
        """Mails by arrival, oldest first, from the id behind `after`; or the newest of all first."""

    @abstractmethod
    def count(self, which: Filter) -> int:
        """How many mails `list` would give."""

    @abstractmethod
    def holds(self) -> Sequence[Hold]:
        """What people hold, the oldest hold first."""

    @abstractmethod
    def failures(self, since: float) -> Iterator[FailureLine]:
        """Recipients that did not get their mail since then, or did not want it, as far as providers tell. The oldest
        mail first.
        """

    @abstractmethod
    def loads(self) -> dict[str, Load]:
        """Every route with mail, under way too."""

    @abstractmethod
    def spent(self, since: float) -> Sequence[Spent]:
        """What was counted for `pace:`, as `Spool.spent` tells it."""

    @abstractmethod
    def volumes(self, edges: Sequence[float]) -> Sequence[Volume]:
        """What went through in each stretch between two neighbouring `edges` (rising), by route and customer; `at` is
        where the stretch begins. Nothing for those without mail. Counts are kept in slots of at most an hour.
        """

    @abstractmethod
    def orders(self, limit: int) -> Sequence[GivenOrder]:
        """What people ordered, the newest first."""

    @abstractmethod
    def slowest(self, since: float, limit: int) -> Sequence[SlowMail]:
        """Settled mail that came since then and took longest, if it took more than a minute; the slowest first."""

    def nodes(self) -> Sequence[NodeLine]:
        """The relays that share the spool, the oldest first; none where one relay has it to itself."""
        return ()

    def taken(self) -> Sequence[Taken]:
        """What each of these relays has under way; walks all mail that waits."""
        return ()

    @abstractmethod
    def show(self, number: int) -> Story | None:
        """The story of one mail; None when it is not known (or its history time is over)."""

    @abstractmethod
    def close(self) -> None: ...
