"""How long people wait for an answer beside a million mails of history: `python -m bench.history [--mails N]`.

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
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import Filter

CUSTOMERS = 50
ASKED = 40


def fill(path: Path, mails: int) -> None:
    """Settled mails of many customers to ten thousand addresses of a few domains; one of 500 failed."""
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    address = "'p' || (i % 10007) || '@' || CASE i % 4 WHEN 0 THEN 'x' || (i % 997) || '.nl' ELSE 'gmail.com' END"
    domain = "CASE i % 4 WHEN 0 THEN 'x' || (i % 997) || '.nl' ELSE 'gmail.com' END"
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


def measure(path: Path, name: str, ask: Callable[[SqliteView, Random], object]) -> None:
    """Each answer over a connection of its own, as a command has it."""
    random, took = Random(7), []
    for _ in range(ASKED):
        started = time.perf_counter()
        with closing(SqliteView(str(path))) as view:
            ask(view, random)
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    print(f"{name:<34} {statistics.median(took):8.1f} ms {took[-2]:8.1f} ms {took[-1]:8.1f} ms")


async def make(path: Path) -> None:
    await (await SqliteSpool.open(str(path), size_limit=1 << 40)).close()


def main() -> None:
    parser = argparse.ArgumentParser(description="How long answers take beside a long history.")
    parser.add_argument("--mails", type=int, default=1_000_000, help="default: 1000000")
    mails: int = parser.parse_args().mails
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spool.db"
        asyncio.run(make(path))
        fill(path, mails)
        print(f"{mails} mails settled, {path.stat().st_size >> 20} MB; {ASKED} questions each")
        print(f"{'':<34} {'median':>11} {'95 %':>11} {'longest':>11}")
        measure(path, "show ID", lambda view, random: view.show(random.randint(1, mails)))
        for name, to in (("find --to, a common domain", "p{}@gmail.com"), ("find --to, a rare domain", "p{0}@x{0}.nl")):
            measure(path, name, lambda view, random, to=to: found(view, to.format(random.randint(0, 996))))
        measure(path, "find --to @gmail.com", lambda view, _: found(view, "@gmail.com"))
        measure(path, "find --to nobody", lambda view, _: found(view, "nobody@gmail.com"))
        route = Filter(route="c7.nl", settled=True)
        measure(path, "list --settled --route", lambda view, _: view.list(route, 50))
        measure(path, "list (nothing waits)", lambda view, _: view.list(Filter(), 50))
        measure(path, "failures --since 1d", lambda view, _: list(view.failures(time.time() - 86400)))


def found(view: SqliteView, to: str) -> object:
    return view.list(Filter(recipient=to, settled=None), 20, newest_first=True)


if __name__ == "__main__":
    main()
