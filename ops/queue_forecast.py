"""`queue forecast`: when each route's mail will have left by its pace, and when a day's limit is reached.

It asks the spool and the rules, never an upstream, and needs no running relay.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from config.loading import load_rules
from delivery.accounts import Meters
from delivery.forecast import Forecast, QueueForecast, QuotaForecast, forecast
from ops.queue_options import open_view
from ops.queue_view import age_text
from spool.contract import SPENT_SLOT
from upstreams import SHAPES


def forecast_queue(asked: argparse.Namespace) -> int:
    """The command. Exit 1 when a day's limit is reached, or will be."""
    rules = load_rules(asked.config.parent, SHAPES, outside_unit=True)
    now = time.time()
    with closing(open_view(asked.config)) as view:
        loads, spent = view.loads(), view.spent(now - 86400.0 - 2 * SPENT_SLOT)
    meters = Meters(rules.upstreams, rules.routes)
    meters.restore(spent, now)
    found = forecast(meters, {route.name: route for route in rules.routes}, loads, now)
    print(forecast_json(found) if asked.json else forecast_text(found, now), end="")
    return 1 if any(quota.full_at is not None for quota in found.quotas) else 0


def forecast_text(found: Forecast, now: float) -> str:
    """A line for each queue, then one for each limit."""
    queues = [_queue_line(queue, now) for queue in found.queues]
    quotas = [_quota_line(quota, now) for quota in found.quotas]
    return "\n".join([*(queues or ["No mail waits."]), *([""] if quotas else []), *quotas]) + "\n"


def forecast_json(found: Forecast) -> str:
    """`queues` and `quotas`; times are ISO 8601 in UTC."""
    queues = [
        {
            "route": queue.route,
            "upstream": queue.upstream,
            "mails": queue.waiting.mails,
            "recipients": queue.waiting.recipients,
            "paced": queue.paced,
            "empty_at": _utc(queue.empty_at),
        }
        for queue in found.queues
    ]
    quotas: list[dict[str, Any]] = [
        {"account": quota.account, "used": quota.used, "per_day": quota.limit, "full_at": _utc(quota.full_at)}
        for quota in found.quotas
    ]
    return json.dumps({"queues": queues, "quotas": quotas}, indent=2) + "\n"


def _queue_line(queue: QueueForecast, now: float) -> str:
    mails = f"{queue.waiting.mails} {'mail' if queue.waiting.mails == 1 else 'mails'}"
    if not queue.paced:
        when = "no pace makes it wait"
    elif queue.empty_at is None:
        when = "not empty within two months at its pace"
    else:
        when = f"empty in {age_text(queue.empty_at - now)} at its pace"
    return f"{queue.route}  {mails} for {queue.waiting.recipients} by {queue.upstream}: {when}"


def _quota_line(quota: QuotaForecast, now: float) -> str:
    used = f"{quota.account}  {quota.used} of {quota.limit} recipients in 24 hours"
    if quota.full_at is None:
        return f"{used}, not reached as things go"
    return f"{used}, {'reached' if quota.full_at <= now else f'reached in {age_text(quota.full_at - now)}'}"


def _utc(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
