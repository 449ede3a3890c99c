"""How fast the spool alone is: mails kept, and mails kept, leased and settled, at 1, 10 and 50 at a time.

Run as `python -m bench.spool_micro [--seconds S] [--url sqlite:////path]`. It prints; it never judges.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from routing.outcome import Outcome, Stage, Word
from spool.contract import Arrival, Attempt, Leased, Settled, Settlement, Spool
from spool.sqlite import SqliteSpool

ROUTES = ("acme.nl", "globex.nl")
SENT = Outcome(Word.SENT, "250 2.0.0 Ok: queued as 4XyZ0123456789", Stage.CONTENT, 250, "2.0.0")


def mails(spool: Spool, size: int) -> Iterator[Arrival]:
    """Mails of `size` octets, routes alternating, every recipient another one."""
    header = b"From: info@acme.nl\r\nTo: jan@example.org\r\nSubject: Bevestiging\r\nMessage-ID: <1234@acme.nl>\r\n\r\n"
    content = header + (b"x" * 70 + b"\r\n") * ((size - len(header)) // 72)
    for count in itertools.count():
        route, recipient = ROUTES[count % 2], f"klant{count * 7919 % 1000003}@example.org"
        yield Arrival(
            spool.next_id(), f"info@{route}", (recipient,), content, route, time.time(), "127.0.0.1", "callpro"
        )


async def put_until(spool: Spool, arrivals: Iterator[Arrival], end: float) -> int:
    count = 0
    while time.perf_counter() < end:
        await spool.put(next(arrivals))
        count += 1
    return count


async def deliver(spool: Spool) -> Callable[[], Awaitable[int]]:
    """Lease and settle whatever arrives; the returned function waits for the last of them and counts."""
    arrived: dict[str, asyncio.Event] = {route: asyncio.Event() for route in ROUTES}
    spool.on_arrival(lambda route: arrived[route].set())
    settled: list[asyncio.Future[None]] = []
    stopping = False

    async def work(route: str) -> None:
        while True:
            arrived[route].clear()
            while leased := await spool.lease(route, 50, time.time()):
                settled.extend(settle(spool, mail) for mail in leased)
            if stopping:
                return
            await arrived[route].wait()

    tasks = [asyncio.create_task(work(route)) for route in ROUTES]

    async def finish() -> int:
        nonlocal stopping
        stopping = True
        for event in arrived.values():
            event.set()
        await asyncio.gather(*tasks)
        await asyncio.gather(*settled)
        return len(settled)

    return finish


def settle(spool: Spool, mail: Leased) -> asyncio.Future[None]:
    results = {recipient.address: SENT for recipient in mail.recipients}
    attempt = Attempt("acme-login", time.time(), 0.12, results)
    return spool.settle(Settlement(mail, dict.fromkeys(results, Settled.DELIVERED), (attempt,)))


async def measure(url: str, size: int, concurrency: int, seconds: float, deliveries: bool) -> str:
    spool = await SqliteSpool.open(url, size_limit=20 << 30)
    finish = await deliver(spool) if deliveries else None
    arrivals = mails(spool, size)
    started, used = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(*(put_until(spool, arrivals, started + seconds) for _ in range(concurrency)))
    done = await finish() if finish else sum(counts)
    took, used = time.perf_counter() - started, time.process_time() - used
    await spool.close()
    what = "delivered" if deliveries else "put"
    return f"{size:>7} {concurrency:>4}  {what:<9} {done / took:>8.0f}/s  {used / done * 1000:.3f} ms CPU a mail"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the spool files go: the disk to measure")
    options = parser.parse_args()
    print("   size  at once")
    for size, concurrency, deliveries in itertools.product((5_000, 100_000), (1, 10, 50), (False, True)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(asyncio.run(measure(f"{folder}/spool.db", size, concurrency, options.seconds, deliveries)))


if __name__ == "__main__":
    main()
