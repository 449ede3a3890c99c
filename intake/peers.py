"""What one address may ask of a listener: connections at a time, and connections, mails and failed logins a minute.

Must never forget a connection that is open, nor remember an address for longer than its limits need.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final

from config.network import client
from config.relay_settings import PerPeer

_MINUTE: Final = 60.0
_MOST_KNOWN: Final = 4096
"""Addresses of one rate; above it those are forgotten that have all their allowance back."""
_FAILED_LOGINS: Final = 10
"""Wrong passwords a minute from one address; a person mistypes, and a program that guesses must not get far."""


class Rate:
    """So many a minute for each key, all at once or spread (a token bucket). None is no limit."""

    __slots__ = ("_left", "_per_minute")

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str, now: float) -> bool:
        """Whether one more fits at `now` (seconds, steadily growing); if so it is counted."""
        if self._per_minute is None:
            return True
        left = self.left(key, now)
        if left < 1:
            return False
        if len(self._left) >= _MOST_KNOWN:
            self._forget(now)
        self._left[key] = (left - 1, now)
        return True

    def left(self, key: str, now: float) -> float:
        """How many fit now."""
        most = float(self._per_minute or 0)
        left, at = self._left.get(key, (most, now))
        return min(most, left + (now - at) * most / _MINUTE)

    def _forget(self, now: float) -> None:
        self._left = {key: found for key, found in self._left.items() if self.left(key, now) < (self._per_minute or 0)}


class Peers:
    """The counts of one listener. Refusals are whole replies; addresses of one IPv6 network (/64) count as one."""

    __slots__ = ("_connections", "_failures", "_limits", "_mails", "_open")

    def __init__(self, limits: PerPeer) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._connections = Rate(limits.connections_per_minute)
        self._mails = Rate(limits.mails_per_minute)
        self._failures = Rate(_FAILED_LOGINS)

    def enter(self, address: str, now: float) -> str | None:
        """Why a connection is refused; None when it is let in, and then `leave` must follow."""
        key = _key(address)
        most = self._limits.connections
        if most is not None and self._open[key] >= most:
            return f"421 4.7.0 Your address has {most} connections open, and may have no more; try again later"
        if not self._connections.take(key, now):
            most = self._limits.connections_per_minute
            return f"421 4.7.0 Your address may connect {most} times a minute; try again later"
        self._open[key] += 1
        return None

    def leave(self, address: str) -> None:
        """A connection that was let in has ended."""
        key = _key(address)
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]

    def mail(self, address: str, now: float) -> str | None:
        """Why a mail is refused at MAIL; None when it is counted."""
        if self._mails.take(_key(address), now):
            return None
        return f"450 4.7.1 Your address may send {self._limits.mails_per_minute} mails a minute; try again later"

    def may_log_in(self, address: str, now: float) -> bool:
        """False after too many wrong passwords."""
        return self._failures.left(_key(address), now) >= 1

    def failed(self, address: str, now: float) -> None:
        """A login was wrong."""
        self._failures.take(_key(address), now)


def _key(address: str) -> str:
    if ":" not in address:
        return address
    found = client(address)
    return str(found if found.version == 4 else ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
