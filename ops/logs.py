"""How a line of the log looks: one line per event, `event key=value ...` for people, or JSON.

Under systemd a line carries its priority and leaves the time to the journal. A value must never break a line in two,
nor a reader that stands still stop the relay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import select
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from itertools import chain
from threading import get_ident
from typing import Final, TextIO

from routing.events import EventRecord

_PLAIN: Final = re.compile(r"[^\s\"=\\\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_QUOTING: Final = json.JSONEncoder(ensure_ascii=False)
_AS_JSON: Final = json.JSONEncoder(default=str)
_GATHER_SECONDS: Final = 0.02
"""How long a line of the event loop may wait for others: one write for all. Spool and peers wait longer for a disk."""
_AGAIN_SECONDS: Final = 0.25
"""How often a stream that takes nothing is asked again."""
_MOST_WAITING: Final = 1 << 20
"""Characters that may wait for such a stream. What comes beyond is counted, and lost."""
_LAST_SECONDS: Final = 1.0
"""How long the end of the process waits for it."""
_WIDEST: Final = 6
"""Octets of a character: of UTF-8, or a lone surrogate that standard error writes as `\\udcff`."""
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def set_up(style: str, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Send every record to `stream` (standard error by default). `style` is `text` or `json`. A `worker` of several
    says its number in each line, and lets no other's line into the middle of one.
    """
    handler = GatheringHandler(stream or sys.stderr, shared=worker is not None)
    journal = _is_journal(handler.stream)
    make = JsonLines if style == "json" else TextLines
    handler.setFormatter(make(journal=journal, worker=worker))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # Libraries report what our own events already say, and httpx would print URLs with mailboxes in them.
    for name in ("httpx", "httpcore", "msal", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mail.log").setLevel(logging.ERROR)


class GatheringHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of a moment at once. A warning or worse, and a line from outside the event loop, waits for
    nothing and takes along what waited. `logging.shutdown` at the end of the process writes the rest. A `shared` stream
    is one that other processes write to as well.

    A pipe, a socket or a terminal is written to only while it takes something: who reads it may hang, or be suspended.
    """

    def __init__(self, stream: TextIO, *, shared: bool = False) -> None:
        super().__init__(stream)
        self._room = _room_of(stream)
        self._in_parts = shared or self._room is not None
        self._lines: list[str] = []
        self._waiting = 0
        self._lost = 0
        self._due_on: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._waiting > _MOST_WAITING:
                self.flush()
            if self._waiting > _MOST_WAITING:
                self._lost += 1
            else:
                line = self.format(record) + "\n"
                self._lines.append(line)
                self._waiting += len(line)
            if record.levelno >= logging.WARNING or not self._comes_back():
                self.flush()
        except Exception:  # as for any line: the relay carries mail, whatever becomes of its log
            self.handleError(record)

    def _comes_back(self) -> bool:
        """Whether the loop that runs in this thread will write what waits."""
        if self._due_on is not None and self._thread == get_ident() and self._due_on.is_running():
            return True  # to ask for the running loop is a call of the system in Python 3.11
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._due_on is not loop:
            self._write_on(loop, _GATHER_SECONDS)
        return True

    def _write_on(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        loop.call_later(seconds, self._flush_when_due, loop)
        self._due_on, self._thread = loop, get_ident()

    def _flush_when_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_on = None
        try:
            self.flush()
        except (OSError, ValueError):
            self.handleError(logging.makeLogRecord({"msg": "log lines could not be written"}))
        if self._lines:
            self._write_on(loop, _AGAIN_SECONDS)

    def flush(self) -> None:
        """Write what waits, as far as the stream takes it."""
        with self.lock or nullcontext():
            if not self._takes():
                return
            lines, self._lines, self._waiting = self._lines, [], 0
            parts = list(_parts(lines)) if self._in_parts else ["".join(lines)] if lines else []
            for number, part in enumerate(parts):
                if number and not self._takes():
                    self._lines = parts[number:]
                    self._waiting = sum(map(len, self._lines))
                    return
                self._write(part)
            if self._lost and self._takes():
                lost, self._lost = {"lines": self._lost, "why": "nobody read them"}, 0
                self._write(self.format(EventRecord("relay.log", logging.ERROR, "log_lines_lost", lost)) + "\n")

    def close(self) -> None:
        """Write what waits, if the stream takes it within a second."""
        until = time.monotonic() + _LAST_SECONDS
        while self._lines and (left := until - time.monotonic()) > 0:
            self._takes(left)
            self.flush()
        super().close()

    def _takes(self, seconds: float = 0.0) -> bool:
        """Whether a part can be written without waiting, or within so many seconds; also when it will fail."""
        return self._room is None or bool(self._room.poll(seconds * 1000))

    def _write(self, text: str) -> None:
        self.stream.write(text)
        super().flush()


def _room_of(stream: TextIO) -> select.poll | None:
    """Asks whether there is room for PIPE_BUF octets; None for a stream whose writes nobody can hold up."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(os.fstat(number).st_mode):
        return None
    room = select.poll()
    room.register(number, select.POLLOUT)
    return room


def _parts(lines: list[str]) -> Iterator[str]:
    """Whole lines together, as far as the system writes them in one piece, and at once where it says that there is room
    (pipe(7), PIPE_BUF). A longer one is cut.
    """
    part, octets = "", 0
    for piece in chain.from_iterable(map(_pieces, lines)):
        size = _octets(piece)
        if part and octets + size > select.PIPE_BUF:
            yield part
            part, octets = "", 0
        part, octets = part + piece, octets + size
    if part:
        yield part


def _pieces(line: str) -> Sequence[str]:
    """It, or pieces of it that are short enough whatever their characters are."""
    if len(line) * _WIDEST <= select.PIPE_BUF or _octets(line) <= select.PIPE_BUF:
        return (line,)
    step = select.PIPE_BUF // _WIDEST
    return [line[at : at + step] for at in range(0, len(line), step)]


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))


def _is_journal(stream: TextIO) -> bool:
    """True when the journal reads `stream` itself (systemd.exec(5), $JOURNAL_STREAM), and not a file or a pipe that
    somebody put in its place.
    """
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def _prioritised(record: logging.LogRecord, text: str) -> str:
    """Each line with its priority as the journal takes it (sd-daemon(3)): `<4>held ...`."""
    priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class TextLines(logging.Formatter):
    """`2026-11-22T03:04:05+01:00 WARNING held route=acme.nl reply="535 5.7.8 no"`; in the journal `<4>held ...`."""

    def __init__(self, *, journal: bool, worker: int | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._who = "" if worker is None else f" worker={worker}"
        self._second = -1
        self._stamp = ""

    def format(self, record: logging.LogRecord) -> str:
        text = _line(record) + self._who
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journal:
            return _prioritised(record, text)
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{self._time(record.created)} {level}{text}"

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:  # made once a second: strftime costs more than the rest of a line
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
            self._second = second
        return self._stamp


class JsonLines(logging.Formatter):
    """One JSON object a line: `time` (unix seconds), `level`, `room`, `event` and the event's fields. In the journal
    the priority stands before it, which the journal takes off again.
    """

    def __init__(self, *, journal: bool = False, worker: int | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._who = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "room": record.name,
            "event": record.getMessage(),
            **self._who,
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        text = _AS_JSON.encode(line)  # ASCII: no character in it can end a line
        return _prioritised(record, text) if self._journal else text


def _line(record: logging.LogRecord) -> str:
    fields: dict[str, object] | None = getattr(record, "fields", None)
    if not fields:
        return _one_line(record.getMessage())
    return record.getMessage() + "".join([f" {key}={_value(value)}" for key, value in fields.items()])


def _value(value: object) -> str:
    if type(value) is int:
        return str(value)
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return _text(",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value))


@lru_cache(512)  # routes, upstreams, senders and replies come again and again
def _text(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _QUOTING.encode(_one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split()) if text.isprintable() else " ".join(_visible(text).split())


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() or character.isspace() else "\ufffd" for character in text)
