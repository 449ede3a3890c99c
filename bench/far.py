"""An upstream 50 ms away: mails a second for each connection, beside Postfix; memory with 200 slow connections.

Run as `python -m bench.far`, as root, with Debian's postfix. Every byte passes a proxy that delays it 25 ms each way.
Both relays may have five connections to each of two upstreams, and keep them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import DOMAINS, Peer, Sink, callpro_relay, postfix
from tests.fakes.far import Far

ONE_WAY = 0.025
CONNECTIONS = 5
POSTFIX = f"""\
default_destination_concurrency_limit = {CONNECTIONS}
initial_destination_concurrency = {CONNECTIONS}
smtp_connection_cache_destinations = static:all
in_flow_delay = 0
"""


@dataclass(frozen=True)
class FarSink:
    """An upstream as `peers` takes them, behind the proxy."""

    sink: Sink
    port: int


@contextlib.contextmanager
def far_sinks(folder: Path) -> Iterator[dict[str, FarSink]]:
    """Sinks, each behind a proxy; all proxies share an event loop in a thread."""
    sinks = {domain: Sink(folder, domain) for domain in DOMAINS}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    proxies = {domain: Far(sink.port, ONE_WAY) for domain, sink in sinks.items()}
    try:
        for proxy in proxies.values():
            asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        yield {domain: FarSink(sink, proxies[domain].port) for domain, sink in sinks.items()}
    finally:
        for proxy in proxies.values():
            asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for sink in sinks.values():
            sink.stop()


def measure(peer: Peer, sinks: dict[str, FarSink], mails: int, at_once: int) -> tuple[float, int]:
    """Delivered mails a second, and octets of memory while they were under way."""
    before = {domain: far.sink.messages() for domain, far in sinks.items()}
    start, half, memory = time.monotonic(), mails // 2, 0
    clients = [
        subprocess.Popen(["smtp-source", "-s", str(at_once // 2), "-m", str(half), "-l", "5000", "-f", f"info@{domain}",
                          "-t", "klant@example.test", f"127.0.0.1:{peer.port}"])
        for domain in DOMAINS
    ]  # fmt: skip
    while any(far.sink.messages() - before[domain] < half for domain, far in sinks.items()):
        if time.monotonic() - start > 120:
            raise SystemExit(f"{peer.name}: not all mail arrived")
        time.sleep(0.05)
        memory = max(memory, peer.group.memory())
    seconds = time.monotonic() - start
    for client in clients:
        client.wait()
    return mails / seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.chmod(folder, 0o755)
        sinks = stack.enter_context(far_sinks(folder))
        peers = [
            stack.enter_context(callpro_relay(folder, sinks)),  # type: ignore[arg-type]
            stack.enter_context(postfix(folder, sinks, POSTFIX)),  # type: ignore[arg-type]
        ]
        found: dict[str, list[tuple[float, int]]] = {peer.name: [] for peer in peers}
        for turn in range(asked.rounds + 1):
            for peer in peers:
                measured = measure(peer, sinks, asked.mails if turn else 40, 10)
                if turn:
                    found[peer.name].append(measured)
        print(f"{2 * ONE_WAY * 1000:.0f} ms away, {2 * CONNECTIONS} connections, medians of {asked.rounds} rounds")
        print("| peer | delivered/s | a connection | round trips a mail | PSS MB |\n|---|---|---|---|---|")
        for peer, results in found.items():
            rate = statistics.median(rate for rate, _ in results)
            each = rate / (2 * CONNECTIONS)
            print(f"| {peer} | {rate:.0f} | {each:.1f} | {1 / each / (2 * ONE_WAY):.1f} "
                  f"| {max(memory for _, memory in results) / 1e6:.0f} |")  # fmt: skip
    slow_connections(200)


def slow_connections(count: int) -> None:
    """The relay's memory while `count` connections to one upstream are each in the middle of a mail."""
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sinks = stack.enter_context(far_sinks(folder))
        peer = stack.enter_context(callpro_relay(folder, sinks, f"connections: {count // 2}"))  # type: ignore[arg-type]
        start = peer.group.memory()
        rate, memory = measure(peer, sinks, 3000, 200)
        print(f"{count} slow connections: {start / 1e6:.0f} MB before, {memory / 1e6:.0f} MB at most, {rate:.0f}/s")


if __name__ == "__main__":
    main()
