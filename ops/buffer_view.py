"""What lies in the local buffer of this machine while the database is away, for people who look.

Reads the file beside a running relay. Must never fail where the buffer cannot be read: it says so.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from config.relay_settings import SpoolSettings
from ops.own_files import buffer_file
from ops.queue_view import age_text
from routing.events import emit
from spool.contract import SpoolUnusable
from spool.opening import is_shared, open_for_reading
from spool.view import Filter, Story

_log = logging.getLogger("relay")


@dataclass(frozen=True, slots=True)
class InBuffer:
    """So many `mails` wait in `file`, the `oldest` since then (unix seconds); `wrong` when nobody can tell."""

    file: Path
    mails: int
    oldest: float | None = None
    wrong: str | None = None

    def text(self, now: float) -> str:
        """A line for a terminal; "" when there is nothing to say."""
        if self.wrong is not None:
            return f"The buffer of this machine cannot be read: {self.wrong}\n"
        if self.oldest is None:
            return ""
        mails = "1 mail waits" if self.mails == 1 else f"{self.mails} mails wait"
        return (
            f"{mails} in the buffer of this machine ({self.file}) until the database takes mail again, the oldest for "
            f"{age_text(now - self.oldest)}.\n"
        )


def in_buffer(settings: SpoolSettings) -> InBuffer | None:
    """None where there is no buffer, or was none yet."""
    file = _file(settings)
    if file is None:
        return None
    try:
        with closing(open_for_reading(str(file))) as view:
            first = view.list(Filter(), 1)
            return InBuffer(file, view.count(Filter()), first[0].received_at if first else None)
    except SpoolUnusable as error:
        return InBuffer(file, 0, wrong=str(error))


def story_in_buffer(settings: SpoolSettings, number: int) -> Story | None:
    """The story of a mail that waits there."""
    file = _file(settings)
    if file is None:
        return None
    try:
        with closing(open_for_reading(str(file))) as view:
            story = view.show(number)
    except SpoolUnusable:
        return None
    return story if story is not None and story.mail.due_at is not None else None


def tell_left(settings: SpoolSettings) -> None:
    """A log line about mail in a buffer that the config names no more: nobody would ever send it."""
    if settings.buffer is None and is_shared(settings.url):
        left = in_buffer(SpoolSettings(url=settings.url, buffer="sqlite"))
        if left is not None and left.mails:
            do = "write `buffer: sqlite` under `spool:` again and restart, or move it with `callpro-relay spool move`"
            emit(_log, "spool.buffer_left", logging.ERROR, mails=left.mails, file=str(left.file), do=do)


def _file(settings: SpoolSettings) -> Path | None:
    if settings.buffer is None or not is_shared(settings.url):
        return None
    file = buffer_file(settings.buffer)
    try:
        return file if file.exists() else None
    except OSError:
        return None  # a folder that this user may not look into; the relay's own log tells
