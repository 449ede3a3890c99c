"""Contents of mail that came here a moment ago, so that its delivery need not read them from the database.

Nothing hangs on what is here: another node may have the mail by now. It must never hold more than its budget.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class AtHand:
    """`budget` is in octets. Where it does not suffice the oldest go: they were not wanted for the longest time."""

    def __init__(self, budget: int) -> None:
        self._free = self._budget = budget
        self._contents: OrderedDict[int, bytes] = OrderedDict()

    def keep(self, number: int, content: bytes) -> None:
        """A mail was put."""
        if len(content) > self._budget:
            return
        while len(content) > self._free:
            self._free += len(self._contents.popitem(last=False)[1])
        self._contents[number] = content
        self._free -= len(content)

    def find(self, number: int) -> bytes | None:
        """The content of a mail, if it is here. For any thread."""
        return self._contents.get(number)

    def forget(self, numbers: Iterable[int]) -> None:
        """These mails were taken."""
        for number in numbers:
            self._free += len(self._contents.pop(number, b""))
