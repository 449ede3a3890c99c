"""File descriptors: every connection needs one. Must never lower what we were given."""

from __future__ import annotations

import logging
import resource
from typing import Final

from routing.events import emit

_log = logging.getLogger("relay")

_OURS: Final = 200
"""What the relay needs besides its clients' connections: upstreams, files, sockets of its own."""


def raise_limit(connections: int) -> None:
    """Take as many as this process may have (systemd and login shells start us with 1024), and say when it is too few
    for so many `connections`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)
    if soft != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < connections + _OURS:
        why = f"limits.connections is {connections}; give LimitNOFILE={connections + _OURS}, or allow fewer"
        emit(_log, "few_descriptors", logging.WARNING, limit=hard, why=why)
