"""What a client says: command lines one at a time, content in chunks, over one asyncio.StreamReader.

Must never lose or reorder an octet between the two: what a chunk holds beyond the final dot is the next command.
"""

from __future__ import annotations

import asyncio
from typing import Final

_LINES_A_TURN: Final = 20
"""Command lines of one client in a row; then the others have their turn, however much it sends ahead."""


class Inbound:
    """Stands where aiosmtpd expects a StreamReader. A client that is gone is a ConnectionResetError everywhere.

    `crlf_seen` says whether any command line so far ended in CRLF, as RFC 5321 2.3.8 asks of every line.
    """

    __slots__ = ("_ahead", "_lines", "_reader", "crlf_seen")

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._ahead = bytearray()
        self._lines = 0
        self.crlf_seen = False

    async def readuntil(self) -> bytes:
        """The next command line with its line ending. Raises LimitOverrunError as StreamReader does."""
        self._lines += 1
        if self._lines % _LINES_A_TURN == 0:
            await asyncio.sleep(0)
        end = self._ahead.find(b"\n") + 1 if self._ahead else 0
        if end:
            line = bytes(self._ahead[:end])
            del self._ahead[:end]
        else:
            line = await self._line_from_reader()
        if not self.crlf_seen and line.endswith(b"\r\n"):
            self.crlf_seen = True
        return line

    async def _line_from_reader(self) -> bytes:
        try:
            line = await self._reader.readuntil()
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ConnectionResetError("the client is gone") from error
        if self._ahead:
            line = bytes(self._ahead) + line
            self._ahead.clear()
        return line

    async def read(self, most: int) -> bytes:
        """Between 1 and `most` octets, as soon as there are any."""
        if self._ahead:
            chunk = bytes(self._ahead[:most])
            del self._ahead[:most]
            return chunk
        try:
            chunk = await self._reader.read(most)
        except OSError as error:
            raise ConnectionResetError("the client is gone") from error
        if not chunk:
            raise ConnectionResetError("the client is gone")
        return chunk

    @property
    def empty(self) -> bool:
        """True when all that came was taken."""
        return not self._ahead and not self._reader._buffer  # type: ignore[attr-defined]

    def comes_through(self, transport: asyncio.Transport) -> None:
        """From now on, all that comes comes from there."""
        self._reader._transport = transport  # type: ignore[attr-defined]

    def give_back(self, rest: bytes) -> None:
        """Put octets that were read too far in front of what comes next."""
        self._ahead[:0] = rest

    def pause(self) -> None:
        """Read no more: TCP holds the client back."""
        self._reader._transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read on, unless what is read already must be taken first."""
        transport = self._reader._transport  # type: ignore[attr-defined]
        if not self._reader._paused and not transport.is_closing():  # type: ignore[attr-defined]
            transport.resume_reading()
