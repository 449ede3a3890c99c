"""What every way out has in common: the contract of an upstream and of its kind.

An upstream answers with an `Outcome` per recipient. It never retries, never sleeps between tries and never raises for
anything the other side does; an exception means our own bug.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from config.fields import Settings
from routing.mail import Outgoing
from routing.outcome import Outcome, Results
from routing.provider_events import EventReader
from upstreams.tls import Trust

Own = TypeVar("Own", bound=Settings)


@dataclass(frozen=True, slots=True)
class Host:
    """What an upstream may know about us, and shares with all others. `hostname` is what we say in EHLO.

    `trust` is whose certificates we believe. It is loaded once: a change to the machine's trust wants a restart.
    """

    hostname: str
    trust: Trust = field(default_factory=Trust, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A mail that is never sent. `invented` is True when only the sender's domain is known, and the part before the @
    was made up. `recipient` is outside the customer's organisation.
    """

    sender: str
    recipient: str
    invented: bool = False


class Upstream(ABC):
    """A way out, alive: built from its settings, used by many mails, closed at reload or shutdown.

    `send` may be called concurrently up to `concurrency` times. It must be cancellable at any moment without leaking a
    connection or leaving one in the pool whose state is not known.
    """

    name: str
    """The name ops gave it in `upstreams:`."""
    concurrency: int
    """How many sends at one time the other side allows."""
    recipients_limit: int
    """Most recipients in one send; the caller splits."""
    connects_to: str | None = ""
    """Host and port, and all else that a connect hangs on: upstreams with the same text share what one of them finds
    out of whether anybody answers. Empty: it is like no other. None: the host hangs on the mail's sender.
    """

    local: bool = False
    """Nobody beyond this machine is asked by it: `concurrency` is no limit of another side."""

    def keep(self, connections: int) -> None:  # noqa: B027 - for those that keep connections
        """Keep no more than so many connections: other relays have the rest of those that the other side allows."""

    @abstractmethod
    async def send(self, mail: Outgoing) -> Results:
        """Try once to hand over `mail`. One outcome for every recipient of `mail.recipients`."""

    @abstractmethod
    async def probe(self) -> Outcome:
        """Check the way without sending a mail: connect, TLS, login or token. SENT means ready."""

    async def rehearse(self, mail: Rehearsal) -> Outcome:  # noqa: ARG002 - for those that can do more
        """`probe`, and as far beyond it as a mail like this comes without being sent. SENT: nothing speaks against it.

        For `doctor`, on an upstream of its own.
        """
        return await self.probe()

    @abstractmethod
    async def close(self) -> None:
        """Give up connections. No send is under way."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[Own]):
    """One entry of `KINDS`: how a type in the YAML becomes an upstream.

    `losses` is for kinds that cannot carry every mail as it is: handed settings and a whole mail (CRLF), it says what
    this mail would lose on the way, a plain sentence each. Pure, and names header fields, never their contents.

    `events` is for kinds whose provider tells later what became of a mail: handed settings, it makes the reader of what
    is posted to us, or None when ops did not give the key that proves it.
    """

    name: str
    settings: type[Own]
    build: Callable[[str, Own, Host], Upstream]
    losses: Callable[[Own, bytes], tuple[str, ...]] | None = None
    events: Callable[[Own], EventReader | None] | None = None


Kinds = Mapping[str, Kind[Any]]
"""`type:` in the YAML -> its kind."""
