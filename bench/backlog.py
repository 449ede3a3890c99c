"""The spool with a long backlog: accept, hand out and settle, start-up, the first page of a list, and memory.

Run as `python -m bench.backlog [--mails 0,10000,100000,1000000] [--rounds 5]`. Queued mail has 1 KB and waits in the
file on half of 50 routes; the measured mail has 5 KB and comes for another route, and for one that has a backlog. The
backlogs take turns, each time in a process of its own; what is in the middle is told.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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


async def measure(path: Path, seconds: float) -> list[float]:
    """What `_COLUMNS` name, in their order."""
    start = time.perf_counter()
    spool = await SqliteSpool.open(f"sqlite:///{path}", size_limit=1 << 40)
    await spool.backlog()
    numbers = [time.perf_counter() - start]
    for route in (ROUTES[40], ROUTES[3]):
        numbers += [await accept(spool, route, seconds), await deliver(spool, route)]
    start = time.perf_counter()
    SqliteView(f"sqlite:///{path}").list(Filter(), limit=50)
    numbers.append((time.perf_counter() - start) * 1000)
    await spool.close()
    return [*numbers, resident()]


_COLUMNS: Final = (
    ("start s", ".2f"), ("accept/s", ".0f"), ("deliver/s", ".0f"), ("accept/s, a route with backlog", ".0f"),
    ("deliver/s of it", ".0f"), ("first page ms", ".0f"), ("MB", ".0f"),
)  # fmt: skip


def in_turn(paths: dict[int, Path], rounds: int, seconds: float) -> dict[int, list[list[float]]]:
    """By number of queued mails what each round measured."""
    found: dict[int, list[list[float]]] = {mails: [] for mails in paths}
    for _ in range(rounds):
        for mails, path in paths.items():
            order = [sys.executable, "-m", "bench.backlog", "--one", str(path), "--seconds", str(seconds)]
            found[mails].append(json.loads(subprocess.run(order, check=True, capture_output=True, text=True).stdout))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", default="0,10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for which mail is accepted each time")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(asyncio.run(measure(asked.one, asked.seconds))))
        return
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        paths = {int(mails): Path(name) / f"{mails}.db" for mails in asked.mails.split(",")}
        for mails, path in paths.items():
            fill(path, mails)
        found = in_turn(paths, asked.rounds, asked.seconds)
    print("| queued |", " | ".join(name for name, _ in _COLUMNS), "|")
    print("|---" * (len(_COLUMNS) + 1) + "|")
    for mails, rounds in found.items():
        middle = [statistics.median(numbers) for numbers in zip(*rounds, strict=True)]
        print(
            f"| {mails:,} |",
            " | ".join(f"{number:{how}}" for number, (_, how) in zip(middle, _COLUMNS, strict=True)),
            "|",
        )


if __name__ == "__main__":
    main()
