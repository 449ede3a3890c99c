"""What lies in the local buffer of this machine while the database is away, for people who look.

Reads the file beside a running relay. Must never fail where the buffer cannot be read: it says so.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from config.relay_settings import SpoolSettings
from ops.own_files import buffer_files
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
    """What lies in the buffers of all workers of this machine. None where there is no buffer, or was none yet."""
    found = [_look_into(file) for file in _files(settings).values()]
    if not found:
        return None
    first = min(found, key=lambda one: inf if one.oldest is None else one.oldest)
    wrong = next((one.wrong for one in found if one.wrong is not None), None)
    return InBuffer(first.file, sum(one.mails for one in found), first.oldest, wrong)


def story_in_buffer(settings: SpoolSettings, number: int) -> Story | None:
    """The story of a mail that waits there."""
    for file in _files(settings).values():
        try:
            with closing(open_for_reading(str(file))) as view:
                story = view.show(number)
        except SpoolUnusable:
            continue
        if story is not None and story.mail.due_at is not None:
            return story
    return None


def tell_left(settings: SpoolSettings, workers: int) -> None:
    """A log line about mail in a buffer that nobody of this relay has open: nobody would ever send it."""
    if not is_shared(settings.url):
        return
    for worker, file in _files(replace(settings, buffer=settings.buffer or "sqlite")).items():
        left = _look_into(file) if settings.buffer is None or worker > workers else None
        if left is not None and left.mails:
            again = f"`workers: {worker}`" if settings.buffer else "`buffer: sqlite` under `spool:`"
            do = f"write {again} again and restart, or move it with `callpro-relay spool move`"
            emit(_log, "spool.buffer_left", logging.ERROR, mails=left.mails, file=str(file), do=do)


def _look_into(file: Path) -> InBuffer:
    try:
        with closing(open_for_reading(str(file))) as view:
            first = view.list(Filter(), 1)
            return InBuffer(file, view.count(Filter()), first[0].received_at if first else None)
    except SpoolUnusable as error:
        return InBuffer(file, 0, wrong=str(error))


def _files(settings: SpoolSettings) -> dict[int, Path]:
    if settings.buffer is None or not is_shared(settings.url):
        return {}
    try:
        return buffer_files(settings.buffer)
    except OSError:
        return {}  # a folder that this user may not look into; the relay's own log tells
