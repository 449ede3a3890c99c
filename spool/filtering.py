"""A `Filter` as SQL, for those who list and those who act on what is listed: the same mails in both.

Text made of constants, values apart. Every condition is answered from an index or by walking waiting mail.
"""

from __future__ import annotations

from typing import Final

from routing.mail import domain_of
from spool.view import Filter

PART: Final = (
    "coalesce(unicode(lower(substr({0}, instr({0}, '@') - 1, 1)))"
    " + unicode(lower(substr({0}, instr({0}, '@') - 2, 1))), 0) % 8"
)
"""One of eight parts of a domain that an address belongs to, by the last two characters before the @."""

MAILS_OF_PART: Final = (
    "SELECT mail FROM recipient "  # noqa: S608 (constants)
    f"WHERE domain = ? AND {PART.format('address')} = ? AND mail > ? ORDER BY mail"
)
"""The mails to one part of a domain, oldest first, from the index alone; more than once for several recipients."""
PARTS: Final = range(8)

_IN_PART: Final = f"{PART.format('address')} = {PART.format(':recipient')} AND address = :recipient COLLATE NOCASE"
_TO_DOMAIN: Final = "(SELECT mail FROM recipient WHERE domain = :domain AND mail > :after)"
_TO_ADDRESS: Final = _TO_DOMAIN.replace(":domain", f":domain AND {_IN_PART}")
Values = dict[str, object]


def conditions(which: Filter, first: str, after: int) -> tuple[str, Values]:
    """What stands behind WHERE, and its values. `first` is the table that is walked, `mail` or `waiting`, from the id
    behind `after` on.
    """
    where = [f"{first}.id > :after"]
    if which.settled:
        where.append("mail.settled_at IS NOT NULL")
    if which.ids:
        where.append(f"{first}.id IN (SELECT value FROM json_each(:ids))")  # noqa: S608 (a constant)
    if which.route is not None:
        where.append(f"{first}.route = :route")
    if which.older_than is not None:
        where.append("mail.received_at < :older_than")
    if which.sender is not None:
        pattern = "mail.sender = :sender COLLATE NOCASE"
        where.append("mail.sender LIKE :sender_domain ESCAPE '\\'" if which.sender.startswith("@") else pattern)
    if which.recipient is not None:
        where.append(f"{first}.id IN {_TO_DOMAIN if which.recipient.startswith('@') else _TO_ADDRESS}")
    values: Values = {
        "after": after,
        "ids": f"[{','.join(map(str, which.ids))}]",
        "route": which.route,
        "older_than": which.older_than,
        "sender": which.sender,
        "sender_domain": "%" + _literal(which.sender or ""),
        "recipient": which.recipient,
        "domain": domain_of(which.recipient or ""),
    }
    return " AND ".join(where), values


def _literal(text: str) -> str:
    """`text` as a LIKE pattern that stands for itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
