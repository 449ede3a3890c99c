"""A mail of a redirected route: its true recipients written into its header, for whoever reads it in their place.

Only the header; who is mailed is the envelope's business (`delivery`). Must never let an address begin another field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from routing.addresses import write_address
from routing.headers import set_field, split

INTENDED: Final = "X-Intended-Recipients"
"""Ours: in place of any such field that came in."""


def tell_recipients(content: bytes, recipients: Sequence[str]) -> bytes:
    """`content` with one X-Intended-Recipients field that lists the envelope's recipients, folded, in ASCII."""
    block, rest = split(content)
    shown = b", ".join(_shown(recipient) for recipient in recipients)
    return set_field(block, INTENDED, shown) + rest


def _shown(address: str) -> bytes:
    return write_address(address).decode("utf-8").encode("ascii", "backslashreplace")
