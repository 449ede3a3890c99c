"""Listening sockets that systemd opened and keeps for us (sd_listen_fds(3)): a restart then refuses no connection.

Must never listen on what is not a listening TCP socket, nor leave descriptors to processes that we start.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

_FIRST: Final = 3
"""Where systemd puts the first descriptor."""


def inherited(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that were handed to this very process; none outside systemd. What says so is taken out of the
    environment. Raises OSError with a sentence for ops when one of them is no TCP socket that listens.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for number in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(number, False)
        found.append(_listening(number))
    return found


def _listening(number: int) -> socket.socket:
    made = socket.socket(fileno=number)
    listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if made.family not in (socket.AF_INET, socket.AF_INET6) or made.type != socket.SOCK_STREAM or not listens:
        made.detach()
        raise OSError(
            f"systemd hands over descriptor {number}, which is no TCP socket that listens;"
            " the .socket unit needs ListenStream=127.0.0.1:25, and Accept=no"
        )
    made.setblocking(False)
    return made
