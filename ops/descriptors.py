"""File descriptors: every connection needs one, and the first three are for people. Must never lower what we were
given, nor let clients take the last: the event loop hangs up without a word then, and mail cannot leave.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
from dataclasses import replace
from typing import Final

from config.relay_settings import Relay
from routing.events import emit

_log = logging.getLogger("relay")

_OURS: Final = 200
"""What the relay needs besides its clients' connections: upstreams, files, sockets of its own."""


def open_standard() -> None:
    """Open those of standard input, output and error that whoever started us closed, as old init scripts do. The next
    that is opened would be it: a client, or the spool, with what was meant for people written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, so this number
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def within_limit(relay: Relay) -> Relay:
    """The settings, with no more `limits.connections` than there are descriptors for: the next client is told 421.

    Takes as many as this process may have (systemd and login shells start us with 1024), and says when it is too few.
    """
    asked, most = relay.limits.connections, _raised()
    if asked + _OURS <= most:
        return relay
    fit = max(most - _OURS, most // 2)
    why = f"limits.connections is {asked}, and {fit} are let in; give LimitNOFILE={asked + _OURS}, or allow fewer"
    emit(_log, "few_descriptors", logging.WARNING, limit=most, why=why)
    return replace(relay, limits=replace(relay.limits, connections=min(asked, fit)))


def _raised() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    if soft != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
