"""Delivered messages a second and CPU per mail, beside Postfix, in one run. As root, with Debian's postfix.

Each cell: one mail a connection, half of the senders in either of two domains, each with an upstream of its own. A
mail counts when an upstream has it; counts are checked at the upstreams.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from peers import DOMAINS, Peer, Sink, callpro_relay, postfix


@dataclass(frozen=True)
class Cell:
    """One measurement: delivered mails a second, CPU milliseconds a mail, octets of memory at the end."""

    rate: float
    cpu: float
    memory: int


def load(peer: Peer, domain: str, mails: int, size: int, concurrency: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["smtp-source", "-s", str(concurrency), "-m", str(mails), "-l", str(size),
         "-f", f"info@{domain}", "-t", "klant@example.test", f"127.0.0.1:{peer.port}"],
    )  # fmt: skip


def measure(peer: Peer, sinks: dict[str, Sink], mails: int, size: int, concurrency: int) -> Cell:
    before = {domain: sink.messages() for domain, sink in sinks.items()}
    cpu = peer.group.seconds()
    start = time.monotonic()
    half = mails // 2
    clients = [load(peer, domain, half, size, max(1, concurrency // 2)) for domain in DOMAINS]
    deadline = start + 120
    while any(sink.messages() - before[domain] < half for domain, sink in sinks.items()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{peer.name}: not all mail arrived in 120 s")
        time.sleep(0.01)
    seconds = time.monotonic() - start
    if any(client.wait() for client in clients):
        raise SystemExit(f"{peer.name}: smtp-source failed")
    cell = Cell(2 * half / seconds, (peer.group.seconds() - cpu) * 1000 / (2 * half), peer.group.memory())
    time.sleep(0.3)
    for domain, sink in sinks.items():
        if sink.messages() - before[domain] != half:
            raise SystemExit(f"{peer.name}: {sink.messages() - before[domain]} of {half} mails of {domain}")
    return cell


def run(rounds: int, mails: int, concurrency: int) -> None:
    cells: dict[tuple[str, int], list[Cell]] = {}
    sizes = (5_000, 100_000)
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as folder:
        sinks = {domain: Sink(Path(folder), domain) for domain in DOMAINS}
        try:
            with callpro_relay(Path(folder), sinks) as ours, postfix(Path(folder), sinks) as theirs:
                for size in sizes:
                    count = mails if size < 50_000 else mails // 4
                    for peer in (ours, theirs):  # one round that is not counted warms both
                        measure(peer, sinks, count // 4, size, concurrency)
                    for _ in range(rounds):
                        for peer in (ours, theirs):
                            cells.setdefault((peer.name, size), []).append(
                                measure(peer, sinks, count, size, concurrency)
                            )
                report(cells, sizes, concurrency)
        finally:
            for sink in sinks.values():
                sink.stop()


def report(cells: dict[tuple[str, int], list[Cell]], sizes: tuple[int, ...], concurrency: int) -> None:
    print(
        f"one mail a connection, {concurrency} connections, two upstreams; medians of {len(next(iter(cells.values())))}"
    )
    print("| size | peer | delivered/s | CPU ms a mail | PSS MB |\n|---|---|---|---|---|")
    for size in sizes:
        for (name, at), found in cells.items():
            if at == size:
                rate, cpu, memory = (
                    statistics.median(getattr(cell, key) for cell in found) for key in ("rate", "cpu", "memory")
                )
                print(f"| {size // 1000} KB | {name} | {rate:.0f} | {cpu:.2f} | {memory / 1e6:.0f} |")
        ours, theirs = cells["callpro-relay", size], cells["Postfix", size]
        rates = sorted(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
        costs = sorted(a.cpu / b.cpu for a, b in zip(ours, theirs, strict=True))
        print(f"| {size // 1000} KB | ratio | {statistics.median(rates):.2f} x ({rates[0]:.2f} to {rates[-1]:.2f}) "
              f"| {statistics.median(costs):.2f} x | |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mails", type=int, default=2000, help="a round at 5 KB; a quarter of it at 100 KB")
    parser.add_argument("--concurrency", type=int, default=10)
    asked = parser.parse_args()
    run(asked.rounds, asked.mails, asked.concurrency)


if __name__ == "__main__":
    main()
