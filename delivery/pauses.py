"""Which routes wait for their pace, or for a time that the upstream stated, and until when: for people to read.

Only looks; nothing that delivery goes by is kept or changed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from delivery.holds import HeldWay
from delivery.lanes import Lane
from delivery.ways import Way


def paced(lanes: Iterable[Lane], now: float, fallback_after: float) -> Iterator[HeldWay]:
    """One for each lane whose next mail has no room now; not those that wait for the end of a send."""
    for lane in lanes:
        way = lane.first(now, fallback_after) if lane.pause is not None and lane.buffer else None
        if way is None:
            continue
        why, until = _why(way, lane.recipients, now)
        if now < until < inf:
            since, at_hand = lane.buffer[0].received_at, tuple(mail.id for mail in lane.buffer)
            yield HeldWay(lane.name, way.name, since, why, None, until, paced=True, at_hand=at_hand)


def _why(way: Way, recipients: int, now: float) -> tuple[str, float]:
    """What has room last, and when (unix seconds)."""
    asked = f"{way.name} asked us to wait", way.gate.rests_until
    fits = min(recipients, way.widest)
    waits = [(f"the pace of {meter.name} has no room", meter.turn(way.route, fits, now).at) for meter in way.meters()]
    return max([*waits, asked], key=lambda one: one[1])
