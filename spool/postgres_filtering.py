"""A `Filter` as PostgreSQL's SQL, for those who list and those who act on what is listed: the same mails in both.

Text made of constants, values apart.
"""

from __future__ import annotations

import zlib
from typing import Final

from routing.mail import domain_of
from spool.view import Filter

_TO_DOMAIN: Final = "(SELECT mail FROM recipient WHERE domain = %(domain)s AND mail > %(after)s)"
_TO_ADDRESS: Final = _TO_DOMAIN.replace(
    "AND mail", 'AND part = %(part)s AND lower(address COLLATE "C") = %(recipient)s AND mail'
)
PARTS: Final = 64
Values = dict[str, object]


def conditions(which: Filter, first: str, after: int) -> tuple[str, Values]:
    """What stands behind WHERE, and its values. `first` is the table that is walked, `mail` or `waiting`, from the id
    behind `after` on.
    """
    where = [f"{first}.id > %(after)s"]
    if which.settled:
        where.append("mail.settled_at IS NOT NULL")
    if which.ids:
        where.append(f"{first}.id = ANY(%(ids)s)")
    if which.route is not None:
        where.append(f"{first}.route = %(route)s")
    if which.older_than is not None:
        where.append("mail.received_at < %(older_than)s")
    if which.sender is not None:
        domain = which.sender.startswith("@")
        where.append('right(lower(mail.sender COLLATE "C"), %(length)s) = %(sender)s' if domain else
                     'lower(mail.sender COLLATE "C") = %(sender)s')  # fmt: skip
    if which.recipient is not None:
        where.append(f"{first}.id IN {_TO_DOMAIN if which.recipient.startswith('@') else _TO_ADDRESS}")
    sender = _lower(which.sender or "")
    values: Values = {
        "after": after,
        "ids": list(which.ids),
        "route": which.route,
        "older_than": which.older_than,
        "sender": sender,
        "length": len(sender),
        "recipient": _lower(which.recipient or ""),
        "domain": domain_of(which.recipient or ""),
        "part": part_of(which.recipient or ""),
    }
    return " AND ".join(where), values


def part_of(address: str) -> int:
    """One of `PARTS` parts of a domain that an address belongs to: most mail goes to few domains, and an index by
    address would write a page of its own for every recipient.
    """
    return zlib.crc32(_lower(address).encode("utf-8", "surrogatepass")) % PARTS


def _lower(text: str) -> str:
    """As the database does it in the collation "C": ASCII letters only."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
