"""Mails a second with 1, 2 and 4 processes on one PostgreSQL, beside SQLite: through the spool alone, and through whole
relays from a client to an upstream. With it what a mail costs, and what the database waits for.

`python -m bench.nodes`; needs root (control groups), Debian's postgresql and postfix (its test programs). Commits go to
the disk. Load only ever goes to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.peers import DOMAINS, HERE, ControlGroup, Sink, free_port, wait_for
from routing.outcome import Outcome, Stage, Word
from spool.contract import Arrival, Attempt, Settled, Settlement, Spool
from spool.opening import open_spool
from tests.fakes.postgres import Server

_SENT = Outcome(Word.SENT, "250 2.0.0 Ok: queued as 4XyZ", Stage.CONTENT, 250, "2.0.0", upstream_id="4XyZ")
_SETTINGS = {
    "fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "4GB",
    "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all",
}  # fmt: skip
_RELAY = """\
hostname: relay.test
listen: [{{address: "127.0.0.1:{port}"}}]
spool: {{url: "{url}"}}
doctor: {{every: 0s}}
workers: {workers}
"""


# ---- through the spool alone


async def work(url: str, route: str, mails: int, size: int, concurrency: int) -> tuple[float, float]:
    """Put, lease and settle; seconds from the first to the last, and CPU seconds of this process."""
    spool = await open_spool(url, size_limit=1 << 40)
    before, start = time.process_time(), time.monotonic()
    left = iter(range(mails))
    await asyncio.gather(
        *(_client(spool, route, left, size) for _ in range(concurrency)), _deliver(spool, route, mails)
    )
    used = time.monotonic() - start, time.process_time() - before
    await spool.close()
    return used


async def _client(spool: Spool, route: str, left: Iterator[int], size: int) -> None:
    content = b"From: info@acme.nl\r\nMessage-ID: <1@acme.nl>\r\n\r\n" + b"x" * size
    for _ in left:
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


def through_the_spool(url: str, count: int, mails: int, size: int) -> tuple[float, float]:
    """Mails a second of all, and CPU milliseconds a mail of these processes."""
    command = [sys.executable, "-m", "bench.nodes", "--work", url, "--mails", str(mails), "--size", str(size)]
    running = [
        subprocess.Popen([*command, "--route", f"r{n}.nl"], stdout=subprocess.PIPE, text=True) for n in range(count)
    ]
    told = [[float(word) for word in one.communicate()[0].split()] for one in running]
    return sum(mails / took for took, _ in told), sum(used for _, used in told) * 1000 / (count * mails)


# ---- through whole relays


@dataclass(frozen=True)
class Passed:
    """`accepted` and `delivered` mails a second, and CPU milliseconds a mail of the relays."""

    accepted: float
    delivered: float
    cpu: float


@contextmanager
def relays(folder: Path, url: str, count: int, sink: Sink, group: ControlGroup, workers: int) -> Iterator[list[int]]:
    """So many relays on one spool, of so many processes each; their ports."""
    ports, running = [free_port() for _ in range(count)], []
    most = 5 * count * workers  # all relays keep the limit together: as many for each as one alone has by default
    up = f"{{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none, connections: {most}}}"
    rules = f"upstreams:\n  up: {up}\nroutes:\n"
    rules += "".join(f"  - {{from: {domain}, via: up}}\n" for domain in DOMAINS)
    try:
        for number, port in enumerate(ports):
            place = folder / f"relay{number}"
            place.mkdir(parents=True)
            (place / "relay.yaml").write_text(_RELAY.format(port=port, url=url, workers=workers))
            (place / "routes.yaml").write_text(rules)
            command = [sys.executable, str(HERE / "relay.py"), "serve", "--config", str(place / "relay.yaml")]
            with (place / "log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        command,
                        stderr=log,
                        stdout=log,
                        preexec_fn=group.enter,
                        env={**os.environ, "STATE_DIRECTORY": str(place)},
                    )
                )
            wait_for(port)
            while workers > 1 and b"workers_started" not in (place / "log").read_bytes():
                time.sleep(0.02)
        yield ports
    finally:
        for one in running:
            one.terminate()
        for one in running:
            one.wait()


def through_relays(url: str, count: int, mails: int, size: int, workers: int = 1) -> Passed:
    """`mails` for each process, from 50 connections for each, one mail a connection."""
    group, processes = ControlGroup(f"nodes{count}"), count * workers
    try:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            folder.chmod(0o755)
            sink = Sink(folder, "up")
            try:
                with relays(folder, url, count, sink, group, workers) as ports:
                    before, start = group.seconds(), time.monotonic()
                    sources = [_source(ports[n % count], DOMAINS[n % 2], mails, size) for n in range(processes)]
                    for one in sources:
                        if one.wait():
                            raise SystemExit("smtp-source failed")
                    accepted = time.monotonic() - start
                    while sink.messages() < processes * mails and time.monotonic() < start + 120:
                        time.sleep(0.02)
                    took, used = time.monotonic() - start, group.seconds() - before
            finally:
                sink.stop()
    finally:
        group.remove()
    total = processes * mails
    return Passed(total / accepted, total / took, used * 1000 / total)


def _source(port: int, domain: str, mails: int, size: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["smtp-source", "-d", "-s", "50", "-m", str(mails), "-l", str(size), "-f", f"info@{domain}", "-t",
         "jan@example.test", f"127.0.0.1:{port}"]
    )  # fmt: skip


# ---- what the database does meanwhile


class Waits:
    """Looks fifty times a second what busy connections wait for; "CPU" is nothing but the processor."""

    def __init__(self, server: Server) -> None:
        self.seen: Counter[str] = Counter()
        self._over = threading.Event()
        self._server = server
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Waits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        query = """SELECT coalesce(wait_event_type || ':' || wait_event, 'CPU') FROM pg_stat_activity
            WHERE state <> 'idle' AND application_name = 'callpro-relay'"""
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            while not self._over.wait(0.02):
                self.seen.update(row[0] for row in connection.execute(query))

    def text(self) -> str:
        total = max(1, self.seen.total())
        return ", ".join(f"{name} {count * 100 // total}%" for name, count in self.seen.most_common(5))


def number(server: Server, query: str) -> float:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return float(row[0]) if row else 0.0


def _log(server: Server) -> float:
    return number(server, "SELECT pg_current_wal_lsn() - '0/0'")


def watched(server: Server, folder: Path) -> ControlGroup:
    """A control group with all processes of the server."""
    del folder
    group = ControlGroup("postgres")
    postmaster = (Path(server.data) / "postmaster.pid").read_text().split()[0]
    children = subprocess.run(["pgrep", "-P", postmaster], capture_output=True, text=True, check=True).stdout.split()
    for pid in (postmaster, *children):
        with suppress(OSError):
            (group._folder / "cgroup.procs").write_text(pid)
    return group


def in_the_database(server: Server, counts: Sequence[int], mails: int, size: int, whole: bool, workers: bool) -> int:
    """A line for each number of processes (with `workers` they are of one relay); how many mails it kept."""
    total = 0
    group = watched(server, Path())
    for count in counts:
        number(server, "SELECT 1 FROM pg_stat_statements_reset()")
        log, used = _log(server), group.seconds()
        with Waits(server) as waits:
            if whole:
                one, each = (1, count) if workers else (count, 1)
                passed = through_relays(server.url(), one, mails, size, each)
                said = f"{passed.accepted:7.0f} accepted/s {passed.delivered:7.0f} delivered/s {passed.cpu:6.2f} ms"
            else:
                rate, cpu = through_the_spool(server.url(), count, mails, size)
                said = f"{rate:7.0f} mails/s {cpu:6.2f} ms"
        done, used = count * mails, (group.seconds() - used) * 1000 / (count * mails)
        log, total = (_log(server) - log) / done / 1000, total + done
        print(f"PostgreSQL  {count}  {said} + {used:5.2f} ms of its own CPU a mail, {log:5.1f} KB log; {waits.text()}")
    return total


def statements(server: Server) -> None:
    """Where the time of the last run went, by statement."""
    query = """SELECT calls, rows, total_exec_time, left(regexp_replace(query, E'\\\\s+', ' ', 'g'), 90)
        FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 16"""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for calls, rows, took, text in connection.execute(query):
            print(f"{calls:7} calls {rows:8} rows {took:8.0f} ms  {text}")


def sizes(server: Server, mails: int) -> None:
    for table in ("mail", "recipient", "event"):
        heap = number(server, f"SELECT pg_table_size('callpro_relay.{table}')")
        index = number(server, f"SELECT pg_indexes_size('callpro_relay.{table}')")
        print(f"history in {table:10} {heap / mails:6.0f} octets a mail, indexes {index / mails:6.0f}")
    query = """SELECT indexrelname, pg_relation_size(indexrelid), idx_scan FROM pg_stat_user_indexes
        WHERE schemaname = 'callpro_relay' ORDER BY 2 DESC LIMIT 10"""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for name, octets, scans in connection.execute(query):
            print(f"  index {name:22} {octets / mails:6.0f} octets a mail, {scans} scans")


def run(counts: Sequence[int], mails: int, size: int, whole: bool, workers: bool) -> None:
    print("through whole relays" if whole else "through the spool alone")
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'spool.db'}"
        if whole:
            passed = through_relays(url, 1, mails, size)
            said = f"{passed.accepted:7.0f} accepted/s {passed.delivered:7.0f} delivered/s {passed.cpu:6.2f} ms"
        else:
            rate, cpu = through_the_spool(url, 1, mails, size)
            said = f"{rate:7.0f} mails/s {cpu:6.2f} ms"
    print(f"SQLite      1  {said} CPU a mail")
    server = Server(_SETTINGS).start()
    try:
        number(server, "SELECT 1 FROM (SELECT 1) AS one")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        total = in_the_database(server, counts, mails, size, whole, workers)
        statements(server)
        if not whole:
            sizes(server, total)
    finally:
        server.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=4000, help="for each process")
    parser.add_argument("--size", type=int, default=5000, help="octets")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--only", choices=("spool", "relays"), help="one of the two parts")
    parser.add_argument("--workers", action="store_true", help="whole relays: one relay with so many `workers`")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--route", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(*asyncio.run(work(asked.work, asked.route, asked.mails, asked.size, 50)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for part in ("spool", "relays"):
        if asked.only in (None, part):
            run(asked.processes, asked.mails, asked.size, part == "relays", asked.workers)


if __name__ == "__main__":
    main()
