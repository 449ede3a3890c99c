"""A mail on its way: envelope and content as values.

Content is `bytes` from socket to socket, CRLF line endings, and is never re-serialised. This file does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NULL_SENDER: Final = ""
"""The null reverse-path `<>` (RFC 5321 4.5.5) is the empty string everywhere inside the relay."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What an upstream is handed: rewritten and signed, for the recipients that still need it.

    `id` is the queue id as people see it. `route` is the name of the route (connections are never shared between
    routes). `sender` is the envelope sender after rewriting, `recipients` the addresses to send to now, all in one
    attempt. `content` is the whole mail, CRLF line endings, ending in CRLF.
    """

    id: str
    route: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes


def domain_of(address: str) -> str:
    """The lower-cased domain of an address, without a trailing dot; "" for the null sender or a bare local part."""
    return address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""
