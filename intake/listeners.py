"""The sockets on which mail comes in: those that systemd keeps for us, and the others opened here.

Must never leave a port that systemd holds without anybody who serves it: its clients would wait for ever.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

from config.network import host_port
from config.relay_settings import Listen

BACKLOG: Final = 1024
"""Connections the kernel holds for us: a burst must not see its SYN dropped and wait a second."""
_MENDS: Final = {
    errno.EADDRINUSE: "another program listens there (`ss -ltnp` shows which): stop it, or change `listen`",
    errno.EACCES: "a port below 1024 needs our .socket unit, or CAP_NET_BIND_SERVICE in the .service unit",
    errno.EADDRNOTAVAIL: "this machine has no such address (`ip address` shows those it has)",
}

Listeners = tuple[tuple[socket.socket, ...], ...]
"""For each `listen` of relay.yaml its sockets; a name (`localhost`) may have several addresses."""


def open_listeners(listen: Sequence[Listen], inherited: Sequence[socket.socket] = ()) -> Listeners:
    """Listen on every address, from now on. Raises OSError naming the one that cannot be had; then none is."""
    left, opened = list(inherited), list[tuple[socket.socket, ...]]()
    try:
        for each in listen:
            opened.append(_opened(each.address, left))
        _require_all_taken(left)
    except OSError:
        close_listeners(tuple(opened))
        raise
    return tuple(opened)


def open_address(address: str) -> tuple[socket.socket, ...]:
    """Listen on one address, of whatever purpose. Raises OSError naming it."""
    return _opened(address, [])


def close_listeners(listeners: Listeners) -> None:
    """In this process; another one that has them too listens on."""
    for sockets in listeners:
        for each in sockets:
            each.close()


def _require_all_taken(inherited: Sequence[socket.socket]) -> None:
    if inherited:
        raise OSError(
            f"systemd hands over {written(inherited[0])}, which no `listen` in relay.yaml names;"
            " add it there with its `allow`, or take it out of the .socket unit"
        )


def _opened(address: str, inherited: list[socket.socket]) -> tuple[socket.socket, ...]:
    """The sockets of one address; one that is inherited is taken out of the list."""
    host, port = host_port(address)
    name = "127.0.0.1" if host == "localhost" else host
    found = next((one for one in inherited if one.getsockname()[:2] == (name, port)), None)
    if found is not None:
        inherited.remove(found)
        return (found,)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            made.append(_listening(family, place))
    except OSError as error:
        close_listeners((tuple(made),))
        raise cannot_listen(address, error) from error
    return tuple(made)


def _listening(family: int, place: Any) -> socket.socket:
    made = socket.create_server(place, family=family, backlog=BACKLOG)
    made.setblocking(False)
    return made


def written(listener: socket.socket) -> str:
    """Host and real port, for people."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(address: str, error: OSError) -> OSError:
    """The same with words for ops: what the system said, and what to do."""
    said = os.strerror(error.errno) if error.errno else str(error)
    do = f"; {_MENDS[error.errno]}" if error.errno in _MENDS else ""
    return OSError(f"cannot listen on {address}: {said}{do}")
