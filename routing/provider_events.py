"""What a provider tells of a mail after it took it, in words that no brand owns. Values only.

Must never hold content of a mail: an event has the envelope's recipient, a verdict and the words of the far server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Told(StrEnum):
    """What happened at the provider to one recipient of a mail."""

    DELIVERED = "delivered"
    """The recipient's server took it."""
    DEFERRED = "deferred"
    """The provider tries again by itself."""
    BOUNCED = "bounced"
    """The provider gave up after the recipient's server refused it."""
    DROPPED = "dropped"
    """The provider never tried: its own list of bad addresses, or its policy."""
    COMPLAINED = "complained"
    """The recipient called it spam."""


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One piece of news. `id` is the provider's own, the same whenever it tells it again; `mail` our queue id as the
    provider gives it back, "" when it names none; `at` unix seconds; `reply` the far server's words, or the provider's.
    """

    id: str
    mail: str
    recipient: str
    at: float
    told: Told
    reply: str


@dataclass(frozen=True, slots=True)
class Post:
    """A request whose signature is good. `ignored` counts news that is not of delivery (opens, clicks).

    `seal` is what makes it unique: it must be taken once, and is worth remembering until `until` (unix seconds), as it
    is too old from then on. `again` is the HTTP status for one that was taken before, in the provider's retry rules.
    """

    events: tuple[ProviderEvent, ...]
    seal: str
    until: float
    again: int
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not taken: the HTTP status that its provider's retry rules want, and why, in a few words."""

    status: int
    why: str


EventReader = Callable[[Mapping[str, str], bytes, float], Post | Refusal]
"""(header fields by lower-case name, body as it came, now in unix seconds) -> what it says. Pure; never raises for
anything the other side sends."""


def moment(value: object, now: float) -> float:
    """A JSON number as unix seconds; `now` for anything that is none of this millennium."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 3e10:
        return float(value)
    return now


def words(value: object, longest: int = 1000) -> str:
    """A JSON string as text that can be kept: cut to `longest` characters, and readable where it is broken Unicode.
    Anything but a string is "".
    """
    return value[:longest].encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else ""
