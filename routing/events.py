"""One line per event: a name and fields on a standard log record; `ops` decides how a line looks.

Fields hold envelope data and verdicts. Content of a mail and secrets must never be handed in.
"""

from __future__ import annotations

import logging


def emit(log: logging.Logger, event: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log `event` with `fields`. The record carries them as `record.fields` (a dict); None values are left out."""
    if log.isEnabledFor(level):
        record = log.makeRecord(log.name, level, "", 0, event, (), None)
        record.fields = {key: value for key, value in fields.items() if value is not None}
        log.handle(record)
