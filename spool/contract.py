"""The contract of a spool: the only door between intake and delivery.

A mail is in it from the commit behind its 250 until every recipient is settled; after that its envelope and story stay
for the history time and its content is gone. Times are unix seconds, handed in by the caller. No engine here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from routing.outcome import Results
from routing.provider_events import ProviderEvent
from spool.cluster import Cluster
from spool.holding import Held, Hold, Key
from spool.view import Filter, GivenOrder, Spent, Volume

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]


class SpoolFull(Exception):
    """The spool holds as much as `limits.spool_size` or the disk allows: refuse with 452 4.3.1."""


class SpoolUnavailable(Exception):
    """The store cannot commit just now: refuse with 451 4.3.0. The text says why."""


class SpoolUnusable(Exception):
    """The store cannot be opened (corrupt, locked by another relay, too new). The text says what to do."""


class SpoolInUse(SpoolUnusable):
    """Another process has it open."""


def id_text(number: int) -> str:
    """A mail's number as people see it: 13 characters of Crockford's base 32, sorted by time."""
    pairs = [_PAIRS[(number >> shift) & 1023] for shift in (50, 40, 30, 20, 10, 0)]
    return _ALPHABET[number >> 60] + "".join(pairs)


def id_number(text: str) -> int:
    """The number behind `id_text`; lower case and the look-alikes I, L, O are read too. Raises ValueError."""
    number = 0
    for character in text.upper().translate(str.maketrans("ILO", "110")):
        number = (number << 5) | _ALPHABET.index(character)
    if len(text) != 13 or number >= 1 << 63:
        raise ValueError(f"{text!r} is not a queue id (13 letters and digits)")
    return number


class Settled(StrEnum):
    """How a recipient ended."""

    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A mail as intake hands it over. `content` is CRLF bytes after repairs; `repairs` are their names, in order.

    `id` comes from `Spool.next_id`, so that the trace header inside `content` can carry it. `peer` is the client's
    address, `helo` the name it gave.
    """

    id: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    route: str
    received_at: float
    peer: str
    helo: str
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """A recipient that still needs the mail. `doubts` counts the attempts that ended `unknown`."""

    address: str
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Leased:
    """A mail taken for an attempt. Nobody else is handed it until it is settled or this process is gone.

    `attempts` counts earlier settlements. `recipients` are only those not settled yet. `released_at` is when people
    last let it go from a hold of theirs (unix seconds, 0 when never): its expiry runs from there. `warned`: its sender
    has been told that it is late.
    """

    id: int
    route: str
    sender: str
    recipients: tuple[Pending, ...]
    content: bytes
    received_at: float
    attempts: int
    released_at: float = 0.0
    warned: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one upstream as history keeps it. `seconds` is its duration."""

    upstream: str
    started_at: float
    seconds: float
    results: Results


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt (and its fallbacks) came to.

    `done` names the recipients that are finished; the rest stay pending and due at `due_at`, with `doubted` counting
    one doubt more. `due_at` is None exactly when nobody is left: then the content is deleted. `note` is a sentence for
    the timeline where there was no attempt (no rule any more, route on hold, expired). `route` is the route's name
    now, when a corrected rule gave the mail another one. `counted` is False when the wait is ours, not an attempt's.
    `warned`: from now on the mail's sender knows that it is late.
    """

    mail: Leased
    done: Mapping[str, Settled] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    doubted: frozenset[str] = frozenset()
    due_at: float | None = None
    note: str | None = None
    route: str | None = None
    counted: bool = True
    warned: bool = False


def require_whole(settlement: Settlement) -> None:
    """Raises ValueError when it names recipients that its mail does not wait for, or contradicts itself."""
    number = settlement.mail.id
    pending = {recipient.address for recipient in settlement.mail.recipients}
    if not settlement.done.keys() <= pending or not settlement.doubted <= pending:
        raise ValueError(f"mail {number} does not wait for all of these recipients")
    if (len(settlement.done) == len(pending)) != (settlement.due_at is None):
        raise ValueError(f"mail {number}: due_at is None exactly when every recipient is done")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits on a route: mails not leased, when the oldest came, when the first is due (`inf`: all are on hold)."""

    waiting: int
    oldest: float
    next_due: float


@dataclass(frozen=True, slots=True)
class Tally:
    """Of the mails that were asked for: those it was `done` to, and those `left` alone (under way, or on hold)."""

    done: int
    left: int


@dataclass(frozen=True, slots=True)
class Toll:
    """What one send to so many `recipients` takes of the limits of an `account`: mails in a second and in a minute,
    recipients in an hour and in a day; None for no limit.
    """

    account: str
    limits: tuple[int | None, int | None, int | None, int | None]
    recipients: int


SPENT_SLOT: Final = 600.0
"""Seconds that a spool may tell as one: see `Spool.spent`."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a provider told in one request about mails that `upstream` handed to it.

    `routes` are the names of the routes that leave by it now: nothing is believed of another customer's mail. `seal`
    makes the request unique until `until` (unix seconds), whoever sends it again.
    """

    upstream: str
    routes: frozenset[str]
    events: tuple[ProviderEvent, ...]
    seal: str
    until: float


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of one event: the route of its mail (None when it is no mail of that upstream that we know), and
    whether it was news.
    """

    route: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class Buffered:
    """So many `mails` lie on this machine, because the database could not take them. `since` when (unix seconds) new
    mail goes there too, and `why`; None while the database takes it.
    """

    mails: int
    since: float | None = None
    why: str = ""


Steps = Callable[[int], None]
"""Hears how many mails an order is through with so far."""


def unheard(_done: int) -> None:
    """Nobody wants to know."""


class Spool(ABC):
    """A store of mail, used from one event loop. Engines do their own I/O off the loop."""

    @abstractmethod
    def next_id(self) -> int:
        """A number no other mail has or will have; later numbers are greater."""

    @abstractmethod
    async def put(self, arrival: Arrival) -> None:
        """Keep a mail; returns only after the commit is on disk.

        Raises SpoolFull or SpoolUnavailable; then nothing was kept.
        """

    @abstractmethod
    async def probe(self) -> None:
        """Commit something that changes nothing. Raises SpoolFull or SpoolUnavailable where a put would, just now."""

    @property
    @abstractmethod
    def octets(self) -> int:
        """Octets of content that wait, of those that `limits.spool_size` allows."""

    @property
    def troubles(self) -> frozenset[str]:
        """What is wrong with its file: "damaged", once this process met damage (new mail is refused, what can be read
        leaves), "intake_log" while that cannot be written (mail goes into the file itself). Of a database nothing.
        """
        return frozenset()

    @property
    def buffered(self) -> Buffered | None:
        """What a local buffer in front of a database holds; None where there is none."""
        return None

    @abstractmethod
    async def lease(self, route: str, limit: int, now: float) -> list[Leased]:
        """Up to `limit` mails of the route that are due, the longest due first. Never one that people hold."""

    def lease_at_hand(self, route: str, limit: int, now: float) -> list[Leased] | None:  # noqa: ARG002 (see engines)
        """As `lease`, where the answer is at hand; None where it must be waited for."""
        return None

    def ours(self, mail: Leased) -> bool:  # noqa: ARG002 (engines that share look at it)
        """Whether a leased mail may be sent now. False: the lease may have passed to another node; forget it."""
        return True

    @abstractmethod
    def settle(self, settlement: Settlement) -> Future[None]:
        """Record what became of a leased mail and give up the lease. May ride with a later commit (within half a
        second); the future ends when it is on disk. Need not be awaited; the engine tries a failed write again.
        """

    @abstractmethod
    async def note(self, notice: Notice) -> tuple[Noted, ...] | None:
        """Put a provider's events on the timelines of their mails, each event of a mail once. One answer an event, in
        order; None when the seal was seen before: then nothing is kept. Returns only after the commit is on disk.

        An event is known when its mail is of one of `routes`, or was handed to `upstream` before. Raises SpoolFull or
        SpoolUnavailable; then nothing was kept, the seal neither.
        """

    @abstractmethod
    async def next_due(self, route: str) -> float | None:
        """When the route's next unleased mail is due; None when none waits."""

    @abstractmethod
    async def backlog(self) -> dict[str, Backlog]:
        """Every route with unleased mail."""

    @abstractmethod
    async def wake(self, route: str, now: float) -> None:
        """Make all unleased mail of the route due now (a way that works again, a corrected rule), but not what people
        hold.
        """

    @abstractmethod
    async def reroute(self, match: Callable[[str], str | None]) -> int:
        """After new rules: `match(sender)` gives the route's name; mail under another name moves. Senders that match
        nothing keep their route. Returns how many mails moved.
        """

    @abstractmethod
    def on_arrival(self, callback: Callable[[str], None]) -> None:
        """Call `callback(route)` on the loop whenever new mail of a route can be leased."""

    def on_hold(self, callback: Callable[[Hold], None]) -> None:  # noqa: B027 (where nobody else holds mail, nothing)
        """Call `callback(hold)` on the loop when somebody holds mail by another way than this process."""

    @property
    def cluster(self) -> Cluster | None:
        """What relays that share the spool tell one another beside mail; None where one has it for itself."""
        return None

    def tell_about(self, version: str, rules: str) -> None:  # noqa: B027 (one relay has nobody to tell)
        """What other relays on the same spool show of this one: its version, and a hash of its rules."""

    @property
    @abstractmethod
    def held(self) -> Held:
        """What people hold, just now."""

    @abstractmethod
    async def hold(self, hold: Hold, note: str | None = None, told: Steps = unheard) -> bool:
        """From now on lease no mail that it covers, also after a restart; one that is leased stays so. A second hold on
        the same subject replaces the first. `note` goes on the timeline of a mail that is held by its id; False when
        that mail does not wait. `told` is called where the engine walks over the mail in steps, here and below.
        """

    @abstractmethod
    async def release(self, key: Key, now: float, note: str | None = None, told: Steps = unheard) -> Hold | None:
        """End a hold: its mail is due at once, in the order in which it came, unless another hold covers it. Returns
        the hold; None when there was none. `note` as for `hold`.
        """

    @abstractmethod
    async def hurry(self, which: Filter, note: str | None, now: float, told: Steps = unheard) -> Tally:
        """Make waiting mail due now, but not what people hold. `note` goes on the timeline of mail that `which` names
        by id.
        """

    @abstractmethod
    async def drop(self, which: Filter, note: str, now: float, told: Steps = unheard) -> Tally:
        """Settle waiting mail as dropped: nobody is told, `note` goes on its timeline, its content is gone."""

    @abstractmethod
    async def spend(self, spent: Sequence[Spent]) -> None:
        """Count what is about to be sent; returns only after the commit is on disk, so a crash cannot uncount it.

        Raises SpoolFull or SpoolUnavailable; then nothing was counted.
        """

    @abstractmethod
    async def spent(self, since: float) -> list[Spent]:
        """What was counted from `since` on, and may be a little before. What falls into the same `SPENT_SLOT` may be
        one entry, whose `at` is the end of that slot. Entries two days old may be forgotten.
        """

    async def admit(self, tolls: Sequence[Toll]) -> tuple[int, ...] | float:  # noqa: ARG002 (one relay counts by itself)
        """Ask for room in limits that relays share, before a send: what `passed` takes back when the send has ended, or
        for how many seconds there is no room; then nothing was counted. Raises SpoolFull or SpoolUnavailable.
        """
        return ()

    def passed(self, tickets: Sequence[int], *, counted: bool) -> None:  # noqa: B027 (one relay counts by itself)
        """A send has ended for which `admit` gave room; one that is not `counted` said nothing to the other side."""

    @abstractmethod
    async def tally(self, volumes: Sequence[Volume]) -> None:
        """Add to what went through, for people to look at; what is 35 days old may be forgotten. Returns only after the
        commit is on disk. Raises SpoolFull or SpoolUnavailable; then nothing was added.
        """

    @abstractmethod
    async def record(self, order: GivenOrder) -> None:
        """Write down an order, until `prune`; returns only after the commit is on disk. Raises SpoolFull or
        SpoolUnavailable.
        """

    @abstractmethod
    async def prune(self, before: float) -> int:
        """Forget mails that were settled, and orders given, before that time. Returns how many mails those were."""

    async def shown(self) -> None:  # noqa: B027 (a database always shows all)
        """Wait until those who read beside us see all that was kept. Raises SpoolFull or SpoolUnavailable."""

    @abstractmethod
    async def close(self) -> None:
        """Write what is pending and let go. No put or lease is under way."""
