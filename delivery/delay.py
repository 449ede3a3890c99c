"""When the sender of a mail hears that it is late, and for whom. Pure.

Must never warn of a wait that is our own doing: a hold, of people or of a way that does not work, and the pace.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from config.relay_settings import Delivery
from delivery.bounce import reportable
from delivery.verdict import Final, Verdict
from routing.outcome import Outcome
from spool.contract import Leased


def warn_at(mail: Leased, delivery: Delivery, alive_since: float) -> float:
    """When to tell of the delay (unix seconds); `inf` for never. Time on hold does not count, as for the expiry."""
    if delivery.delay_warning is None or mail.warned or not reportable(mail):
        return inf
    return alive_since + delivery.delay_warning


def late(mail: Leased, finals: Mapping[str, Final], verdict: Verdict) -> dict[str, Outcome]:
    """The recipients that were tried and come back, and what was said of each."""
    return {
        pending.address: finals[pending.address].outcome
        for pending in mail.recipients
        if pending.address in finals and not finals[pending.address].held and pending.address not in verdict.done
    }
