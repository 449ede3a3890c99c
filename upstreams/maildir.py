"""The kind `maildir`: mail into a folder on this machine, to try the relay without an account anywhere.

A file appears in `new` only when it is whole and on disk. The envelope goes on top as Return-Path and X-Envelope-To;
the mail itself is never changed.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.fields import Fault, Settings, setting
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from upstreams.base import Host, Kind, Upstream

_FOLDERS: Final = ("tmp", "new", "cur")
_LASTING: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_WRITERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MaildirSettings(Settings):
    """`type: maildir`."""

    path: Path = setting(doc="The Maildir; it is made when it is not there.", example="/var/lib/callpro-relay/maildir")

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if not self.path.is_absolute():
            yield Fault("path", f"{self.path} is not an absolute path", "write it from the root: /var/...")

    def loopback(self) -> bool:
        """See `Settings.loopback`: nothing leaves the machine."""
        return True


class Maildir(Upstream):
    """A folder with `tmp`, `new` and `cur`. Each mail is one file, whatever the number of its recipients."""

    concurrency = _WRITERS
    recipients_limit = 1000
    local = True

    def __init__(self, name: str, path: Path, host: Host) -> None:
        self.name = name
        self._path = path
        self._suffix = host.hostname.replace("/", "_").replace(":", "_")
        self._counter = itertools.count(1)

    async def send(self, mail: Outgoing) -> Results:
        """See `Upstream.send`. A cancelled send may leave the mail delivered: a file is written in one go."""
        name = self._unique_name()
        outcome = await asyncio.to_thread(self._guarded, lambda: self._keep(name, _with_envelope(mail)))
        return dict.fromkeys(mail.recipients, outcome)

    async def probe(self) -> Outcome:
        """See `Upstream.probe`: a file can be written and taken away. It makes no folder: the doctor may look as root,
        and the relay could not write into a folder of root's.
        """
        return await asyncio.to_thread(self._guarded, lambda: self._try_out(self._unique_name()))

    async def close(self) -> None:
        """See `Upstream.close`. Nothing is held open."""

    def _unique_name(self) -> str:
        """A file name no other delivery uses: time, process, a counter, this machine (the Maildir convention)."""
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        return f"{seconds}.M{microseconds}P{os.getpid()}Q{next(self._counter)}.{self._suffix}"

    def _guarded(self, work: Callable[[], str]) -> Outcome:
        """What became of `work`, which returns the name of its file."""
        try:
            return Outcome(Word.SENT, f"written to {self._path}", Stage.CONTENT, upstream_id=work())
        except OSError as error:
            lasting = error.errno in _LASTING
            return Outcome(
                Word.CONFIG if lasting else Word.RETRY,
                f"cannot write to {self._path}: {error.strerror}",
                Stage.CONTENT,
                hint=_not_ours(self._path) if lasting else None,
            )

    def _keep(self, name: str, octets: bytes) -> str:
        for folder in _FOLDERS:
            (self._path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self._path / "tmp" / name, octets)
        try:
            os.rename(self._path / "tmp" / name, self._path / "new" / name)
        except OSError:
            (self._path / "tmp" / name).unlink(missing_ok=True)
            raise
        _sync_folder(self._path / "new")
        return name

    def _try_out(self, name: str) -> str:
        target = next(folder for folder in (self._path / "tmp" / name).parents if os.path.lexists(folder)) / name
        _write(target, b"")
        target.unlink()
        return name


def _write(target: Path, octets: bytes) -> None:
    try:
        with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            target.unlink()
        raise


def _not_ours(path: Path) -> Hint:
    return Hint(
        Who.US,
        f"{path} must be a folder that the relay's user may write to.",
        f"{path} moet een map zijn waarin de gebruiker van de relay mag schrijven.",
    )


def _with_envelope(mail: Outgoing) -> bytes:
    """The mail with its envelope on top, one X-Envelope-To for each recipient."""
    lines = [f"Return-Path: <{mail.sender}>", *(f"X-Envelope-To: {recipient}" for recipient in mail.recipients)]
    return b"".join(line.translate(_NO_BREAKS).encode() + b"\r\n" for line in lines) + mail.content


_NO_BREAKS: Final = {10: None, 13: None}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _build(name: str, settings: MaildirSettings, host: Host) -> Upstream:
    return Maildir(name, settings.path, host)


KIND: Final = Kind("maildir", MaildirSettings, _build)
