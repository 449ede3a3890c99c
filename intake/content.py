"""Where the content of a mail ends on the wire, and what it is without its transparency dots (RFC 5321 4.5.2).

Pure, in chunks, never line by line. Must never see an end where another server on the way would not.
"""

from __future__ import annotations

import re
from typing import Final

_END: Final = b"\r\n.\r\n"
_DOT_LINE: Final = b"\n."
_END_OF_LF_CLIENT: Final = re.compile(rb"\n\.\r?\n")
_LONE_DOTS: Final = (b"\n.\n", b"\n.\r\n")


class Content:
    """Takes what follows the 354, chunk by chunk. `size` is what it holds in memory, in octets.

    The end is CRLF "." CRLF and nothing else. Taking LF.LF, LF.CRLF, CRLF.LF or anything with a lone CR for an end
    would let a sender smuggle a second mail through a server in front of us that passes them on as text (RFC 5321
    2.3.8 and 4.1.1.4 forbid it).

    One exception, `lf_client`: when every command line of the connection ended in a bare LF, a line there is what LF
    ends, and a line with only a dot is the end. Such a client could not end a mail in any other way and would hang. No
    mail server speaks like that, so nobody else's content can come through such a connection unseen. The caller
    decides from the command lines alone (`Inbound.crlf_seen`), never from content.

    More than `limit` octets of content (transparency dots not counted, RFC 1870 5) are thrown away as they come.
    """

    __slots__ = ("_chunks", "_dots", "_end", "_lf_client", "_limit", "_tail", "_taken", "_too_large", "size")

    def __init__(self, limit: int, *, lf_client: bool = False) -> None:
        self.size = 0
        self._limit = limit
        self._lf_client = lf_client
        self._chunks: list[bytes] = []
        self._tail = b"\r\n"  # the line before the first one is the DATA command itself
        self._taken = 0
        self._dots = False
        self._end = -1
        self._too_large = False

    def feed(self, chunk: bytes) -> bytes | None:
        """Take a chunk. None: more must come. Once the end is in it: what stands behind the end, not taken."""
        end, after = self._find_end(chunk)
        if after < 0:
            self._keep(chunk)
            self._tail = (self._tail + chunk[-4:])[-4:]
            return None
        self._end = self._taken + end
        self._keep(chunk[: max(0, end)])
        return chunk[after:]

    def message(self) -> bytes | None:
        """The content without its transparency dots, after the end has come; None when it is over the limit."""
        if self._too_large:
            return None
        wire = b"".join(self._chunks)
        self._chunks.clear()
        if len(wire) > self._end:  # the end began in the chunk before the last
            wire = wire[: self._end]
        content = _without_transparency_dots(wire, inside=self._dots)
        return content if len(content) <= self._limit else None

    def _find_end(self, chunk: bytes) -> tuple[int, int]:
        """Where in the chunk the content ends (behind its last line ending; below 0 in what came before) and the next
        command begins; (-1, -1) without an end. It may begin in what came before, so the seam is looked at first, and
        then the chunk as it is: it is not copied. Whether another line begins with a dot is noted on the way.
        """
        tail = len(self._tail)
        for window, before in ((self._tail + chunk[:4], tail), (chunk, 0)):
            line = window.find(_DOT_LINE)  # in most mail the only one is its end
            if line < 0:
                continue
            if self._lf_client:
                found = _END_OF_LF_CLIENT.search(window, line)
                at, end = (found.start(), found.end()) if found else (-1, -1)
            else:
                at = window.find(_END, max(0, line - 1)) + 1
                at, end = (at, at + 4) if at else (-1, -1)
            self._dots = self._dots or at != line
            if at >= 0:
                return at + 1 - before, end - before
        return -1, -1

    def _keep(self, chunk: bytes) -> None:
        self._taken += len(chunk)
        if self._too_large:
            return
        self._chunks.append(chunk)
        self.size += len(chunk)
        # A dot is added to at most every third octet (lines of "." CRLF), so beyond this the limit is passed for sure.
        if self.size > self._limit + self._limit // 3 + 4:
            self._too_large = True
            self._chunks.clear()
            self.size = 0


def _without_transparency_dots(wire: bytes, *, inside: bool) -> bytes:
    """`inside` says whether more lines than the first may begin with a dot. They are taken away behind a bare LF too:
    clients that send bare LF in content (Python's smtplib, given bytes) add them there. A dot alone on such a line was
    never added by anybody, so it is text.
    """
    if wire.startswith(b".") and not wire.startswith((b".\n", b".\r\n")):
        wire = wire[1:]
    if not inside:
        return wire
    for lone in _LONE_DOTS:
        for _ in range(2) if lone in wire else ():  # twice: two such lines in a row share a line ending
            wire = wire.replace(lone, b"\n." + lone[1:])
    return wire.replace(b"\n.", b"\n")
