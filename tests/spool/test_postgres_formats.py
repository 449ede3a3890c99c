"""Nodes of an earlier version beside new ones: the old code itself, kept in node_at_format_1.zip, as a real process.

Each format that is released gets such an archive: the modules of `spool` and `routing` that a node of it loads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from spool import postgres_schema
from tests.spool.engines import Postgres, settlement

FOLDER = Path(__file__).parent
OLD = FOLDER / "node_at_format_1.zip"


class OldNode:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def says(self) -> Any:
        assert self._process.stdout
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert line, "the old node ended; what it said is on the test's own output"
        return json.loads(line)

    async def does(self, *order: object) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.says()


@asynccontextmanager
async def old_node(url: str) -> AsyncIterator[OldNode]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(FOLDER / "old_node.py"), url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(OLD)}, cwd="/",
    )  # fmt: skip
    try:
        node = OldNode(process)
        told = await node.says()
        assert told["version"] == 1
        assert str(OLD) in told["code"], "the old code, and not ours"
        yield node
        assert process.stdin
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def format_of(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT version FROM callpro_relay.format").fetchone()
        assert row
        return int(row[0])


def test_nodes_are_renewed_one_by_one_and_may_go_back(database: str) -> None:
    """Old, both, old again, new again: each delivers what the other took, and nothing is lost or sent twice."""
    new = Postgres(database)

    async def deliver(expected: list[int]) -> None:
        new.clock.now = time.time() + 1
        async with new.spool() as spool:
            mails = await spool.lease("acme.nl", 1000, new.clock.now)
            assert sorted(mail.id for mail in mails) == sorted(expected)
            for mail in mails:
                await spool.settle(settlement(mail))

    async def story() -> None:
        async with old_node(database) as first:
            assert format_of(database) == 1
            taken = await first.does("put", "acme.nl", 5)
            await first.does("put", "late.nl", 2)
            assert len(await first.does("work", "late.nl", False)) == 2
            await deliver(taken)
            assert format_of(database) == postgres_schema.VERSION
            taken = await first.does("put", "acme.nl", 5)
            assert sorted(await first.does("work", "acme.nl", True)) == sorted(taken)
            await first.does("everything else")
            taken = await first.does("put", "acme.nl", 3)
            async with old_node(database) as again:
                assert sorted(await again.does("work", "acme.nl", True)) == sorted(taken)
                left = await again.does("put", "acme.nl", 4)
                assert await again.does("everything else") == 21
            await deliver(left)

    asyncio.run(story())
    with new.view() as view:
        assert view.loads()["late.nl"].mails == 2
        assert view.nodes() == []


def test_an_old_spool_ends_up_like_a_new_one(database: str, postgres_server: Any) -> None:
    async def made_by_the_old() -> None:
        async with old_node(database):
            pass

    asyncio.run(made_by_the_old())
    fresh = postgres_server.database("fresh")
    try:
        for url in (database, fresh):
            postgres_schema.prepare(postgres_schema.options_of(url))
        assert layout(database) == layout(fresh)
    finally:
        postgres_server.drop("fresh")


def layout(url: str) -> list[tuple[Any, ...]]:
    """Every column and every index."""
    columns = """SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
    WHERE table_schema = 'callpro_relay' ORDER BY 1, 2"""
    indexes = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'callpro_relay' ORDER BY 1, 2"
    with psycopg.connect(url) as connection:
        return [*connection.execute(columns).fetchall(), *connection.execute(indexes).fetchall()]
