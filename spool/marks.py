"""Tells people who look from another process which mails are under way, at next to no cost.

Leases live in memory. Only a lease that was there at two looks gets a mark on disk, so that a quick delivery never
pays for one. Marks are for people: nothing may be decided by them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

from spool import statements
from spool.inbox import Ask, disregard


class LeaseMarks:
    """`leased` is the living set of leased ids, `ask` puts a question to the database."""

    def __init__(self, leased: Collection[int], ask: Ask) -> None:
        self._leased = leased
        self._ask = ask
        self._seen: set[int] = set()
        self._marked: set[int] = set()

    def look(self) -> None:
        """Mark what has been under way since the last look."""
        long = {number for number in self._seen if number in self._leased} - self._marked
        self._seen = set(self._leased)
        self._marked = (self._marked & self._seen) | long
        if long:
            self._write(long, True)

    def ended(self, number: int) -> None:
        """The lease is over, and its mark gone with the settlement."""
        self._seen.discard(number)
        self._marked.discard(number)

    def _write(self, ids: Iterable[int], leased: bool) -> None:
        kept = tuple(ids)
        written = self._ask(partial(statements.mark, ids=kept, leased=leased), partial(self._wipe_stale, kept, leased))
        written.add_done_callback(disregard)  # a mark that is missing is no loss, and the writer has logged why

    def _wipe_stale(self, ids: Iterable[int], leased: bool, _: None) -> None:
        """A mail that was settled while its mark was on its way must not keep it."""
        stale = [number for number in ids if number not in self._leased]
        if leased and stale:
            self._write(stale, False)
