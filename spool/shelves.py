"""What the loop knows about waiting mail without asking the disk: counts, leases, and the newest mail itself.

Per route one shelf. It changes only after the disk did, in the order of commits. It must never hold more content than
its budget, nor know a mail that is not on disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from spool.contract import Arrival, Leased, Pending
from spool.log_records import SettlementRecord
from spool.statements import Count, Due


@dataclass(slots=True)
class Shelf:
    """One route. `waiting` counts unsettled mails, `leased` those of them under way, `fresh` holds just-accepted
    mail with its content, due since it came. `due_on_disk` is when the first of the others is due: `inf` when there
    is none, None when only the disk knows.
    """

    waiting: int = 0
    leased: int = 0
    fresh: OrderedDict[int, Arrival] = field(default_factory=OrderedDict)
    fresh_octets: int = 0
    due_on_disk: float | None = inf

    @property
    def on_disk(self) -> int:
        return self.waiting - self.leased - len(self.fresh)

    def has_due_on_disk(self, now: float) -> bool:
        return self.on_disk > 0 and (self.due_on_disk is None or self.due_on_disk <= now)

    def next_due(self) -> float | None:
        """When the first is due; `inf` when none waits; None when only the disk knows."""
        head = next(iter(self.fresh.values())).received_at if self.fresh else inf
        if self.on_disk <= 0:
            return head
        return None if self.due_on_disk is None else min(head, self.due_on_disk)

    def due_by(self, at: float) -> None:
        """Another mail on disk is due at that time."""
        if self.due_on_disk is not None:
            self.due_on_disk = min(self.due_on_disk, at)


class Shelves:
    """All routes. `budget` is how many octets of content may be held for delivery from memory."""

    def __init__(self, budget: int) -> None:
        self.leased: dict[int, str] = {}
        self.octets = 0
        self._free = budget
        self._shelves: dict[str, Shelf] = {}

    def of(self, route: str) -> Shelf:
        shelf = self._shelves.get(route)
        if shelf is None:
            shelf = self._shelves[route] = Shelf()
        return shelf

    def routes(self) -> tuple[str, ...]:
        """Every route with mail."""
        return tuple(route for route, shelf in self._shelves.items() if shelf.waiting)

    def unleased(self) -> dict[str, Shelf]:
        """The shelves with mail that nobody has taken."""
        return {route: shelf for route, shelf in self._shelves.items() if shelf.waiting > shelf.leased}

    def recount(self, count: Count) -> None:
        """Believe the disk: after opening, and after an error that left it open what was written."""
        for route in {*self._shelves, *count.mails}:
            shelf = self.of(route)
            shelf.waiting = count.mails.get(route, 0)
            shelf.due_on_disk = None
        self.octets = count.octets

    def accept(self, arrival: Arrival, now: float) -> None:
        """A mail was kept. It stays at hand if there is room: behind due mail on disk it would only take the place of
        mail that can go now, and one route may take at most as much as it leaves to the others.
        """
        shelf, size = self.of(arrival.route), len(arrival.content)
        self.octets += size
        behind = shelf.has_due_on_disk(now)
        shelf.waiting += 1
        if not behind and shelf.fresh_octets + size <= self._free:
            shelf.fresh[arrival.id] = arrival
            shelf.fresh_octets += size
            self._free -= size
        else:
            shelf.due_by(arrival.received_at)

    def take_fresh(self, route: str, limit: int) -> list[Leased]:
        shelf = self.of(route)
        return [self._lease_fresh(shelf, number) for number in list(islice(shelf.fresh, limit))]

    def claim(self, route: str, due: Due, limit: int) -> list[Leased | int]:
        """Lease the first `limit` of those due that nobody has; one that is not at hand is given as its id."""
        shelf = self.of(route)
        free = [number for number in due.ids if number not in self.leased]
        shelf.due_on_disk = due.following if len(free) <= limit else None
        claimed: list[Leased | int] = []
        for number in free[:limit]:
            if number in shelf.fresh:
                claimed.append(self._lease_fresh(shelf, number))
            else:
                self._lease(shelf, route, number)
                claimed.append(number)
        return claimed

    def give_back(self, ids: Iterable[int]) -> None:
        """Nothing was done with these leased mails."""
        for number in ids:
            shelf = self.of(self.leased.pop(number))
            shelf.leased -= 1
            shelf.due_on_disk = None

    def settled(self, settlement: SettlementRecord, octets: int) -> str | None:
        """A settlement of a mail of so many octets was kept. Returns the route that has the mail now, None when it is
        finished.
        """
        number = settlement.id
        route = self.leased.pop(number)
        shelf = self.of(route)
        shelf.leased -= 1
        if settlement.due_at is None:
            shelf.waiting -= 1
            self.octets -= octets
            return None
        if settlement.route is not None and settlement.route != route:
            shelf.waiting -= 1
            route, shelf = settlement.route, self.of(settlement.route)
            shelf.waiting += 1
        shelf.due_by(settlement.due_at)
        return route

    def dropped(self, sizes: Mapping[int, int]) -> None:
        """Leased mails are gone; `sizes` are the octets of each."""
        for number, size in sizes.items():
            shelf = self.of(self.leased.pop(number))
            shelf.leased -= 1
            shelf.waiting -= 1
            self.octets -= size

    def read_again(self, route: str) -> None:
        """The disk knows more of this route's mail than we do now."""
        shelf = self.of(route)
        for number in tuple(shelf.fresh):
            self._drop_fresh(shelf, number)
        shelf.due_on_disk = None

    def moved(self, ids: Collection[int], old: str, new: str) -> None:
        """Waiting mails have another route now."""
        source, target = self.of(old), self.of(new)
        for number in ids:
            if number in source.fresh:
                self._drop_fresh(source, number)
            if number in self.leased:
                self.leased[number] = new
                source.leased -= 1
                target.leased += 1
        source.waiting -= len(ids)
        target.waiting += len(ids)
        source.due_on_disk = target.due_on_disk = None

    def first_free(self, rows: Sequence[tuple[int, float]]) -> float | None:
        """The time beside the first id that nobody has."""
        return next((at for number, at in rows if number not in self.leased), None)

    def _lease_fresh(self, shelf: Shelf, number: int) -> Leased:
        arrival = self._drop_fresh(shelf, number)
        self._lease(shelf, arrival.route, number)
        recipients = tuple(Pending(address) for address in dict.fromkeys(arrival.recipients))
        return Leased(number, arrival.route, arrival.sender, recipients, arrival.content, arrival.received_at, 0)

    def _lease(self, shelf: Shelf, route: str, number: int) -> None:
        self.leased[number] = route
        shelf.leased += 1

    def _drop_fresh(self, shelf: Shelf, number: int) -> Arrival:
        arrival = shelf.fresh.pop(number)
        shelf.fresh_octets -= len(arrival.content)
        self._free += len(arrival.content)
        return arrival
