"""Which upstream of `via:` a recipient's mail goes to next. Pure: one decision from what is known.

Must never pass on what may have been delivered (`unknown`): that would send it twice by two ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from routing.outcome import Outcome, Stage, Word


@dataclass(frozen=True, slots=True)
class Standing:
    """How an upstream stands for one route: `held` after `config`, `unreachable_since` in unix seconds.

    `gone` means that a reload took it away, `full` that its pace would make mail wait longer than the route wants,
    `trial` that it is a canary: mail does not wait for it to be reached.
    """

    held: bool = False
    unreachable_since: float | None = None
    gone: bool = False
    full: bool = False
    trial: bool = False

    def away(self, now: float, after: float) -> bool:
        """True when it has been unreachable for `after` seconds or more, one on trial for any time."""
        return self.unreachable_since is not None and (self.trial or now - self.unreachable_since >= after)

    def avoided(self, now: float, after: float) -> bool:
        """True when mail goes round it."""
        return self.full or self.away(now, after)


def unreached(outcome: Outcome) -> bool:
    """True when the attempt did not get so far as to say anything to the upstream."""
    return outcome.word is Word.RETRY and outcome.stage in (Stage.CONNECT, Stage.TLS)


def next_upstream(
    via: Sequence[str],
    standings: Mapping[str, Standing],
    tried: Mapping[str, Outcome],
    now: float,
    fallback_after: float,
) -> str | None:
    """The upstream to use now for a recipient, or None when this attempt is over for it.

    `tried` holds its outcomes in this attempt. A held upstream is never used. One that is full, or has been unreachable
    for `fallback_after` seconds, is used only when every other one is held, full or unreachable too.
    """
    if any(not _passes_on(outcome, standings[name], now, fallback_after) for name, outcome in tried.items()):
        return None
    open_ways = [name for name in via if name not in tried and not standings[name].held and not standings[name].gone]
    for name in open_ways:
        if not standings[name].avoided(now, fallback_after):
            return name
    return open_ways[0] if open_ways and not tried else None


def _passes_on(outcome: Outcome, standing: Standing, now: float, fallback_after: float) -> bool:
    """Whether the next upstream may be asked after this outcome of the one before."""
    if outcome.word is Word.CONFIG or outcome.only_here:
        return True
    return unreached(outcome) and standing.away(now, fallback_after)
