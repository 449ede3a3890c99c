"""What relays on one spool tell one another beside mail: slots of a limit, ways that do not work, silent hosts.

A contract and its values, no engine; a spool that one relay has for itself knows none of it (`Spool.cluster` is None).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from routing.outcome import Outcome

TRIAL_LASTS = 15.0
"""Seconds for which one relay has a way on trial for itself: a login is refused sooner, and a relay whose network is
cut must not keep the others waiting.
"""


@dataclass(frozen=True, slots=True)
class WayKey:
    """A way as all relays know it. `settings` is a digest of what it hangs on, so that a relay with a corrected
    password is not kept shut by one with the old; or it names one relay, where what it found is true for itself alone.
    """

    route: str
    upstream: str
    settings: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A way on hold: since when (unix seconds) and why, how often in a row it failed, and when it is probed again.

    `alone`: it is closed for the relay that found it, and for no other. `found_by` is that relay's name.
    """

    key: WayKey
    since: float
    outcome: Outcome
    failures: int
    next_probe: float
    alone: bool = False
    found_by: str = ""


@dataclass(frozen=True, slots=True)
class ClosedNow:
    """A way on hold as the database has it. The relay that probes it is this one (`mine`), another, or nobody yet."""

    closed: Closed
    mine: bool
    nobody: bool


@dataclass(frozen=True, slots=True)
class Silent:
    """A host and port (`Upstream.connects_to`) where one relay gets no answer; `asked_at` is when it tried last
    (unix seconds, of its clock). `mine`: this relay. `node` is a number that no other relay has.
    """

    place: str
    node: int
    since: float
    reply: str
    asked_at: float
    mine: bool


@dataclass(frozen=True, slots=True)
class News:
    """All that relays told one another, as it stood at one moment."""

    closed: tuple[ClosedNow, ...] = ()
    silent: tuple[Silent, ...] = ()


class Ears(Protocol):
    """Who hears of the other relays, on the loop."""

    def news(self, news: News) -> None:
        """What stands in the database now; every few seconds, and as soon as it changes. Never older than what this
        relay was answered before.
        """

    def wanted(self, limit: str, part: int) -> None:
        """Others wait for slots of `limit`: keep no more than `part`, but for those in use."""

    def freed(self, limit: str) -> None:
        """There may be a slot of `limit` now."""

    def works(self, key: WayKey) -> None:
        """Another relay's probe of a way on hold succeeded. May be missed."""

    def reborn(self) -> None:
        """The others took this relay for dead: all that it had is theirs."""


class Cluster(ABC):
    """Every method that waits raises SpoolUnavailable while the database is away."""

    @abstractmethod
    def listen(self, ears: Ears) -> None:
        """Tell `ears` from now on."""

    @abstractmethod
    async def take(self, limit: str, size: int, wanted: int) -> int:
        """Take up to `wanted` slots of a limit, of which there are `size` for all relays; how many these are. Who gets
        none is in line for the next.
        """

    @abstractmethod
    def give_back(self, limit: str, count: int) -> None:
        """So many slots are free for the others. Slots of a relay that dies come free by themselves."""

    @abstractmethod
    def claim(self, limit: str, count: int) -> None:
        """Sends are under way for which others believe this relay has no slot any more: nobody gets theirs."""

    @abstractmethod
    async def attempt(self, route: str, upstream: str) -> tuple[bool, tuple[ClosedNow, ...]]:
        """Have a way that is not proven for oneself, for `TRIAL_LASTS` seconds or until `give_back` of
        `trial_of(route, upstream)`: whether it is so, and which relays' settings for it are on hold at that moment.
        """

    @abstractmethod
    async def close(self, closed: Closed) -> ClosedNow:
        """Put a way on hold for all relays; this one probes it. What counts, which may be what another found before."""

    @abstractmethod
    async def open(self, key: WayKey, *, works: bool) -> None:
        """Its hold is over for all relays. `works`: a probe of this relay's succeeded."""

    @abstractmethod
    async def open_route(self, route: str) -> tuple[Closed, ...]:
        """End all holds of a route's ways; which those were."""

    @abstractmethod
    async def adopt(self, key: WayKey) -> bool:
        """Be the one that probes a way that nobody probes. False when another is, or its hold is over."""

    @abstractmethod
    def probed(self, key: WayKey, failures: int, next_probe: float) -> None:
        """A probe of this relay's failed; when the next one is (unix seconds)."""

    @abstractmethod
    def leave(self, key: WayKey) -> None:
        """This relay probes the way no more: another one with the same settings may, or its hold is forgotten."""

    @abstractmethod
    def silent(self, place: str, since: float, reply: str, asked_at: float) -> None:
        """This relay got no answer there at `asked_at`."""

    @abstractmethod
    def answered(self, place: str) -> None:
        """This relay got an answer there."""

    @abstractmethod
    async def look(self) -> News:
        """What stands in the database now."""

    @abstractmethod
    async def salt(self) -> bytes:
        """Octets that are the same for all relays on this database, and different for every other."""


def trial_of(route: str, upstream: str) -> str:
    """The limit, of size one, under which a way is tried."""
    return f"trial {route} by {upstream}"
