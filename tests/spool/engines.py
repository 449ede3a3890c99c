"""The engines that the behaviour suite runs over, and the mails it sends through them."""

from __future__ import annotations

import asyncio
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from routing.outcome import Hint, Outcome, Stage, Who, Word
from spool.contract import Arrival, Attempt, Leased, Settled, Settlement, Spool
from spool.inbox import Call
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import SpoolView

SENT = Outcome(Word.SENT, "250 2.0.0 Ok: queued as 4XyZ", Stage.CONTENT, 250, "2.0.0", upstream_id="4XyZ")
RETRY = Outcome(Word.RETRY, "451 4.7.1 Even geduld: één ogenblik", Stage.RECIPIENT, 451, "4.7.1")
REJECT = Outcome(
    Word.REJECT,
    "550 5.1.1 no such user",
    Stage.RECIPIENT,
    550,
    "5.1.1",
    hint=Hint(Who.CALLPRO, "Ask for the address.", "Vraag het adres."),
)


@dataclass
class Clock:
    """A clock that a test sets by hand."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Engine(ABC):
    """Opens the same store again and again."""

    clock: Clock

    @abstractmethod
    def spool(self, size_limit: int = 1 << 30, memory: int = 1 << 20) -> AbstractAsyncContextManager[Spool]:
        """The store, opened."""

    @abstractmethod
    def view(self) -> AbstractContextManager[SpoolView]:
        """For reading, beside it."""

    def run(self, test: Callable[[Spool], Coroutine[Any, Any, None]], **options: int) -> None:
        async def opened() -> None:
            async with self.spool(**options) as spool:
                await test(spool)

        asyncio.run(opened())


@dataclass
class Sqlite(Engine):
    folder: Path
    clock: Clock = field(default_factory=Clock)
    spool_open: SqliteSpool | None = None

    @property
    def file(self) -> Path:
        return self.folder / "spool.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    @asynccontextmanager
    async def spool(self, size_limit: int = 1 << 30, memory: int = 1 << 20) -> AsyncIterator[Spool]:
        spool = self.spool_open = await SqliteSpool.open(
            self.url, size_limit=size_limit, memory=memory, clock=self.clock
        )
        try:
            yield spool
        finally:
            self.spool_open = None
            await spool.close()

    def view(self) -> AbstractContextManager[SpoolView]:
        """Without the moment that a spool lets people wait for what it has just kept."""
        if self.spool_open is not None:
            seen = threading.Event()
            loop = asyncio.get_running_loop()
            self.spool_open._writer.call(Call(lambda _: seen.set(), lambda _: None, loop.create_future()))
            assert seen.wait(60)
        return closing(SqliteView(self.url))


@dataclass
class Postgres(Engine):
    """`url` is a database of its own."""

    url: str
    clock: Clock = field(default_factory=Clock)
    lease: float = 30.0

    @asynccontextmanager
    async def spool(self, size_limit: int = 1 << 30, memory: int = 1 << 20) -> AsyncIterator[Spool]:
        from spool.postgres import PostgresSpool

        spool = await PostgresSpool.open(
            self.url, size_limit=size_limit, memory=memory, lease=self.lease, clock=self.clock
        )
        try:
            yield spool
        finally:
            await spool.close()

    def view(self) -> AbstractContextManager[SpoolView]:
        from spool.postgres_view import PostgresView

        return closing(PostgresView(self.url))


@dataclass
class Buffered(Postgres):
    """The same, with a buffer in `folder` in front of it. `port` is where the database is reached, when it is another
    one than the url's.
    """

    folder: Path = Path()
    port: int | None = None

    @property
    def file(self) -> Path:
        return self.folder / "buffer.db"

    @asynccontextmanager
    async def spool(self, size_limit: int = 1 << 30, memory: int = 1 << 20) -> AsyncIterator[Spool]:
        from spool.buffered import BufferedSpool
        from spool.postgres import PostgresSpool

        url = self.url if self.port is None else re.sub(r":\d+/", f":{self.port}/", self.url)
        connect = partial(
            PostgresSpool.open, url, size_limit=size_limit, memory=memory, lease=self.lease, clock=self.clock
        )
        spool = await BufferedSpool.open(connect, self.file, size_limit=size_limit, clock=self.clock)
        try:
            yield spool
        finally:
            await spool.close()


ENGINES = ("sqlite", "postgresql", "buffered")


def arrival(spool: Spool, clock: Clock, **changes: Any) -> Arrival:
    """A mail of acme.nl that came now."""
    content = b"From: info@acme.nl\r\nMessage-ID: <1@acme.nl>\r\n\r\nDag Zo\xc3\xab\r\n"
    fields: dict[str, Any] = {
        "id": spool.next_id(),
        "sender": "info@acme.nl",
        "recipients": ("jan@example.org",),
        "content": content,
        "route": "acme.nl",
        "received_at": clock.now,
        "peer": "127.0.0.1",
        "helo": "callpro",
    }
    return Arrival(**{**fields, **changes})


def settlement(mail: Leased, outcome: Outcome = SENT, due_at: float | None = None, **changes: Any) -> Settlement:
    """Every recipient had `outcome` at one attempt: all done, or all waiting until `due_at`."""
    results = {recipient.address: outcome for recipient in mail.recipients}
    done = dict.fromkeys(results, Settled.DELIVERED) if due_at is None else {}
    attempts = (Attempt("acme-login", mail.received_at + 1, 0.25, results),)
    return Settlement(**{"mail": mail, "done": done, "attempts": attempts, "due_at": due_at, **changes})


async def nothing(spool: Spool) -> None:
    """Open and close."""


async def put_all(spool: Spool, arrivals: Sequence[Arrival]) -> None:
    await asyncio.gather(*(spool.put(arrival) for arrival in arrivals))
