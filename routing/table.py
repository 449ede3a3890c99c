"""Which route a sender takes: full address, exact domain, nearest `*.parent`, `*`; the null sender only by `<>`.

Runs at every MAIL FROM and every attempt, so a plain ASCII sender costs a few dictionary look-ups and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from config import names
from config.fields import Mistake
from config.rules import Route


class Table:
    """All routes, by pattern. Never changes: a reload makes a new one. Raises ValueError for a pattern used twice."""

    __slots__ = ("_addresses", "_any", "_domains", "_null", "_parents")

    def __init__(self, routes: Iterable[Route]) -> None:
        by_pattern: dict[str, Route] = {}
        for route in routes:
            for pattern in route.settings.from_:
                if by_pattern.setdefault(names.pattern(pattern), route) is not route:
                    raise ValueError(f"two routes for {pattern}")
        self._null = by_pattern.pop(names.NULL_PATTERN, None)
        self._any = by_pattern.pop(names.ANY_PATTERN, None)
        self._parents = {text[2:]: route for text, route in by_pattern.items() if text.startswith("*.")}
        self._addresses = {text: route for text, route in by_pattern.items() if "@" in text}
        self._domains = {text: by_pattern[text] for text in by_pattern if "@" not in text and text[0] != "*"}

    def match(self, sender: str) -> Route | None:
        """The route of an envelope sender (as it came, in any case; "" or `<>` is the null sender), or None."""
        if not sender or sender == "<>":
            return self._null
        local, at, domain = sender.lower().rpartition("@")
        if not at:
            return self._any
        if domain[-1:] == ".":
            domain = domain[:-1]
        if not domain.isascii():
            try:
                domain = names.domain(domain)
            except Mistake:
                return self._any
        if self._addresses and (route := self._addresses.get(f"{local}@{domain}")) is not None:
            return route
        return self._domains.get(domain) or self._by_parent(domain)

    def _by_parent(self, domain: str) -> Route | None:
        parents = self._parents
        while parents:
            _, dot, domain = domain.partition(".")
            if not dot:
                break
            if (route := parents.get(domain)) is not None:
                return route
        return self._any
