"""What a client says: command lines one at a time, content in chunks, out of one buffer.

Must never lose or reorder an octet between the two: what a chunk holds beyond the final dot is the next command.
"""

from __future__ import annotations

import asyncio
from typing import Final

_LINES_A_TURN: Final = 20
"""Command lines of one client in a row; then the others have their turn, however much it sends ahead."""
BUFFER_OCTETS: Final = 1 << 16
"""The longest command line that is looked at; reading pauses while twice this waits to be taken."""


class Inbound:
    """Stands where aiosmtpd has a StreamReader. A client that is gone is a ConnectionResetError everywhere.

    `crlf_seen` says whether any command line so far ended in CRLF, as RFC 5321 2.3.8 asks of every line. `idle` is True
    while the dialogue waits for a command and nothing has come.
    """

    __slots__ = (
        *("_ahead", "_buffer", "_chunk", "_ended", "_full", "_held", "_lines", "_loop", "_most", "_transport"),
        *("_waiter", "crlf_seen", "idle"),
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()
        self._chunk: bytes | None = None
        self._ahead: bytes | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended = self._full = self._held = False
        self._lines = 0
        self._most = 2 * BUFFER_OCTETS
        self.crlf_seen = self.idle = False

    # ---- from the transport

    def whole_line(self, octets: bytes) -> bool:
        """Whether this, which has just come, is the command that the dialogue waits for, and nothing more."""
        return self.idle and self._ahead is None and _is_one_line(octets)

    def saw(self, line: bytes) -> None:
        """A command line was answered, and is not fed."""
        self.crlf_seen = self.crlf_seen or line.endswith(b"\r\n")

    def put_ahead(self, line: bytes) -> None:
        """A command that the dialogue need not hear of before more has come."""
        self._ahead = line
        self.saw(line)

    def feed(self, octets: bytes) -> None:
        """The client said this."""
        if self._chunk is None and not self._buffer:
            self._chunk = octets  # it is handed on as it came: a copy would double what a crowd makes us hold
        else:
            self._buffer += octets
        self._wake()
        if not self._full and len(self._buffer) + len(self._chunk or b"") > self._most:
            self._full = True
            self._transport.pause_reading()

    def end(self) -> None:
        """The client will say no more."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self.idle = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- to the dialogue

    @property
    def line_ahead(self) -> bool:
        """True when the next command line is here already."""
        return b"\n" in self._buffer or (self._chunk is not None and b"\n" in self._chunk)

    async def line(self) -> bytes | None:
        """The next command line with its line ending; None for one over BUFFER_OCTETS, which is thrown away."""
        self._lines += 1
        if self._lines % _LINES_A_TURN == 0:
            await asyncio.sleep(0)
        if self._chunk is None and not self._buffer:
            more, self.idle = self._more(), True
            await more
            if self._ahead is not None:
                ahead, self._ahead = self._ahead, None
                return ahead
        line = self._take_chunk_that_is_a_line()
        return await self._line_of_buffer() if line is None else line

    def _take_chunk_that_is_a_line(self) -> bytes | None:
        """What came, if it is a whole line and nothing more, as it is while the client waits for each answer."""
        chunk = self._chunk
        if chunk is None or self._buffer or not _is_one_line(chunk):
            return None
        self._chunk = None
        self._drained()
        self.saw(chunk)
        return chunk

    async def _line_of_buffer(self) -> bytes | None:
        searched, too_long = 0, False
        self._pour()
        while not (end := self._buffer.find(b"\n", searched) + 1):
            if len(self._buffer) > BUFFER_OCTETS:
                too_long = True
                self._take(len(self._buffer))
            searched = len(self._buffer)
            await self._more()
            self._pour()
        line = self._take(end)
        self.saw(line)
        return None if too_long else line

    def _pour(self) -> None:
        """The chunk that came first goes into the buffer, in front."""
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            self._buffer[:0] = chunk

    async def read(self, most: int) -> bytes:
        """Between 1 and `most` octets, as soon as there are any."""
        while not self._buffer and self._chunk is None:
            await self._more()
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return self._take(most)
        self._buffer[:0] = chunk[most:]
        self._drained()
        return chunk[:most]

    @property
    def empty(self) -> bool:
        """True when all that came was taken."""
        return not self._buffer and self._chunk is None

    def comes_through(self, transport: asyncio.Transport) -> None:
        """From now on, all that comes comes from there."""
        self._transport = transport

    def give_back(self, rest: bytes) -> None:
        """Put octets that were read too far in front of what comes next."""
        self._buffer[:0] = rest

    def _take(self, most: int) -> bytes:
        if most >= len(self._buffer):
            taken = bytes(self._buffer)
            self._buffer.clear()
        else:
            taken = bytes(self._buffer[:most])
            del self._buffer[:most]
        self._drained()
        return taken

    def _drained(self) -> None:
        if self._full and len(self._buffer) <= self._most // 2:
            self._full = False
            self._read_on()

    def sip(self, protocol: asyncio.BaseProtocol, most: int) -> None:
        """From now on the transport tells `protocol`, and reading pauses while more than `most` octets wait."""
        self._most = most
        if not self._transport.is_closing():
            self._transport.pause_reading()  # so that the next read begins anew, in the other manner
            self._transport.set_protocol(protocol)
            self._read_on()

    def pause(self) -> None:
        """Read no more: TCP holds the client back."""
        self._held = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless what is read already must be taken first."""
        self._held = False
        self._read_on()

    def _read_on(self) -> None:
        if not self._full and not self._held and not self._transport.is_closing():
            self._transport.resume_reading()

    def _more(self) -> asyncio.Future[None]:
        """Ends when more has come."""
        if self._ended:
            raise ConnectionResetError("the client is gone")
        self._waiter = self._loop.create_future()
        return self._waiter


def _is_one_line(octets: bytes) -> bool:
    """Whether it is a whole line, and nothing more."""
    return octets.find(b"\n") + 1 == len(octets)
