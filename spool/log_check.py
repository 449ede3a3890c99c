"""Whether the write-ahead log that a crash left is whole, asked before SQLite opens it: SQLite drops without a word
what it cannot read, and mail that was promised with it. It must never write.

A crash may tear the last transaction, of which nobody was told. Format: https://sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_MAGIC: Final = (0x377F0682, 0x377F0683)
_VERSION: Final = 3007000
_HEADER: Final = 32
_FRAME: Final = 24
_PAGES: Final = frozenset(1 << power for power in range(9, 17))

Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Log:
    """What the header says: the byte order of the sums (as struct names it), octets of a page, and what every frame
    of this log carries.
    """

    order: str
    page: int
    salts: bytes
    sums: Sums


def damage(file: Path) -> str | None:
    """What is wrong with the log beside this spool; None when nothing is, or there is none. Raises OSError."""
    try:
        log = file.with_name(f"{file.name}-wal").open("rb")
    except FileNotFoundError:
        return None
    with log:
        octets = log.read(_HEADER)
        if not any(octets):
            return None  # not written yet, or never on disk: nobody was told of anything in it
        header = _header(octets)
        if header is None:
            return "its write-ahead log does not begin as it was written"
        # That a transaction was begun behind a torn one means that the torn one had been on disk, and promised.
        return (
            "a part of its write-ahead log is not as it was written" if _ends_behind_a_break(log, header) > 1 else None
        )


def _header(octets: bytes) -> _Log | None:
    if len(octets) < _HEADER:
        return None
    magic, version, page, _, _, _, first, second = struct.unpack(">8I", octets)
    if magic not in _MAGIC or version != _VERSION or page not in _PAGES:
        return None
    order = ">" if magic & 1 else "<"
    sums = _summed((0, 0), octets[:24], order)
    return _Log(order, page, octets[16:24], sums) if sums == (first, second) else None


def _ends_behind_a_break(log: BinaryIO, header: _Log) -> int:
    """How many transactions of this log end in or behind its first bad frame. Frames of an older log do not count."""
    sums, whole, ends = header.sums, True, 0
    size = _FRAME + header.page
    while len(frame := log.read(size)) == size:
        ours = frame[8:16] == header.salts
        if whole:
            sums = _summed(_summed(sums, frame[:8], header.order), frame[_FRAME:], header.order) if ours else (0, 0)
            whole = ours and sums == struct.unpack(">2I", frame[16:24])
        if not whole and ours and any(frame[4:8]):
            ends += 1
    return ends


def _summed(sums: Sums, octets: bytes, order: str) -> Sums:
    """SQLite's running sums over 32-bit words, two at a time."""
    first, second = sums
    words = iter(struct.unpack(f"{order}{len(octets) // 4}I", octets))
    for word in words:
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + next(words) + first) & 0xFFFFFFFF
    return first, second
