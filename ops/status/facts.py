"""What the status page, the metrics and the health checks look at: the rooms of a running relay, as they are now.

They read; nothing here may change how mail goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from config.relay_settings import Relay
from delivery.plan import Plan
from delivery.scheduler import Scheduler
from intake.server import Intake
from ops.orders import Hands
from ops.reload import LastReload
from ops.webhooks import WebhookNumbers
from spool.contract import Spool
from spool.view import SpoolView


class Phase(StrEnum):
    """Where the process is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclass(slots=True)
class Facts:
    """`plan` gives the rules in force, `webhooks` the numbers of provider events where they are taken, `view` opens the
    spool for reading. `phase` and `reload` are written by the service.
    """

    relay: Relay
    spool: Spool
    scheduler: Scheduler
    intake: Intake
    plan: Callable[[], Plan]
    hands: Hands
    view: Callable[[], SpoolView]
    webhooks: WebhookNumbers | None = None
    clock: Callable[[], float] = time.time
    started_at: float = field(default_factory=time.time)
    phase: Phase = Phase.STARTING
    reload: LastReload = field(default_factory=lambda: LastReload(time.time()))
