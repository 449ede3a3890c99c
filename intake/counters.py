"""What intake has counted since it started; ops reads it, nobody else writes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from routing.counting import ByCustomer


@dataclass(slots=True)
class Numbers:
    """Plain counts. `open` is now, all else since the start; octets are of content as it was kept.

    `refused` counts every negative reply by its enhanced status code, `repairs` every repair by its name.
    `routes` are the mails accepted for each route, `customers` mails and recipients by route and domain of the sender.
    `turned_away` are connections refused at the greeting, `abandoned` transactions whose client went without an end.
    """

    open: int = 0
    connections: int = 0
    turned_away: int = 0
    accepted: int = 0
    recipients: int = 0
    octets: int = 0
    abandoned: int = 0
    bugs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    customers: ByCustomer = field(default_factory=lambda: ByCustomer(2))
