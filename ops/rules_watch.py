"""Looks at the files of the rules now and then, and asks for a reload when they changed and are quiet again.

Looks at names, times, sizes and modes only. Must never ask twice for the same files: rules that were refused stay so
until somebody mends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from config.loading import ROUTES_FILE, ROUTES_FOLDER

Look = frozenset[tuple[str, int, int, int]]


def look(folder: Path) -> Look:
    """The rule files below `folder` as they are now: name, time, size and inode of each, and who may use the folders.
    The time is that of the inode: what mends a refusal may be a chmod alone. What cannot be looked at is left out, so
    it never raises.
    """
    files = [folder / ROUTES_FILE]
    with suppress(OSError):
        files += (file for file in (folder / ROUTES_FOLDER).iterdir() if file.suffix == ".yaml")
    seen = set()
    for file in files:
        with suppress(OSError):
            told = file.stat()
            seen.add((str(file), told.st_ctime_ns, told.st_size, told.st_ino))
    for each in (folder, folder / ROUTES_FOLDER):
        with suppress(OSError):
            told = each.stat()
            seen.add((str(each), told.st_mode, told.st_uid, told.st_gid))
    return frozenset(seen)


class Watcher:
    """What to make of one look after another; the first is of the files that are in force. Pure."""

    def __init__(self, first: Look) -> None:
        self._known = self._before = first

    def changed(self, now: Look) -> bool:
        """True once for new files, when two looks in a row agree: an editor or a copy may still be writing."""
        quiet, self._before = now == self._before, now
        if not quiet or now == self._known:
            return False
        self._known = now
        return True


async def watch(folder: Path, first: Look, every: float, ask: Callable[[], None]) -> None:
    """Look every so many seconds, until it is cancelled. `first` was taken before the rules in force were read."""
    watcher = Watcher(first)
    while True:
        await asyncio.sleep(every)
        if watcher.changed(await asyncio.to_thread(look, folder)):
            ask()
