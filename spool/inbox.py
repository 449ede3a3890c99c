"""What the loop's thread hands to the thread that writes a spool, and what it is told. No engine here."""

from __future__ import annotations

import sqlite3
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from spool.contract import Arrival, Settlement
from spool.statements import Count

Question = Callable[[sqlite3.Connection], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    arrival: Arrival
    future: Future[None]


@dataclass(frozen=True, slots=True, eq=False)
class Settle:
    """`octets` is the size of the mail's content, which a final settlement need not hold any more."""

    settlement: Settlement
    future: Future[None]
    octets: int = 0


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


def succeed(call: Call, answer: Any) -> None:
    if not call.future.done():
        call.future.set_result(call.then(answer))


def fail(future: Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
