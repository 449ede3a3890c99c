"""The SQLite file of a relay whose database is away: it keeps new mail, and gives it back in the order of arrival.

Nothing is delivered from here. A mail leaves only when it is in the database.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from spool import schema, statements
from spool.contract import Arrival, Leased
from spool.ids import Numbers, next_moment
from spool.sqlite import SqliteSpool
from spool.statements import Unreadable
from spool.view import Filter

_CHANCE_BITS: Final = 20
_OLDEST: Final = "SELECT waiting.id, mail.size FROM waiting JOIN mail USING (id) ORDER BY waiting.id LIMIT ?"
_ABOUT: Final = "SELECT peer, helo, repairs FROM mail WHERE id = ?"
_NOTE: Final = "it is in the database"


class Buffer:
    """Made by `open`. `mails` is how many wait, `path` where."""

    def __init__(self, spool: SqliteSpool, path: Path, mails: int, clock: Callable[[], float]) -> None:
        self.path = path
        self.mails = mails
        self._spool = spool
        self._clock = clock
        self._numbers = Numbers(clock, _apart, run=_CHANCE_BITS)
        self._numbers.skip_to(next_moment(spool.next_id()) - 1)

    @classmethod
    async def open(cls, path: Path, size_limit: int, clock: Callable[[], float]) -> Buffer:
        """`size_limit` in octets. Raises SpoolUnusable with what to do."""
        spool = await SqliteSpool.open(str(path), size_limit=size_limit, memory=0, clock=clock)
        waiting = await spool.backlog()
        return cls(spool, path, sum(one.waiting for one in waiting.values()), clock)

    @property
    def spool(self) -> SqliteSpool:
        """What is here, by the contract."""
        return self._spool

    def next_id(self) -> int:
        """A number that no node of the database makes. Two relays without the database may make the same, once in a
        million mails of one millisecond; that shows when the mail gets there.
        """
        return self._numbers.next()

    async def put(self, arrival: Arrival) -> None:
        """As `Spool.put`. What was begun is counted when it is there, also when nobody waits for it any more."""
        await asyncio.shield(self._keep(arrival))

    async def _keep(self, arrival: Arrival) -> None:
        await self._spool.put(arrival)
        self.mails += 1

    async def oldest(self, mails: int, octets: int, but: Collection[int]) -> Sequence[Arrival | Unreadable]:
        """The mails that came first, `but` for these: at most so many, and so many octets unless one is larger."""
        await self._spool.shown()
        return await asyncio.to_thread(_oldest, self.path, mails, octets, but)

    async def forget(self, ids: Sequence[int]) -> None:
        """These are in the database."""
        if not ids:  # a filter without ids stands for all mail
            return
        gone = await self._spool.drop(Filter(ids=tuple(ids)), _NOTE, self._clock())
        self.mails -= gone.done

    async def tidy(self) -> None:
        """Their history is in the database too."""
        await self._spool.prune(self._clock() + 60)


def _apart(bits: int) -> int:
    """A node's number has a zero here, in front of its slot."""
    return 1 << bits | random.SystemRandom().getrandbits(bits)


def _oldest(path: Path, mails: int, octets: int, but: Collection[int]) -> list[Arrival | Unreadable]:
    with closing(schema.connect_for_reading(path)) as connection:
        rows = [row for row in connection.execute(_OLDEST, (mails + len(but),)) if row[0] not in but][:mails]
        ids: list[int] = []
        room = octets
        for number, size in rows:
            if ids and size > room:
                break
            ids.append(number)
            room -= size
        loaded = statements.load(connection, ids)
        return [mail if isinstance(mail, Unreadable) else _arrival(connection, mail) for mail in loaded]


def _arrival(connection: sqlite3.Connection, mail: Leased) -> Arrival:
    peer, helo, repairs = connection.execute(_ABOUT, (mail.id,)).fetchone()
    return Arrival(
        id=mail.id,
        sender=mail.sender,
        recipients=tuple(recipient.address for recipient in mail.recipients),
        content=mail.content,
        route=mail.route,
        received_at=mail.received_at,
        peer=peer,
        helo=helo,
        repairs=tuple(repairs.split("\n")) if repairs else (),
    )
