"""The line to an SMTP server once it is open: bytes out, replies in, each reply paired with the command it answers.

Takes the transport over from aiosmtplib after login, because that reads one reply per write and pipelining needs many.
It must never hand out a reply that nobody asked for, nor keep an answer of unlimited length.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Final, cast

from upstreams.smtp_replies import Reply

_LONGEST_LINE: Final = 8192
_LONGEST_REPLY: Final = 32768
_LONGEST_TEXT: Final = 1000
_FAREWELL_SECONDS: Final = 5.0
_CHUNK: Final = 1 << 18
_LINE: Final = re.compile(rb"([2-5]\d\d)(?:([ -])(.*)|\r?)\Z", re.DOTALL)


class Broken(Exception):
    """The line is of no more use: closed, silent for too long, or not speaking SMTP. The text says which."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        super().__init__(reason)
        self.closed = closed
        """True when the server hung up (or never was there), False when it was silent or spoke garbage."""


def one_line(text: str) -> str:
    """A server's words, safe for a log or a header: one printable line of bounded length."""
    text = " ".join(text.split())[:_LONGEST_TEXT]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Wire(asyncio.Protocol):
    """One open connection. `send` says how many replies are due; `reply` hands them out in order."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._part = b""
        """Of a line whose end has not come."""
        self._lines: list[tuple[bytes, bytes]] = []
        """Code and words of the lines of a reply whose last one has not come, which have so many octets."""
        self._octets = 0
        self._replies: deque[Reply] = deque()
        self._due = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = self._seconds = 0.0
        self._broken: Broken | None = None
        self._room: asyncio.Future[None] | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self.gone: Final = self._loop.create_future()
        """Done when the transport is closed."""

    @classmethod
    def take_over(cls, transport: asyncio.BaseTransport) -> Wire:
        """The wire on a transport whose last reply has been read."""
        wire = cls(cast(asyncio.Transport, transport))
        if transport.is_closing():
            wire._break("the server closed the connection", closed=True)
        transport.set_protocol(wire)
        return wire

    @property
    def alive(self) -> bool:
        """True when nothing speaks against using it again."""
        return self._broken is None and not self._due and not self._transport.is_closing()

    @property
    def time(self) -> float:
        """The event loop's seconds."""
        return self._loop.time()

    @property
    def transport(self) -> asyncio.Transport:
        """For what it knows of the peer; nothing is written past this class."""
        return self._transport

    # ---- out

    def send(self, octets: bytes, replies: int) -> None:
        """Write commands that ask for that many replies. A closed line shows at the next `reply`."""
        self._due += replies
        if self._broken is None:
            self._transport.write(octets)

    async def feed(self, octets: bytes, seconds: float) -> bytes:
        """Write all but the last part, waiting for the server to take it, and return that last part.

        The caller sends it itself with the final dot: a break before that point means that nothing was handed over.
        Raises Broken when the server takes nothing for `seconds`.
        """
        whole = max(0, (len(octets) - 1) // _CHUNK)
        view = memoryview(octets)
        for part in range(whole):
            if self._broken is not None:
                raise self._broken
            self._transport.write(view[part * _CHUNK : (part + 1) * _CHUNK])
            await self._drained(seconds)
        return octets[whole * _CHUNK :] if whole else octets

    async def _drained(self, seconds: float) -> None:
        if self._room is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._room
            except TimeoutError:
                raise Broken(f"the server took no more of the mail for {seconds:g} seconds") from None

    # ---- in

    async def reply(self, seconds: float) -> Reply:
        """The next reply. Raises Broken when the line fails first or `seconds` pass."""
        if not self._replies and self._broken is None:
            self._waiter = self._loop.create_future()
            self._look_until(seconds)
            await self._waiter
        if self._replies:
            return self._replies.popleft()
        raise self._broken or Broken("no answer came")

    def _look_until(self, seconds: float) -> None:
        """Give up on the wait that begins now after so many seconds. One timer serves many waits: it looks at the time
        again, for a new one each time costs more than the wait.
        """
        self._seconds, self._until = seconds, self._loop.time() + seconds
        if self._timer is None or self._until < self._timer.when():
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._until, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._until:
            self._set_timer()
        else:
            self._waiter.set_exception(Broken(f"no answer within {self._seconds:g} seconds"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._broken is not None:
            self._transport.close()
            return
        if self._part:
            data = self._part + data
        *lines, self._part = data.split(b"\n")
        for line in lines:
            self._take_line(line)
            if self._broken is not None:
                return
        if len(self._part) > _LONGEST_LINE:
            self._break("the server's answer is too long")

    def _take_line(self, line: bytes) -> None:
        """A line without its LF."""
        match = _LINE.match(line)
        if match is None or (self._lines and match[1] != self._lines[0][0]):
            self._break(f"the server's answer is not SMTP: {one_line(line.decode('utf-8', 'replace'))[:80]}")
            return
        self._lines.append((match[1], match[3] or b""))
        self._octets += len(line)
        if self._octets > _LONGEST_REPLY or len(line) > _LONGEST_LINE:
            self._break("the server's answer is too long")
        elif match[2] != b"-":
            self._take_reply(int(match[1]))

    def _take_reply(self, code: int) -> None:
        text = one_line(b" ".join([words for _, words in self._lines]).decode("utf-8", "replace"))
        self._lines.clear()
        self._octets = 0
        if not self._due:
            self._break(f"the server said {code} {text} unasked", closed=code == 421)
            return
        self._due -= 1
        self._replies.append(Reply(code, text))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- the end

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self._break("the server closed the connection" if error is None else _reason(error), closed=True)
        for timer in (self._farewell, self._timer):
            if timer is not None:
                timer.cancel()  # or it would keep the connection's 80 KB until then
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Called by the loop."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def _break(self, reason: str, *, closed: bool = False) -> None:
        if self._broken is None:
            self._broken = Broken(reason, closed=closed)
            self._transport.abort()
        self.resume_writing()
        self._wake()

    def quit(self) -> None:
        """Take leave without waiting: whatever the server answers, the connection goes."""
        if self.alive:
            self._transport.write(b"QUIT\r\n")
            self._broken = Broken("we took leave")
            self._farewell = self._loop.call_later(_FAREWELL_SECONDS, self.abort)
        else:
            self.abort()

    def abort(self) -> None:
        """Drop the connection as it is."""
        self._transport.abort()


def _reason(error: Exception) -> str:
    """A sentence for an error of the transport."""
    return f"the connection broke: {getattr(error, 'strerror', None) or type(error).__name__}"
