"""What the nodes on a PostgreSQL spool tell one another beside mail, and how each hears of it.

All questions go through one thread, so that no answer is older than the one before. What cannot be written while the
database is away is written with the next sign of life, or is void by then.
"""

from __future__ import annotations

import json
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from psycopg import Connection

from spool import postgres_slots as slots
from spool import postgres_troubles as troubles
from spool.cluster import TRIAL_LASTS, Closed, ClosedNow, Cluster, Ears, News, WayKey, trial_of
from spool.inbox import disregard, same
from spool.postgres_node import Identity, tell
from spool.postgres_worker import Asker

Answer = TypeVar("Answer")

TROUBLES: Final = "troubles"
"""The word by which nodes tell that `News` has changed."""
_WANTED: Final = "wanted "
_FREED: Final = "freed "
_WORKS: Final = "works "


class PostgresCluster(Cluster):
    """`asker` is a thread for short questions."""

    def __init__(self, asker: Asker, identity: Identity, loop: AbstractEventLoop) -> None:
        self._asker = asker
        self._identity = identity
        self._loop = loop
        self._ears: Ears | None = None
        self._looking = self._look_again = False
        self._to_give: dict[str, int] = {}
        self._salt = b""

    def listen(self, ears: Ears) -> None:
        self._ears = ears

    async def take(self, limit: str, size: int, wanted: int) -> int:
        def question(connection: Connection, node: int) -> slots.Taken:
            taken = slots.take(connection, node, limit, size, wanted)
            if not taken.count and taken.short:
                tell(connection, node, [f"{_WANTED}{taken.part} {limit}"])
            return taken

        taken = await self._ask(question)
        if taken.count and taken.line and self._ears is not None:
            self._loop.call_soon(self._ears.wanted, limit, taken.part)  # they said so before these were ours
        return taken.count

    def give_back(self, limit: str, count: int) -> None:
        self._to_give[limit] = self._to_give.get(limit, 0) + count
        self._write_given(limit)

    def claim(self, limit: str, count: int) -> None:
        self._say(partial(slots.claim, name=limit, count=count))

    async def attempt(self, route: str, upstream: str) -> tuple[bool, tuple[ClosedNow, ...]]:
        def question(connection: Connection, node: int) -> tuple[bool, tuple[ClosedNow, ...]]:
            taken = slots.take(connection, node, trial_of(route, upstream), 1, 1, TRIAL_LASTS)
            return taken.count > 0, troubles.of_way(connection, node, route, upstream)

        return await self._ask(question)

    async def close(self, closed: Closed) -> ClosedNow:
        return await self._ask(_told(partial(troubles.close, closed=closed)))

    async def open(self, key: WayKey, *, works: bool) -> None:
        def question(connection: Connection, node: int) -> None:
            tell(connection, node, [f"{_WORKS}{json.dumps(asdict(key))}"] if works else [])
            troubles.open_way(connection, key)

        await self._ask(_told(question))

    async def open_route(self, route: str) -> tuple[Closed, ...]:
        return await self._ask(_told(lambda connection, _: troubles.open_route(connection, route)))

    async def adopt(self, key: WayKey) -> bool:
        return await self._ask(partial(troubles.adopt, key=key))

    def probed(self, key: WayKey, failures: int, next_probe: float) -> None:
        self._say(_told(partial(troubles.probed, key=key, failures=failures, next_probe=next_probe)))

    def leave(self, key: WayKey) -> None:
        self._say(_told(partial(troubles.leave, key=key)))

    def silent(self, place: str, since: float, reply: str, asked_at: float) -> None:
        self._say(_told(partial(troubles.silent, place=place, since=since, reply=reply, asked_at=asked_at)))

    def answered(self, place: str) -> None:
        self._say(_told(partial(troubles.answered, place=place)))

    async def look(self) -> News:
        return await self._ask(troubles.news)

    async def salt(self) -> bytes:
        self._salt = self._salt or await self._ask(lambda connection, _: troubles.salt(connection))
        return self._salt

    # ---- what the spool hears ----------------------------------------------------------------------------------

    def beat(self, reborn: bool) -> None:
        """After each sign of life."""
        if self._ears is None:
            return
        if reborn:
            self._to_give.clear()
            self._ears.reborn()
        for limit in tuple(self._to_give):
            self._write_given(limit)
        self._look()

    def heard(self, words: Sequence[str]) -> None:
        """What other nodes said."""
        ears = self._ears
        if ears is None:
            return
        for word in words:
            if word == TROUBLES:
                self._look()
            elif word.startswith(_WANTED):
                part, _, limit = word.removeprefix(_WANTED).partition(" ")
                ears.wanted(limit, int(part))
            elif word.startswith(_FREED):
                ears.freed(word.removeprefix(_FREED))
            elif word.startswith(_WORKS):
                ears.works(WayKey(**json.loads(word.removeprefix(_WORKS))))

    # ---- inside ------------------------------------------------------------------------------------------------

    def _ask(self, question: Callable[[Connection, int], Answer]) -> Future[Answer]:
        """The node is the one that this process is when it is asked."""
        return self._asker.ask(lambda connection: question(connection, self._identity.node), same)

    def _say(self, statement: Callable[[Connection, int], object]) -> None:
        # What cannot be written now is said again after the next news, or has no meaning any more.
        self._ask(statement).add_done_callback(disregard)

    def _write_given(self, limit: str) -> None:
        count = self._to_give.pop(limit, 0)

        def statement(connection: Connection, node: int) -> None:
            if slots.give_back(connection, node, limit, count):
                tell(connection, node, [f"{_FREED}{limit}"])

        def written(future: Future[Any]) -> None:
            if not future.cancelled() and future.exception() is not None:
                self._to_give[limit] = self._to_give.get(limit, 0) + count

        if count:
            self._ask(statement).add_done_callback(written)

    def _look(self) -> None:
        """Read the news; one look at a time."""
        if self._looking:
            self._look_again = True
            return
        self._looking, self._look_again = True, False
        self._ask(troubles.news).add_done_callback(self._seen)

    def _seen(self, future: Future[News]) -> None:
        self._looking = False
        if not future.cancelled() and future.exception() is None and self._ears is not None:
            self._ears.news(future.result())
        if self._look_again:
            self._look()


def _told(question: Callable[[Connection, int], Answer]) -> Callable[[Connection, int], Answer]:
    """The same, and the others hear that something has changed."""

    def telling(connection: Connection, node: int) -> Answer:
        tell(connection, node, [TROUBLES])
        return question(connection, node)

    return telling
