"""Many rows in few statements.

Every step of a statement gives up the interpreter's lock and must win it back from a busy event loop: a row each, as
`executemany` does, costs a sixth more processor time in batches of eight and up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

_COUNTS = (64, 32, *range(16, 0, -1))


class Rows:
    """A statement that takes rows of `width` values in the place of its `{rows}`.

    Up to 16 rows are one statement, more go in parts of 64, 32 and the rest, so that few statements are prepared and
    all of them stay prepared.
    """

    def __init__(self, statement: str, width: int) -> None:
        row = f"({', '.join('?' * width)})"
        self._texts = [(count, statement.replace("{rows}", ", ".join([row] * count))) for count in _COUNTS]

    def write(self, connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
        start, left = 0, len(rows)
        for count, text in self._texts:
            while left >= count:
                connection.execute(text, [value for row in rows[start : start + count] for value in row])
                start, left = start + count, left - count
            if not left:
                return
