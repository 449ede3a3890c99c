"""One line per event: a name and fields on a standard log record; `ops` decides how a line looks.

Fields hold envelope data and verdicts. Content of a mail and secrets must never be handed in.
"""

from __future__ import annotations

import logging
import time
from typing import Final

_BLANK: Final = logging.LogRecord("", logging.INFO, "", 0, "", (), None).__dict__ | {
    "thread": None,
    "threadName": None,
    "taskName": None,
}
_NAMES: Final = {level: logging.getLevelName(level) for level in (logging.INFO, logging.WARNING, logging.ERROR)}


class EventRecord(logging.LogRecord):
    """A record of an event, without the look at thread, process and source file that `LogRecord` pays at each line."""

    fields: dict[str, object]

    def __init__(self, name: str, level: int, event: str, fields: dict[str, object]) -> None:
        """See `emit`; the fields that are None are left out already."""
        created = time.time()
        self.__dict__.update(_BLANK)
        self.name = name
        self.msg = event
        self.levelno = level
        self.levelname = _NAMES.get(level) or logging.getLevelName(level)
        self.created = created
        self.msecs = (created % 1) * 1000
        self.fields = fields

    def getMessage(self) -> str:
        """The event's name."""
        return str(self.msg)


def emit(log: logging.Logger, event: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log `event` with `fields`. The record carries them as `record.fields` (a dict); None values are left out."""
    if log.isEnabledFor(level):
        given = {key: value for key, value in fields.items() if value is not None}
        log.handle(EventRecord(log.name, level, event, given))
