"""Finds the addresses of a host as the machine does: /etc/hosts, then its name servers.

Each name is looked up in a thread of its own. An event loop looks up four names at a time, for as long as dead name
servers take (10 to 30 seconds each): four customers of one provider would hold up the mail of all others.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

_Found = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]]

SLOW: Final = "no answer from the name servers yet"
"""What is said of a name when the time is over before they answer."""


async def addresses(host: str, port: int, family: int = socket.AF_UNSPEC) -> _Found:
    """What `socket.getaddrinfo` tells for TCP. Raises gaierror, and UnicodeError for what no name server can be asked.

    An address needs no thread. When nobody waits any more, the thread goes on until the name servers answer or their
    time is over, and nobody hears of it.
    """
    with suppress(socket.gaierror):
        return _look_up(host, port, family, socket.AI_NUMERICHOST)
    loop = asyncio.get_running_loop()
    found: Future[_Found] = loop.create_future()
    # A daemon, so that the relay's end does not wait for a name server.
    threading.Thread(target=_tell, args=(loop, found, host, port, family), name="resolver", daemon=True).start()
    return await found


def _look_up(host: str, port: int, family: int, flags: int = 0) -> _Found:
    return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)  # type: ignore[return-value]


def _tell(loop: AbstractEventLoop, future: Future[_Found], host: str, port: int, family: int) -> None:
    try:
        tell: Callable[[], None] = partial(future.set_result, _look_up(host, port, family))
    except Exception as error:
        tell = partial(future.set_exception, error)
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(lambda: None if future.done() else tell())
