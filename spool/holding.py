"""What people put on hold: one mail, a route, or what a customer sends. Pure.

A hold outlives restarts and ends only when somebody ends it. It must never be made by the relay itself: `delivery`
has its own for ways that do not work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from routing.mail import domain_of


class Scope(StrEnum):
    """What a hold is on."""

    MAIL = "mail"
    ROUTE = "route"
    SENDER = "sender"


@dataclass(frozen=True, slots=True)
class Hold:
    """`subject` is a mail's id as people see it, a route's name, or an envelope sender: `info@acme.nl` or `@acme.nl`
    in lower case. `since` is in unix seconds, `who` and `reason` are for people.
    """

    scope: Scope
    subject: str
    since: float
    who: str
    reason: str

    @property
    def key(self) -> Key:
        return self.scope, self.subject


Key = tuple[Scope, str]


def keys_of(mail: str, route: str, sender: str) -> tuple[Key, ...]:
    """Every hold that there may be on a mail, the narrowest first. `mail` is its id as people see it."""
    address = sender.lower().rstrip(".")
    return (Scope.MAIL, mail), (Scope.SENDER, address), (Scope.SENDER, "@" + domain_of(sender)), (Scope.ROUTE, route)


def sender_subject(text: str) -> str:
    """`text` as the subject of a hold: an address, or `@domain`. Raises ValueError with what to write."""
    local, at, domain = text.lower().rstrip(".").rpartition("@")
    if not at or not domain:
        raise ValueError(f"{text!r} is not a sender: write info@acme.nl, or @acme.nl for all of a customer's mail")
    return f"{local}@{domain}"


class Held:
    """All holds at one moment. Never changes: a new hold makes a new one."""

    __slots__ = ("_by_key", "_scopes")

    def __init__(self, holds: Iterable[Hold] = ()) -> None:
        self._by_key: Mapping[Key, Hold] = {hold.key: hold for hold in holds}
        self._scopes = frozenset(hold.scope for hold in self._by_key.values())

    @property
    def nothing(self) -> bool:
        """True when there is no hold at all."""
        return not self._by_key

    @property
    def mails(self) -> bool:
        """True when a single mail is on hold."""
        return Scope.MAIL in self._scopes

    def all(self) -> tuple[Hold, ...]:
        """Every hold, the oldest first."""
        return tuple(sorted(self._by_key.values(), key=lambda hold: (hold.since, hold.key)))

    def get(self, key: Key) -> Hold | None:
        return self._by_key.get(key)

    def route(self, name: str) -> Hold | None:
        """The hold on a route."""
        return self._by_key.get((Scope.ROUTE, name)) if self._by_key else None

    def mail(self, number: str, sender: str) -> Hold | None:
        """The hold on a mail that its route does not share."""
        if not self._scopes - {Scope.ROUTE}:
            return None
        found = (self._by_key.get(key) for key in keys_of(number, "", sender)[:3])
        return next((hold for hold in found if hold is not None), None)

    def plus(self, hold: Hold) -> Held:
        return Held([*self._by_key.values(), hold])

    def minus(self, key: Key) -> Held:
        return Held(hold for hold in self._by_key.values() if hold.key != key)
