"""The intake log: one file beside the database, where mail is promised with one write and one sync, and from where the
database takes it a moment later. Only the newest generation counts: after each taking over it begins anew at the start.

It must never be believed further than what was synced, nor about another database. It grows a megabyte at a time,
because a sync is twice as fast where the file need not grow.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spool.log_records import MailRecord, SettlementRecord, pieces

CAPACITY: Final = 32 << 20
_MAGIC: Final = b"CPIL"
# magic, sum of all that follows it, octets of payload, salt, generation, number of the batch
_HEAD: Final = struct.Struct("<4sIQ16sQQ")
_TOTAL: Final = struct.Struct("<I")
_SUMMED: Final = struct.Struct("<Q16sQQ")
_SUMMED_FROM: Final = _HEAD.size - _SUMMED.size
_FLAGS: Final = os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC
_PAGE: Final = 4096
"""Each batch begins on a page of its own, so that a write that breaks off cannot touch an earlier one."""
_STEP: Final = 1 << 20
_ZEROS: Final = bytes(64 << 10)
_VECTORS: Final = 1000
_SUMMED_AT_ONCE: Final = 5 << 10


class LogDamaged(Exception):
    """A part that was promised is not as it was written. The text says which."""


class LogOfAnother(Exception):
    """Its mails belong to another database, or to a newer state of this one."""


@dataclass(frozen=True, slots=True)
class InLog:
    """A mail in the log, and where in the file its content is."""

    record: MailRecord
    place: int


@dataclass(slots=True)
class Leftover:
    """What the database has not taken over: by batch number the records in the order in which they were written, and
    where the log goes on.
    """

    batches: list[list[InLog | SettlementRecord]]
    end: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """`at` is where its head stands."""

    at: int
    total: int
    length: int
    salt: bytes
    generation: int
    number: int

    @property
    def end(self) -> int:
        return _whole_pages(self.at + _HEAD.size + self.length)


def path_of(spool: Path) -> Path:
    """The log that belongs to a database file."""
    return spool.with_name(f"{spool.name}-intake")


class IntakeLog:
    """Used by one thread. `salt` ties it to its database, `absorbed` is the last generation that was taken over."""

    def __init__(self, path: Path, salt: bytes, absorbed: int) -> None:
        self._path = path
        self._salt = salt
        self.generation = absorbed + 1
        self.number = 0
        self._end = 0
        self._size = 0
        self._descriptor: int | None = None
        self._broken = False

    def recover(self) -> Leftover:
        """What is in the file and not taken over; go on behind it. Raises OSError, LogDamaged, LogOfAnother."""
        try:
            descriptor = os.open(self._path, _FLAGS)
        except FileNotFoundError:
            return Leftover([])
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        left = _leftover(descriptor, self._size, self._salt, self.generation)
        self._end, self.number = left.end, len(left.batches)
        return left

    @property
    def untouched(self) -> bool:
        """Whether nothing of this generation can be in the file."""
        return self.number == 0 and not self._broken

    def has_room(self, octets: int) -> bool:
        """Whether a batch of that payload can be appended."""
        return not self._broken and self._end + _HEAD.size + octets <= CAPACITY

    def append(self, parts: Sequence[bytes]) -> int:
        """Write a batch and sync it; returns where its payload begins. Raises OSError: then nothing was kept, and the
        log takes no more until `begin_anew`, for after a failed sync nobody knows what is on disk.
        """
        at, length = self._end, sum(map(len, parts))
        rest = _SUMMED.pack(length, self._salt, self.generation, self.number)
        total = zlib.crc32(rest)
        for part in parts:
            total = _summed(part, total)
        end = _whole_pages(at + _HEAD.size + length)
        try:
            descriptor = self._descriptor if self.number and self._descriptor is not None else self._opened()
            self._grow(descriptor, end)
            _write(descriptor, [_MAGIC + _TOTAL.pack(total) + rest, *parts], at)  # O_DSYNC: written and synced
        except OSError:
            self._broken = True
            with suppress(OSError):
                if self._descriptor is not None:
                    os.pwrite(self._descriptor, bytes(_HEAD.size), at)  # it was refused: better that it is not found
            raise
        self._end = end
        self.number += 1
        return at + _HEAD.size

    def read(self, place: int, size: int) -> bytes:
        """A content. Raises OSError."""
        if self._descriptor is None:
            raise OSError(f"{self._path} is not open")
        octets = os.pread(self._descriptor, size, place)
        if len(octets) != size:
            raise OSError(f"{self._path} was cut short")
        return octets

    def begin_anew(self) -> None:
        """The database has all of this generation."""
        self.generation += 1
        self.number = self._end = 0
        self._broken = False

    def close(self, *, empty: bool) -> None:
        """Let go. A log whose mails the database has all is removed: the spool is one file then."""
        if empty and self._descriptor is not None:
            with suppress(OSError):
                if self._is_ours(self._descriptor):
                    self._path.unlink()
        self._close()

    def _opened(self) -> int:
        """The file, looked at once a generation: it must still be the one that we wrote, or mail would go into a
        deleted file. One that is gone is made anew, for the database has all that was in it. Raises OSError.
        """
        if self._descriptor is not None and not self._is_ours(self._descriptor):
            if self._path.exists():
                raise FileNotFoundError(f"{self._path} was moved or replaced while the relay runs; restart the relay")
            self._close()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            self._size = 0
            _sync_folder(self._path.parent)
        return self._descriptor

    def _is_ours(self, descriptor: int) -> bool:
        ours = os.fstat(descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev) and ours.st_size >= self._size

    def _grow(self, descriptor: int, end: int) -> None:
        if end > self._size:
            size = -(-end // _STEP) * _STEP
            more = size - self._size
            _write(descriptor, [_ZEROS] * (more // len(_ZEROS)) + [bytes(more % len(_ZEROS))], self._size)
            self._size = size

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _summed(octets: bytes, total: int) -> int:
    """The sum of these octets behind those in `total`. In pieces, because for more than `_SUMMED_AT_ONCE` crc32 lets go
    of the interpreter's lock, and to get that back from a busy thread takes longer than the sum.
    """
    if len(octets) <= _SUMMED_AT_ONCE:
        return zlib.crc32(octets, total)
    view = memoryview(octets)
    for start in range(0, len(octets), _SUMMED_AT_ONCE):
        total = zlib.crc32(view[start : start + _SUMMED_AT_ONCE], total)
    return total


def _whole_pages(octets: int) -> int:
    return -(-octets // _PAGE) * _PAGE


def _write(descriptor: int, parts: Sequence[bytes], at: int) -> None:
    if len(parts) > _VECTORS:
        parts = [b"".join(parts)]
    total = sum(map(len, parts))
    written = os.pwritev(descriptor, parts, at)
    while written < total:  # the disk is full, or a signal came: the next write tells
        written += os.pwrite(descriptor, b"".join(parts)[written:], at + written)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- reading after a crash


def _leftover(descriptor: int, size: int, salt: bytes, generation: int) -> Leftover:
    """The chain of batches of this generation from the start. A crash can tear only the last batch, because each is on
    disk before the next begins: a whole one of ours behind a torn one means that the torn one had been promised.
    """
    first = _batch_at(descriptor, 0, size)
    if first is not None and _is_whole(descriptor, first) and (first.salt != salt or first.generation > generation):
        raise LogOfAnother
    left = Leftover([])
    while (batch := _batch_at(descriptor, left.end, size)) is not None:
        if (batch.salt, batch.generation, batch.number) != (salt, generation, len(left.batches)):
            break
        if not _is_whole(descriptor, batch):
            break
        left.batches.append(_records(descriptor, batch))
        left.end = batch.end
    for at in range(left.end, size, _PAGE):
        later = _batch_at(
            descriptor, at, size
        )  # its sum is asked last: what looks like a batch may be a mail's content
        if later and later.salt == salt and later.generation >= generation and _is_whole(descriptor, later):
            raise LogDamaged(f"batch {len(left.batches)}, at octet {left.end}, is not as it was written")
    return left


def _records(descriptor: int, batch: _Batch) -> list[InLog | SettlementRecord]:
    start = batch.at + _HEAD.size
    try:
        return [
            InLog(piece.record, start + piece.place) if isinstance(piece.record, MailRecord) else piece.record
            for piece in pieces(os.pread(descriptor, batch.length, start))
        ]
    except (ValueError, struct.error) as error:
        raise LogDamaged(f"batch {batch.number}, at octet {batch.at}, cannot be read: {error}") from error


def _batch_at(descriptor: int, at: int, size: int) -> _Batch | None:
    """What the head there says; None when there is none."""
    head = os.pread(descriptor, _HEAD.size, at)
    if len(head) < _HEAD.size:
        return None
    magic, total, length, salt, generation, number = _HEAD.unpack(head)
    if magic != _MAGIC or length > size - at - _HEAD.size:
        return None
    return _Batch(at, total, length, salt, generation, number)


def _is_whole(descriptor: int, batch: _Batch) -> bool:
    octets = os.pread(descriptor, _HEAD.size + batch.length, batch.at)
    return zlib.crc32(memoryview(octets)[_SUMMED_FROM:]) == batch.total
