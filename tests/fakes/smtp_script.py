"""What a test may tell the look-alike SMTP server to do at a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """Hang up, after `after` octets of the content at step CONTENT. `reset` sends a TCP reset, not an orderly end."""

    after: int = 0
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing more on this connection, and leave it open until the client goes. `deaf`: read nothing either."""

    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these packets exactly, one write each, then go on (or hang up)."""

    packets: tuple[bytes, ...]
    hang_up: bool = False


CUT = Cut()
STALL = Stall()
Action = str | Cut | Stall | Raw
Replies = Mapping[str, Action | Sequence[Action]]
"""Step -> what to do there instead of the usual. Steps: CONNECT, EHLO, HELO, STARTTLS, AUTH (the verdict), EXPLAIN
(the text of a 334 before XOAUTH2's refusal), MAIL, RCPT, DATA, CONTENT (while the content comes in; Cut and Stall
only), `.` (the final dot), RSET, NOOP, QUIT. MAIL and RCPT may name an address: `RCPT bad@x.nl`. A str is a reply
(`\\n` separates its lines). A list is used up in order.
"""
