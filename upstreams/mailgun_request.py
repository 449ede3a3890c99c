"""A mail as the form of Mailgun's messages.mime (provider page mailgun.md, section 2). Pure: no I/O, no clock.

The message is the mail's own bytes, but for its Bcc and X-Mailgun-* fields: the first tells who is hidden, the others
are orders to Mailgun (one of them drops the mail in silence). Must never let either through, however they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from routing.headers import without, without_bcc
from routing.outcome import Hint, Who

RECIPIENTS_LIMIT: Final = 1000
MESSAGE_LIMIT: Final = 25 << 20
"""Octets of a message."""

ORDERS: Final = re.compile(rb"[ \t]*x-mailgun-", re.IGNORECASE)

NOT_ALLOWED: Final = Hint(
    Who.US,
    "Mailgun does not let this domain send: whoever manages the account must look there for the reason.",
    "Mailgun laat dit domein niet versturen: de beheerder van het account moet daar de reden opzoeken.",
)
"""For an account that may not send, by whichever way it is said."""


def message_of(content: bytes) -> bytes:
    """The mail without its Bcc, Resent-Bcc and X-Mailgun-* fields; the same object when it has none."""
    return without(without_bcc(content), ORDERS)


def options(relay_id: str, tracking: bool) -> Iterator[tuple[str, str]]:
    """How events find the mail again, unseen by the recipient, and tracking off unless it is left to the account."""
    if not tracking:
        yield "o:tracking", "no"
    yield "v:relay_id", relay_id
    yield "o:suppress-headers", "X-Mailgun-Variables"


def form(named: Iterable[tuple[str, str]], message: bytes | None) -> tuple[str, bytes]:
    """Content-Type and body of multipart/form-data (RFC 7578): the fields, then `message` as a file.

    Raises ValueError for a value that could end its part early. The boundary is one that nothing inside holds.
    """
    values = list(named)
    if not all(value.isprintable() for _, value in values):
        raise ValueError("a form field with control characters")
    boundary = _boundary(message or b"", "".join(value for _, value in values).encode())
    line = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="'
    pieces = [line + name.encode() + b'"\r\n\r\n' + value.encode() + b"\r\n" for name, value in values]
    if message is not None:
        kind = b'message"; filename="message.eml"\r\nContent-Type: message/rfc822\r\n\r\n'
        pieces += [line, kind, message, b"\r\n"]
    pieces.append(b"--" + boundary + b"--\r\n")
    return f"multipart/form-data; boundary={boundary.decode()}", b"".join(pieces)


def _boundary(*contents: bytes) -> bytes:
    number = 0
    while any(b"callpro-relay-%d" % number in content for content in contents):
        number += 1
    return b"callpro-relay-%d" % number
