"""Which mails go by an upstream on trial first. Pure: a mail's number and recipients decide, never a draw of lots.

Must never send a mail to the canary for one recipient on the allow-list when another is not on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from config import names
from config.fields import Mistake
from config.rules import Canary, allowed_recipient


@dataclass(frozen=True, slots=True)
class Choosing:
    """`percent` mails of a hundred (0: none), and those to none but `allowed` addresses and @domains (normal forms)."""

    percent: int
    allowed: frozenset[str]

    def takes(self, mail: int, recipients: Iterable[str]) -> bool:
        """Whether the mail of that number, still to go to `recipients`, is for the canary."""
        return in_share(mail, self.percent) or self._only_allowed(recipients)

    def _only_allowed(self, recipients: Iterable[str]) -> bool:
        return bool(self.allowed) and all(self._is_allowed(recipient) for recipient in recipients)

    def _is_allowed(self, recipient: str) -> bool:
        try:
            address = names.address(recipient)
        except Mistake:
            return False  # an odd address is on no list
        return address in self.allowed or f"@{address.rpartition('@')[2]}" in self.allowed


def choosing(canary: Canary) -> Choosing:
    return Choosing(canary.percent or 0, frozenset(allowed_recipient(text) for text in canary.recipients))


def in_share(mail: int, percent: int) -> bool:
    """Whether a mail is among `percent` of a hundred: always the same answer, and a larger share keeps those it had."""
    digest = blake2b(mail.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100 < percent
