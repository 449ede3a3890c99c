"""What the loop's thread hands to the thread that writes a spool, and what it is told. No engine here."""

from __future__ import annotations

import sqlite3
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

from spool.contract import Arrival
from spool.log_records import SettlementRecord
from spool.statements import Count

Answer = TypeVar("Answer")

BATCH_OCTETS: Final = 16 << 20
BATCH_MAILS: Final = 500
"""What one transaction takes, in octets of content and in mails."""
SETTLE_WITHIN: Final = 0.05
"""Seconds for which a settlement waits for new mail that it may ride with."""
SMALL_MAIL: Final = 1024
"""Octets; where not even this fits, the spool is full."""

Question = Callable[[sqlite3.Connection], Any]
Ask = Callable[[Question, Callable[[Any], Any]], Future[Any]]
"""Puts a question to the database; `then` is called with the answer on the loop."""


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    arrival: Arrival
    future: Future[None]


@dataclass(frozen=True, slots=True, eq=False)
class Settle:
    """`octets` is the size of the mail's content, which nobody need hold any more."""

    record: SettlementRecord
    future: Future[None]
    octets: int


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A question to the database; `then` is called with the answer on the loop, before any later commit is told.

    One that `grows` the file is refused like new mail when the disk is nearly full. One `about_mail` finds everything
    in the database that was kept before.
    """

    question: Question
    then: Callable[[Any], Any]
    future: Future[Any]
    grows: bool = False
    about_mail: bool = True


@dataclass(slots=True)
class Post:
    """What had come when the thread looked. `flushed`: settlements shall not wait for new mail. `last`: then end."""

    puts: list[Put] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    flushed: bool = False
    last: bool = False


class Inbox:
    """Filled by the loop's thread, emptied by the writer's. Nothing is overtaken."""

    def __init__(self) -> None:
        self._items: SimpleQueue[Put | Call | bool | None] = SimpleQueue()

    @property
    def empty(self) -> bool:
        return self._items.empty()

    def put(self, puts: Sequence[Put]) -> None:
        for put in puts:
            self._items.put(put)

    def call(self, call: Call) -> None:
        self._items.put(call)

    def flush(self) -> None:
        self._items.put(True)

    def stop(self) -> None:
        self._items.put(None)

    def gather(self, patience: float | None) -> Post:
        """All that has come, up to what one transaction takes. Waits for the first so many seconds, None: for ever."""
        post, octets = Post(), 0
        try:
            item = self._items.get(timeout=patience)
            while True:
                match item:
                    case Put():
                        post.puts.append(item)
                        octets += len(item.arrival.content)
                    case Call():
                        post.calls.append(item)
                    case None:
                        post.last = True
                        return post
                    case _:
                        post.flushed = True
                if len(post.puts) >= BATCH_MAILS or octets >= BATCH_OCTETS:
                    return post
                item = self._items.get_nowait()
        except Empty:
            return post


class FlushTimer:
    """Calls `flush` on the loop, once for all who ask meanwhile."""

    def __init__(self, loop: AbstractEventLoop, flush: Callable[[], None]) -> None:
        self._loop = loop
        self._flush = flush
        self._due = False

    def within(self, seconds: float) -> None:
        """So many seconds from now, or when it was asked for before."""
        if not self._due:
            self._due = True
            self._loop.call_later(seconds, self._now)

    def _now(self) -> None:
        self._due = False
        self._flush()


class Listener(Protocol):
    """Who is told on the loop, in the order in which things became true on disk."""

    def opened(self, count: Count) -> None:
        """The file was opened (again), or knows more than was told: this is what waits."""

    def kept(self, puts: Sequence[Put], settles: Sequence[Settle]) -> None:
        """These are on disk."""

    def refused(self, puts: Sequence[Put], error: Exception) -> None:
        """Nothing of these is on disk."""

    def unwritten(self, count: int) -> None:
        """So many settlements could not be written yet; that is tried again."""


def same(answer: Answer) -> Answer:
    """For who wants an answer as it is."""
    return answer


def disregard(future: Future[Any]) -> None:
    """For a write that may fail without harm: its error counts as seen, so that nobody warns of it."""
    if not future.cancelled():
        future.exception()


def succeed(call: Call, answer: Any) -> None:
    if not call.future.done():
        call.future.set_result(call.then(answer))


def fail(future: Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def end(settles: Sequence[Settle]) -> None:
    for settle in settles:
        if not settle.future.done():
            settle.future.set_result(None)
