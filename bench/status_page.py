"""How fast the status page is over a long history, what it costs mail, and what it costs memory.

Run as `python -m bench.status_page [--history N] [--seconds S]`. The real relay, one client, one upstream; several
clients ask for pages at once without a pause. It prints; it never judges.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx

from spool.ids import first_number
from spool.sqlite import SqliteSpool
from spool.view import Volume
from tests.fakes.authority import Authority
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp

CUSTOMERS = 50
PAGES = ("/", "/volumes?period=hour", "/volumes?period=day", "/volumes?period=month", "/mails", "/rules", "/orders")
RESULTS = '[{"to": ["%s"], "word": "sent", "reply": "250 2.0.0 Ok: queued as 4XyZ", "stage": "content", "code": 250}]'


async def history(folder: Path, mails: int) -> None:
    """A month of settled mail, one customer after the other, and its counts by the hour."""
    now, file = time.time(), folder / "spool.db"
    spool = await SqliteSpool.open(str(file), size_limit=1 << 40)
    start = now - 30 * 86400
    hours = 30 * 24
    for hour in range(hours):
        at, count = start + hour * 3600, max(1, mails // (hours * CUSTOMERS))
        await spool.tally([Volume(at, f"c{n}.nl", f"c{n}.nl", count, count, count - 1, 1) for n in range(CUSTOMERS)])
    await spool.close()
    step = 30 * 86400 / mails
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(0, mails, 50_000):
            rows = range(first, min(mails, first + 50_000))
            ids = [(first_number(start + row * step) + row % 1000, row, start + row * step) for row in rows]
            slow = [90.0 if row % 500 == 0 else 1.0 for row in rows]
            connection.executemany(
                "INSERT INTO mail (id, route, sender, received_at, size, peer, helo, message_id, repairs, attempts, "
                "settled_at) VALUES (?, ?, ?, ?, 5000, '127.0.0.1', 'callpro', '<1@acme.nl>', '', 1, ?)",
                [
                    (i, f"c{r % 50}.nl", f"info@c{r % 50}.nl", at, at + s)
                    for (i, r, at), s in zip(ids, slow, strict=True)
                ],
            )
            connection.executemany(
                "INSERT INTO recipient (mail, address, domain, state) VALUES (?, ?, 'example.org', 'delivered')",
                [(i, f"klant{r * 7919 % 100_003}@example.org") for i, r, _ in ids],
            )
            connection.executemany(
                "INSERT INTO event (mail, at, text, upstream, seconds, results) VALUES (?, ?, '', 'up', 0.2, ?)",
                [(i, at, RESULTS % f"klant{r * 7919 % 100_003}@example.org") for i, r, at in ids],
            )
            connection.commit()


def pss(pid: int) -> float:
    """Memory in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def shown(name: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    middle, high = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return f"{name:<34} {len(ordered):>6}  median {middle * 1000:7.1f} ms  99 of 100 {high * 1000:7.1f} ms"


async def send(port: int, seconds: float) -> list[float]:
    """One mail after the other over connections of their own; how long each took to its 250."""
    took, end = [], time.perf_counter() + seconds
    envelope = (b"HELO x\r\n", b"MAIL FROM:<info@c1.nl>\r\n", b"RCPT TO:<x@example.org>\r\n", b"DATA\r\n")
    content = b"From: info@c1.nl\r\nTo: x@example.org\r\nMessage-ID: <1@c1.nl>\r\n\r\n" + b"x" * 70 * 60 + b"\r\n.\r\n"
    while time.perf_counter() < end:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()
        for line in (*envelope, content):
            writer.write(line)
            reply = await reader.readline()
            assert reply[:1] in b"23", reply
        took.append(time.perf_counter() - began)
        writer.close()
        await asyncio.sleep(0.002)
    return took


async def hammer(url: str, stop: asyncio.Event, took: dict[str, list[float]], number: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as browser:
        while not stop.is_set():
            page = PAGES[number % len(PAGES)]
            number += 1
            began = time.perf_counter()
            (await browser.get(page)).raise_for_status()
            took.setdefault(page, []).append(time.perf_counter() - began)


async def alone(url: str) -> None:
    """Each page by itself, and the questions that people type."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as browser:
        for page in (*PAGES, "/mails?q=klant7@example.org", "/metrics", "/readyz"):
            took = []
            for _ in range(8):
                began = time.perf_counter()
                (await browser.get(page)).raise_for_status()
                took.append(time.perf_counter() - began)
                await asyncio.sleep(max(0.05, took[-1]))
            print(shown(page, took), flush=True)


async def measure(mails: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="callpro-relay-bench-") as name:
        folder = Path(name)
        os.environ["SSL_CERT_FILE"] = str(Authority(folder).bundle)
        async with FakeSmtp() as server:
            upstream = f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
            routes = upstream + "routes:\n" + "".join(f"  - {{from: c{n}.nl, via: up}}\n" for n in range(CUSTOMERS))
            extra = "status: {address: '127.0.0.1:0'}\n"
            relay = RelayProcess(folder / "r", routes, extra=extra)
            await history(folder / "r", mails)
            async with relay:
                url = f"http://{(await relay.event('status_listening'))['address']}"
                assert relay._process
                pid = relay._process.pid
                print(f"{mails} mails of history, {CUSTOMERS} customers")
                print(f"memory before the first page {pss(pid):.1f} MB")
                await alone(url)
                print(f"memory after {pss(pid):.1f} MB\n")
                await send(relay.port, 1.0)
                took: dict[str, list[float]] = {}
                for turn in range(2):
                    print(shown("mail, nobody looks", await send(relay.port, seconds)))
                    stop = asyncio.Event()
                    lookers = [asyncio.create_task(hammer(url, stop, took, number)) for number in range(4)]
                    print(shown("mail, four clients look at once", await send(relay.port, seconds)), flush=True)
                    stop.set()
                    await asyncio.gather(*lookers)
                    if turn == 0:
                        print(f"pages meanwhile: {sum(map(len, took.values()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    asyncio.run(measure(asked.history, asked.seconds))


if __name__ == "__main__":
    main()
