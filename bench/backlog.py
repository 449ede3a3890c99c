"""The spool with a long backlog: accept, hand out and settle, start-up, the first page of a list, and memory.

Run as `python -m bench.backlog [--mails 0,10000,100000,1000000]`. Queued mail has 1 KB and waits in the file on half of
50 routes; the measured mail has 5 KB and comes for another route, and for one that has a backlog.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.spool_micro import SENT
from spool import schema, statements
from spool.contract import Arrival, Attempt, Leased, Settled, Settlement, Spool
from spool.ids import first_number
from spool.sqlite import SqliteSpool
from spool.sqlite_view import SqliteView
from spool.view import Filter

ROUTES = [f"klant{number}.nl" for number in range(50)]
CONTENT = b"From: a@b.nl\r\nMessage-ID: <1@b.nl>\r\n\r\n"


def fill(path: Path, mails: int) -> None:
    """Queue them with the spool's own statements, as if they had come a second ago, each due in an hour."""
    schema.prepare(path)
    connection = schema.connect(path)
    base, content = first_number(time.time() - 3600), CONTENT + b"x" * 70 * 14
    for start in range(0, mails, 6400):
        connection.execute("BEGIN")
        for number in range(start, min(mails, start + 6400), 64):
            statements.insert(
                connection, [_queued(base + at, at, content) for at in range(number, min(mails, number + 64))]
            )
        connection.execute("COMMIT")
    connection.close()


def _queued(number: int, at: int, content: bytes) -> Arrival:
    route = ROUTES[at % 25]
    to = (f"klant{at * 7919 % 1000003}@example{at % 1000}.org",)
    return Arrival(number, f"info@{route}", to, content, route, time.time() + 3600, "127.0.0.1", "callpro")


def arrivals(spool: Spool, route: str) -> Iterator[Arrival]:
    content = CONTENT + b"y" * 5000
    for count in itertools.count():
        to = (f"nieuw{count}@example.org",)
        yield Arrival(spool.next_id(), f"info@{route}", to, content, route, time.time(), "127.0.0.1", "callpro")


async def accept(spool: Spool, route: str, seconds: float) -> float:
    """Mails kept a second, 10 at a time."""
    source, start, count = arrivals(spool, route), time.perf_counter(), 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            await spool.put(next(source))
            count += 1

    await asyncio.gather(*[one() for _ in range(10)])
    return count / (time.perf_counter() - start)


async def deliver(spool: Spool, route: str) -> float:
    """Mails leased and settled a second, until none is due."""
    start, count = time.perf_counter(), 0
    written = []
    while mails := await spool.lease(route, 16, time.time()):
        written += [spool.settle(_sent(mail)) for mail in mails]
        count += len(mails)
    await asyncio.gather(*written)
    return count / (time.perf_counter() - start)


def _sent(mail: Leased) -> Settlement:
    done = {pending.address: Settled.DELIVERED for pending in mail.recipients}
    attempt = Attempt(mail.route, time.time(), 0.01, dict.fromkeys(done, SENT))
    return Settlement(mail=mail, done=done, attempts=(attempt,))


def resident() -> float:
    """Megabytes of this process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000  # type: ignore[index]


async def measure(path: Path, mails: int, seconds: float) -> str:
    start = time.perf_counter()
    spool = await SqliteSpool.open(f"sqlite:///{path}", size_limit=1 << 40)
    await spool.backlog()
    opened = time.perf_counter() - start
    rates = []
    for route in (ROUTES[40], ROUTES[3]):
        rates += [await accept(spool, route, seconds), await deliver(spool, route)]
    start = time.perf_counter()
    page = SqliteView(f"sqlite:///{path}").list(Filter(), limit=50)
    first = len(page), time.perf_counter() - start
    await spool.close()
    return (
        f"| {mails:,} | {opened:.2f} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[2]:.0f} | {rates[3]:.0f} "
        f"| {first[1] * 1000:.0f} ({first[0]} mails) | {resident():.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", default="0,10000,100000,1000000")
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    print("| queued | start s | accept/s | deliver/s | the same, a route with backlog | | first page ms | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for mails in map(int, asked.mails.split(",")):
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
            path = Path(name) / "spool.db"
            fill(path, mails)
            print(asyncio.run(measure(path, mails, asked.seconds)), flush=True)


if __name__ == "__main__":
    main()
