"""What is amiss among the relays that share a spool, and what to do: sentences for the command and the page. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config.rules import Rules
from ops.queue_view import age_text
from spool.view import NodeLine

_SKEW: Final = 1.0
_LATE: Final = 0.5
"""The part of a lease that a relay may be silent; it gives five signs of life in a lease."""

SILENT: Final = "No sign of life of {node} for {time}"
LOOK: Final = "Look there: systemctl status callpro-relay. After {lease} of silence the others take over its mail."
RULES_ODD: Final = "Other rules than the others: {node}"
RULES_COPY: Final = (
    "Copy routes.yaml and routes.d of another relay there, then: systemctl reload callpro-relay. "
    "Are the files the same already? Then only the reload is missing, or was refused: callpro-relay check says why."
)
RULES_DIFFER: Final = "The rules of the relays differ: {nodes}"
RULES_CHOOSE: Final = (
    "Copy routes.yaml and routes.d of the one that is right to the others, then there: systemctl reload callpro-relay"
)
VERSION_ODD: Final = "Another version than the others: {node} ({version})"
VERSIONS_DIFFER: Final = "The versions of the relays differ: {nodes}"
RENEW: Final = "Finish the renewal: install the same version everywhere, one relay after the other."
BEHIND: Final = "The clock of {node} is {seconds} s behind the database's"
AHEAD: Final = "The clock of {node} is {seconds} s ahead of the database's"
SET_CLOCK: Final = "Set it: timedatectl on that machine says whether it is kept right."
SENTENCES: Final = (
    *(SILENT, LOOK, RULES_ODD, RULES_COPY, RULES_DIFFER, RULES_CHOOSE),
    *(VERSION_ODD, VERSIONS_DIFFER, RENEW, BEHIND, AHEAD, SET_CLOCK),
)
"""All of them, for whoever translates. Values stand in braces."""


@dataclass(frozen=True, slots=True)
class NodeWarning:
    """`words` is what is amiss, `mend` what to do: sentences of this file, with `values` for their braces."""

    words: str
    mend: str
    values: Mapping[str, str]

    @property
    def text(self) -> str:
        return f"{self.words} -> {self.mend}".format(**self.values)


def rules_hash(rules: Rules) -> str:
    """The same for the same rules, wherever their files are. Secrets count by their references only."""
    upstreams = sorted(repr((rule.name, rule.settings, rule.pace)) for rule in rules.upstreams.values())
    routes = [repr((route.name, route.settings)) for route in rules.routes]
    return hashlib.sha256("\n".join((*upstreams, *routes)).encode()).hexdigest()[:12]


def late(line: NodeLine) -> bool:
    """It should have given a sign of life before."""
    return line.seen_ago > line.lease * _LATE


def warnings_of(lines: Sequence[NodeLine]) -> list[NodeWarning]:
    """What somebody should look at."""
    found = [
        NodeWarning(SILENT, LOOK, {"node": line.name, "time": age_text(line.seen_ago), "lease": age_text(line.lease)})
        for line in lines
        if late(line)
    ]
    alive = [line for line in lines if line.alive]
    found += _unlike(alive, lambda line: line.rules, (RULES_ODD, RULES_COPY), (RULES_DIFFER, RULES_CHOOSE))
    found += _unlike(alive, lambda line: line.version, (VERSION_ODD, RENEW), (VERSIONS_DIFFER, RENEW))
    for line in alive:
        if abs(line.skew) > _SKEW:
            values = {"node": line.name, "seconds": f"{abs(line.skew):.1f}"}
            found.append(NodeWarning(BEHIND if line.skew > 0 else AHEAD, SET_CLOCK, values))
    return found


def kinds(lines: Sequence[NodeLine], what: Callable[[NodeLine], str]) -> Counter[str]:
    """How many of the relays that are alive have each value; one that has not told yet counts nowhere."""
    return Counter(what(line) for line in lines if line.alive and what(line))


def _unlike(
    lines: Sequence[NodeLine], what: Callable[[NodeLine], str], one: tuple[str, str], all_: tuple[str, str]
) -> list[NodeWarning]:
    """A warning for each relay that differs from most; where no value is that of most, one about all of them."""
    counts = kinds(lines, what).most_common()
    if len(counts) < 2:
        return []
    told = [line for line in lines if what(line)]
    usual, most = counts[0]
    if most * 2 > len(told):
        odd = [line for line in told if what(line) != usual]
        return [NodeWarning(*one, {"node": line.name, "version": line.version}) for line in odd]
    return [NodeWarning(*all_, {"nodes": ", ".join(f"{line.name} ({what(line)})" for line in told)})]
