"""Mails a second through the spool with 1, 2 and 4 processes on one PostgreSQL, beside SQLite, and what a mail costs
in log, tables and indexes. `python -m bench.nodes`; needs Debian's postgresql.

Each process puts mails, leases them and settles them, as intake and delivery do; no SMTP. Commits go to the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from routing.outcome import Outcome, Stage, Word
from spool.contract import Arrival, Attempt, Settled, Settlement, Spool
from spool.opening import open_spool
from tests.fakes.postgres import Server

_SENT = Outcome(Word.SENT, "250 2.0.0 Ok: queued as 4XyZ", Stage.CONTENT, 250, "2.0.0", upstream_id="4XyZ")


async def work(url: str, route: str, mails: int, size: int, concurrency: int) -> float:
    """Put, lease and settle; CPU seconds of this process."""
    spool = await open_spool(url, size_limit=1 << 40)
    before = time.process_time()
    left = iter(range(mails))
    await asyncio.gather(
        *(_client(spool, route, left, size) for _ in range(concurrency)), _deliver(spool, route, mails)
    )
    used = time.process_time() - before
    await spool.close()
    return used


async def _client(spool: Spool, route: str, left: object, size: int) -> None:
    content = b"From: info@acme.nl\r\nMessage-ID: <1@acme.nl>\r\n\r\n" + b"x" * size
    for _ in left:  # type: ignore[attr-defined]
        now = time.time()
        await spool.put(
            Arrival(spool.next_id(), "info@acme.nl", ("jan@example.nl",), content, route, now, "127.0.0.1", "callpro")
        )


async def _deliver(spool: Spool, route: str, mails: int) -> None:
    done = 0
    while done < mails:
        taken = await spool.lease(route, 16, time.time())
        for mail in taken:
            attempt = Attempt("up", time.time(), 0.01, {"jan@example.nl": _SENT})
            spool.settle(Settlement(mail, {"jan@example.nl": Settled.DELIVERED}, (attempt,)))
        done += len(taken)
        if not taken:
            await asyncio.sleep(0.005)


def processes(url: str, count: int, mails: int, size: int) -> tuple[float, float]:
    """Mails a second of all, and CPU milliseconds a mail of these processes."""
    command = [sys.executable, "-m", "bench.nodes", "--work", url, "--mails", str(mails), "--size", str(size)]
    start = time.monotonic()
    running = [
        subprocess.Popen([*command, "--route", f"r{n}.nl"], stdout=subprocess.PIPE, env={**os.environ})
        for n in range(count)
    ]
    used = sum(float(one.communicate()[0]) for one in running)
    return count * mails / (time.monotonic() - start), used * 1000 / (count * mails)


def number(server: Server, query: str) -> float:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return float(row[0]) if row else 0.0


def run(mails: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rate, cpu = processes(f"sqlite:///{Path(folder) / 'spool.db'}", 1, mails, size)
    print(f"SQLite      1 process    {rate:7.0f} mails/s  {cpu:6.2f} ms CPU a mail")
    server = Server({"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}).start()
    try:
        for count in (1, 2, 4):
            log = number(server, "SELECT pg_current_wal_lsn() - '0/0'")
            rate, cpu = processes(server.url(), count, mails, size)
            log = number(server, "SELECT pg_current_wal_lsn() - '0/0'") - log
            print(
                f"PostgreSQL  {count} process{'es' if count > 1 else '  '}  {rate:7.0f} mails/s"
                f"  {cpu:6.2f} ms CPU a mail"
                f"  {log / (count * mails) / 1000:6.1f} KB log a mail"
            )
        total = 7 * mails
        for table in ("mail", "recipient", "event"):
            heap = number(server, f"SELECT pg_table_size('callpro_relay.{table}')")
            index = number(server, f"SELECT pg_indexes_size('callpro_relay.{table}')")
            print(f"history in {table:10} {heap / total:6.0f} octets a mail, indexes {index / total:6.0f}")
    finally:
        server.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=4000, help="for each process")
    parser.add_argument("--size", type=int, default=5000, help="octets")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--route", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(asyncio.run(work(asked.work, asked.route, asked.mails, asked.size, 50)))
    else:
        run(asked.mails, asked.size)


if __name__ == "__main__":
    main()
