"""How long people wait for an answer beside a million mails of history: `python -m bench.history [--mails N]`, and with
`--postgres` on a PostgreSQL of its own (Debian's postgresql).

Makes a spool of that size in a temporary folder, asks what `queue show`, `find` and `failures` ask, and prints times.
Must never touch a spool that somebody uses.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import psycopg

from routing.mail import domain_of
from spool import postgres_schema as schema
from spool.postgres import PostgresSpool
from spool.postgres_filtering import part_of
from spool.postgres_view import PostgresView
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import Filter, SpoolView
from tests.fakes.postgres import Server

CUSTOMERS = 50
ASKED = 40


def fill(path: Path, mails: int) -> None:
    """Settled mails of many customers to ten thousand addresses of a few domains; one of 500 failed. The oldest
    fiftieth went to a domain of its own.
    """
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    domain = (
        f"CASE WHEN i <= {mails // 50} THEN 'old.nl' WHEN i % 4 THEN 'gmail.com' ELSE 'x' || (i % 997) || '.nl' END"
    )
    address = f"'p' || (i % 10007) || '@' || {domain}"
    customer = f"'c' || (i % {CUSTOMERS}) || '.nl'"
    received = f"{time.time()} - 2e6 + i"
    state = "CASE i % 500 WHEN 0 THEN 'failed' ELSE 'delivered' END"
    said = '"word": "sent", "reply": "250 2.0.0 Ok", "stage": "content", "code": 250}]'
    results = f"""'[{{"to": ["' || {address} || '"], {said}'"""
    mail = (
        f"i, {customer}, 'info@' || {customer}, {received}, 5000, '127.0.0.1', 'callpro', NULL, '', 1, {received} + 1"
    )
    tables = (
        ("mail", mail),
        ("recipient", f"i, {address}, {domain}, {state}, 0"),
        ("event", f"i, i, {received}, '', 'up', 0.2, {results}, NULL, NULL, NULL"),
    )
    with closing(sqlite3.connect(path)) as connection:
        for table, row in tables:
            connection.execute(f"INSERT INTO {table} {count} SELECT {row} FROM n", (mails,))
            connection.commit()


def fill_postgres(url: str, mails: int) -> None:
    """The same mails."""
    said = '"word": "sent", "reply": "250 2.0.0 Ok", "stage": "content", "code": 250'
    customer, start = f"'c' || (i % {CUSTOMERS}) || '.nl'", time.time() - 2e6
    with closing(schema.connect(schema.options_of(url, None))) as connection:
        connection.execute(
            f"INSERT INTO mail SELECT i, {customer}, 'info@' || {customer}, {start} + i, 5000, '127.0.0.1', 'callpro',"
            f" NULL, '', 1, {start} + i + 1 FROM generate_series(1, {mails}) AS i"
        )
        with connection.cursor().copy("COPY recipient (mail, address, domain, part, state) FROM STDIN") as copy:
            for number in range(1, mails + 1):
                address = address_of(number, mails)
                state = "delivered" if number % 500 else "failed"
                copy.write_row((number, address, domain_of(address), part_of(address), state))
        with connection.cursor().copy("COPY event (mail, at, text, upstream, seconds, results) FROM STDIN") as copy:
            for number in range(1, mails + 1):
                results = f'[{{"to": ["{address_of(number, mails)}"], {said}}}]'
                copy.write_row((number, start + number, "", "up", 0.2, results))
        connection.execute("VACUUM ANALYZE")


def address_of(number: int, mails: int) -> str:
    domain = "gmail.com" if number % 4 else f"x{number % 997}.nl"
    return f"p{number % 10007}@{'old.nl' if number <= mails // 50 else domain}"


def measure(view_of: Callable[[], SpoolView], name: str, ask: Callable[[SpoolView, Random], object]) -> None:
    """Each answer over a connection of its own, as a command has it."""
    random, took = Random(7), []
    for _ in range(ASKED):
        started = time.perf_counter()
        with closing(view_of()) as view:
            ask(view, random)
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    print(f"{name:<34} {statistics.median(took):8.1f} ms {took[-2]:8.1f} ms {took[-1]:8.1f} ms")


@contextmanager
def in_sqlite(mails: int) -> Iterator[tuple[Callable[[], SpoolView], int]]:
    """How it is opened, and its octets."""

    async def make(path: Path) -> None:
        await (await SqliteSpool.open(str(path), size_limit=1 << 40)).close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.db"
        asyncio.run(make(path))
        fill(path, mails)
        yield lambda: SqliteView(str(path)), path.stat().st_size


@contextmanager
def in_postgres(mails: int) -> Iterator[tuple[Callable[[], SpoolView], int]]:
    """How it is opened, and its octets. The server has Debian's settings, but does not wait for the disk."""
    server = Server({"shared_buffers": "128MB"})
    try:
        server.start()

        async def make() -> None:
            await (await PostgresSpool.open(server.url(), size_limit=1 << 40)).close()

        asyncio.run(make())
        fill_postgres(server.url(), mails)
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("SELECT pg_database_size('postgres')").fetchone()
        yield lambda: PostgresView(server.url()), row[0] if row else 0
    finally:
        server.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long answers take beside a long history.")
    parser.add_argument("--mails", type=int, default=1_000_000, help="default: 1000000")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL server of its own")
    asked = parser.parse_args()
    with (in_postgres if asked.postgres else in_sqlite)(asked.mails) as (view_of, octets):
        print(f"{asked.mails} mails settled, {octets >> 20} MB; {ASKED} questions each")
        print(f"{'':<34} {'median':>11} {'95 %':>11} {'longest':>11}")
        questions(view_of, asked.mails)


def questions(view_of: Callable[[], SpoolView], mails: int) -> None:
    measure(view_of, "show ID", lambda view, random: view.show(random.randint(1, mails)))
    for name, to in (("find --to, a common domain", "p{}@gmail.com"), ("find --to, a rare domain", "p{0}@x{0}.nl")):
        measure(view_of, name, lambda view, random, to=to: found(view, to.format(random.randint(0, 996))))
    measure(view_of, "find --to @gmail.com", lambda view, _: found(view, "@gmail.com"))
    measure(view_of, "find --to @old.nl, all long ago", lambda view, _: found(view, "@old.nl"))
    measure(view_of, "find --to @x1.nl", lambda view, _: found(view, "@x1.nl"))
    measure(view_of, "find --to @nobody.nl", lambda view, _: found(view, "@nobody.nl"))
    measure(view_of, "find --to nobody", lambda view, _: found(view, "nobody@gmail.com"))
    route = Filter(route="c7.nl", settled=True)
    measure(view_of, "list --settled --route", lambda view, _: view.list(route, 50))
    measure(view_of, "list (nothing waits)", lambda view, _: view.list(Filter(), 50))
    measure(view_of, "failures --since 1d", lambda view, _: list(view.failures(time.time() - 86400)))


def found(view: SpoolView, to: str) -> object:
    return view.list(Filter(recipient=to, settled=None), 20, newest_first=True)


if __name__ == "__main__":
    main()
