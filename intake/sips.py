"""Reading a little at a time, for when so many mails come in at once that one ordinary read of each would fill memory.

Must never read more of a client than SIP_OCTETS before the dialogue has taken what was read.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

SIP_OCTETS: Final = 1 << 14
"""What is read at a time; an ordinary read takes all that the kernel holds, up to 256 KB."""


class Drinker(Protocol):
    """A connection, as its transport sees it."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Sips(asyncio.BufferedProtocol):
    """Stands between a transport and its connection. `cup` may be shared: it is empty again before the next read."""

    __slots__ = ("_cup", "_drinker")

    def __init__(self, drinker: Drinker, cup: bytearray) -> None:
        self._drinker = drinker
        self._cup = cup

    def get_buffer(self, _hint: int) -> bytearray:
        """Called by the loop."""
        return self._cup

    def buffer_updated(self, octets: int) -> None:
        """Called by the loop."""
        self._drinker.data_received(bytes(self._cup[:octets]))

    def eof_received(self) -> bool:
        """Called by the loop."""
        return self._drinker.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._drinker.connection_lost(error)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._drinker.pause_writing()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._drinker.resume_writing()
