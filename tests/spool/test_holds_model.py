"""Whatever is held and released in whatever order: held mail is never leased, and in the end all of it leaves."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from spool.contract import id_text
from spool.holding import Hold, Scope, keys_of
from spool.view import Filter
from tests.spool.engines import RETRY, Sqlite, arrival, settlement

SENDERS = ("info@acme.nl", "post@acme.nl", "info@globex.nl")
ROUTES = ("a.nl", "b.nl")


class Story:
    """One course of events; `waiting` are the mails that are not settled."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.engine = Sqlite(folder)
        self.random = random.Random(seed)
        self.waiting: set[int] = set()
        self.memory = self.random.choice((0, 1 << 20))

    async def act(self, spool) -> None:
        for _ in range(40):
            await self.random.choice((self.put, self.put, self.lease, self.lease, self.hold, self.release, self.hurry))(
                spool
            )
            self.engine.clock.now += self.random.choice((0, 1, 30))

    async def put(self, spool) -> None:
        mail = arrival(spool, self.engine.clock, sender=self.random.choice(SENDERS), route=self.random.choice(ROUTES))
        await spool.put(mail)
        self.waiting.add(mail.id)

    async def lease(self, spool) -> None:
        leasing = asyncio.ensure_future(
            spool.lease(self.random.choice(ROUTES), self.random.randint(1, 5), self.engine.clock.now)
        )
        if self.random.random() < 0.3:
            await self.hold(spool)  # at any moment of the lease
        for mail in await leasing:
            held = [hold for hold in spool.held.all() if hold.key in keys_of(id_text(mail.id), mail.route, mail.sender)]
            assert all(hold.since == self.engine.clock.now for hold in held)  # made after the lease, if at all
            if self.random.random() < 0.5:
                self.waiting.discard(mail.id)
                await spool.settle(settlement(mail))
            else:
                await spool.settle(settlement(mail, RETRY, self.engine.clock.now + self.random.choice((1, 60))))

    def key(self):
        scope = self.random.choice(tuple(Scope))
        if scope is Scope.MAIL:
            return scope, id_text(self.random.choice(sorted(self.waiting) or [1]))
        return scope, self.random.choice(("@acme.nl", *SENDERS) if scope is Scope.SENDER else ROUTES)

    async def hold(self, spool) -> None:
        await spool.hold(Hold(*self.key(), self.engine.clock.now, "jan", ""))

    async def release(self, spool) -> None:
        held = spool.held.all()
        if held:
            await spool.release(self.random.choice(held).key, self.engine.clock.now)

    async def hurry(self, spool) -> None:
        await spool.hurry(Filter(route=self.random.choice(ROUTES)), None, self.engine.clock.now)

    async def end(self, spool) -> None:
        for hold in spool.held.all():
            await spool.release(hold.key, self.engine.clock.now)
        self.engine.clock.now += 3600
        left = set()
        for route in ROUTES:
            while mails := await spool.lease(route, 10, self.engine.clock.now):
                left |= {mail.id for mail in mails}
        assert left == self.waiting


@pytest.mark.parametrize("seed", range(10))
def test_held_mail_is_never_leased_and_all_of_it_leaves_in_the_end(tmp_path, seed):
    story = Story(tmp_path, seed)
    for _ in range(2):  # over restarts
        story.engine.run(story.act, memory=story.memory)
    story.engine.run(story.end, memory=story.memory)
