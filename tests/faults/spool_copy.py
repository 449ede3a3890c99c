"""A spool's files copied as a crash left them, opened as the relay would, and looked through.

The copy alone is opened: whoever opens a SQLite file mends it, and that is for the relay to show.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from spool.contract import SpoolUnusable
from spool.sqlite import SqliteSpool

_WAITING = """
SELECT content.bytes, recipient.address FROM waiting
LEFT JOIN content ON content.mail = waiting.id
LEFT JOIN recipient ON recipient.mail = waiting.id AND recipient.state = 'waiting'"""
_ORPHANS = "SELECT count(*) FROM content WHERE mail NOT IN (SELECT id FROM waiting)"


@dataclass(frozen=True, slots=True)
class Left:
    """What a crash left: (content, recipient) of all that waits, and what is wrong with the file."""

    waiting: tuple[tuple[bytes, str], ...]
    damage: tuple[str, ...]


@contextmanager
def copy_of(file: Path) -> Iterator[Path]:
    """A copy of a spool that no process has open, with its logs, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (file.name, f"{file.name}-wal", f"{file.name}-intake"):
            if (file.parent / name).exists():
                shutil.copy(file.parent / name, folder)
        yield Path(folder) / file.name


def left_in(file: Path) -> Left:
    """Open a spool as the relay does, and look at all of it. In a thread: it runs an event loop of its own."""
    try:
        asyncio.run(_open(file))
    except SpoolUnusable as refused:
        return Left((), (f"the spool does not open: {refused}",))
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute(_WAITING).fetchall()
        (orphans,) = connection.execute(_ORPHANS).fetchone()
        damage = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    damage += [f"{orphans} contents without a mail that waits"] if orphans else []
    damage += ["a mail waits without content, or for nobody"] if any(None in row for row in rows) else []
    return Left(tuple((content, address) for content, address in rows if None not in (content, address)), tuple(damage))


async def _open(file: Path) -> None:
    spool = await SqliteSpool.open(f"sqlite:///{file}", size_limit=1 << 40, reserve=0)
    await spool.close()
