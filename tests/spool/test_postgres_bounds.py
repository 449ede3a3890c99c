"""What a question reads in PostgreSQL must not grow with what was ever sent."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import pytest

from spool import postgres_schema as schema
from spool.view import Filter
from tests.spool.engines import Postgres

MAILS = 20_000


def fill(url: str) -> None:
    """Settled mails, the older half to one domain and the newer to another."""
    with closing(schema.connect(schema.options_of(url, None))) as connection:
        connection.execute(
            "INSERT INTO mail SELECT i, 'acme.nl', 'a@acme.nl', i, 9, '::1', 'x', NULL, '', 1, i + 1"
            f" FROM generate_series(1, {MAILS}) AS i"
        )
        connection.execute(
            "INSERT INTO recipient SELECT i, 'p' || i || '@' || domain, domain, i % 64, 'delivered' FROM"
            f" (SELECT i, CASE WHEN i > {MAILS // 2} THEN 'new.nl' ELSE 'old.nl' END AS domain"
            f" FROM generate_series(1, {MAILS}) AS i) AS made"
        )
        connection.execute("VACUUM ANALYZE")


def rows_read(url: str) -> int:
    with closing(schema.connect(schema.options_of(url, None))) as connection:
        query = (
            "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)"
            " + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('mail', 'recipient'))"
        )
        return int(connection.execute(query).fetchone()[0])  # type: ignore[index]


@pytest.mark.parametrize("to", ["@old.nl", "@new.nl"])
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_of_the_mails_to_a_domain_reads_little(database, to, newest_first):
    async def make() -> None:
        async with Postgres(database).spool():
            pass

    asyncio.run(make())
    fill(database)
    before = rows_read(database)
    with Postgres(database).view() as view:
        lines = view.list(Filter(recipient=to, settled=None), 20, newest_first=newest_first)
    first = {"@old.nl": 1, "@new.nl": MAILS // 2 + 1}[to]
    numbers = range(first, first + MAILS // 2)
    assert [line.id for line in lines] == list(numbers[:-21:-1] if newest_first else numbers[:20])
    end = time.monotonic() + 20
    while (read := rows_read(database) - before) < 20 and time.monotonic() < end:
        time.sleep(0.05)  # a connection tells what it did when it ends
    assert 20 <= read < MAILS // 5
