"""Tells systemd how we are (sd_notify(3)): ready, reloading, stopping, a line of status.

Silent when nobody listens: without $NOTIFY_SOCKET it does nothing, and a failing socket never stops the relay.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(**state: str) -> None:
    """Send `KEY=value` lines, such as `notify(READY="1", STATUS="listening")`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{key}={value}" for key, value in state.items()).encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1)
        sender.sendto(message, target)


def ready(status: str) -> None:
    """We listen and deliver."""
    notify(READY="1", STATUS=status)


def reloading() -> None:
    """New rules are being read; `ready` must follow, with or without them."""
    notify(RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))


def stopping() -> None:
    """The queue drains; `TimeoutStopSec` runs."""
    notify(STOPPING="1", STATUS="draining")
