"""Looks at the files of the rules now and then, and asks for a reload when they changed and are quiet again.

Looks at names, times and sizes only. Must never ask twice for the same files: rules that were refused stay so until
somebody mends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from config.loading import ROUTES_FILE, ROUTES_FOLDER

Look = frozenset[tuple[str, int, int, int]]


def look(folder: Path) -> Look:
    """The rule files below `folder` as they are now: name, time, size and inode of each."""
    files = [folder / ROUTES_FILE, *(folder / ROUTES_FOLDER).glob("*.yaml")]
    seen = set()
    for file in files:
        try:
            told = file.stat()
        except OSError:
            continue
        seen.add((str(file), told.st_mtime_ns, told.st_size, told.st_ino))
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
