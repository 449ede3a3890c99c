"""The doctor's look at the quotas: what was sent in 24 hours beside what an account may send. From the spool alone."""

from __future__ import annotations

import time
from contextlib import closing

from config.relay_settings import Relay
from config.rules import Rules
from delivery.accounts import Meters
from delivery.forecast import QuotaForecast, forecast
from ops.doctor import Grade, Verdict
from ops.queue_options import view_of
from spool.contract import SPENT_SLOT, SpoolUnavailable, SpoolUnusable
from spool.opening import is_shared
from spool.schema import path_of


def quota(relay: Relay, rules: Rules, wanted: frozenset[str], now: float | None = None) -> list[Verdict]:
    """A verdict for each day's limit that counts for the routes named in `wanted`. None before the first start."""
    now = time.time() if now is None else now
    url = relay.spool.url
    try:
        if not is_shared(url) and not path_of(url).exists():
            return []
        with closing(view_of(relay.spool)) as view:
            loads, spent = view.loads(), view.spent(now - 86400.0 - 2 * SPENT_SLOT)
    except (SpoolUnusable, SpoolUnavailable, PermissionError) as error:
        return [Verdict("", "quota", Grade.WARNING, "spool", f"the spool cannot be read: {error}", "run it as root")]
    meters = Meters(rules.upstreams, rules.routes)
    meters.restore(spent, now)
    found = {one.account: one for one in forecast(meters, {one.name: one for one in rules.routes}, loads, now).quotas}
    verdicts = []
    for route in rules.routes:
        if route.name in wanted:
            names = [meters.upstreams[name].name for name in route.settings.upstreams if name in meters.upstreams]
            names += [meters.routes[route.name].name] if route.name in meters.routes else []
            verdicts += [_verdict(route.name, found[name], now) for name in dict.fromkeys(names) if name in found]
    return verdicts


def _verdict(route: str, one: QuotaForecast, now: float) -> Verdict:
    what = f"{one.used} of {one.limit} recipients in 24 hours"
    if one.full_at is None and one.used < one.limit:
        return Verdict(route, "quota", Grade.GOOD, one.account, what)
    mend = "mail waits and goes on by itself; `queue forecast` tells until when"
    if one.full_at is None or one.full_at <= now:
        return Verdict(route, "quota", Grade.PROBLEM, one.account, f"{what}: the day's limit is reached", mend)
    hours = (one.full_at - now) / 3600
    return Verdict(route, "quota", Grade.WARNING, one.account, f"{what}: reached in {hours:.1f} hours", mend)
