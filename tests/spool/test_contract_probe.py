"""A spool tells whether it could keep a mail just now, without keeping one."""

from __future__ import annotations

import pytest

from spool.contract import SpoolFull
from tests.spool.engines import arrival, settlement


def test_a_probe_changes_nothing(engine):
    async def test(spool):
        await spool.probe()
        assert spool.octets == 0
        await spool.put(arrival(spool, engine.clock))
        before = await spool.backlog()
        await spool.probe()
        assert await spool.backlog() == before

    engine.run(test)


def test_a_probe_of_a_full_spool_says_so_until_there_is_room(engine):
    async def test(spool):
        await spool.probe()
        await spool.put(arrival(spool, engine.clock, content=b"x" * 3500))
        assert spool.octets == 3500
        with pytest.raises(SpoolFull):
            await spool.probe()
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(mail))
        assert spool.octets == 0
        await spool.probe()

    engine.run(test, size_limit=4096)
