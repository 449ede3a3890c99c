"""The relay beside Postfix and Haraka: peers in turn in one run, counts checked at the upstreams, one markdown table.

Half of the senders are in either of two domains, each with an upstream of its own. Every peer keeps a mail on disk
before its 250, but for Haraka, which does not sync. `--tune` compares ways to set up the peers instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer_haraka import haraka
from peers import DOMAINS, Peer, Sink, callpro_relay, postfix

_AT_ONCE = "initial_destination_concurrency = 20\nin_flow_delay = 0\n"
POSTFIX_WAYS = {
    "as Debian has it": "",
    "no inflow delay": "in_flow_delay = 0\n",
    "20 at once": _AT_ONCE,
    "50 at once": _AT_ONCE.replace("20", "50") + "default_destination_concurrency_limit = 50\n",
    "20 at once, 200 processes": _AT_ONCE + "default_process_limit = 200\n",
    "20 at once, kept connections": _AT_ONCE + "smtp_connection_cache_destinations = static:all\n",
}
POSTFIX_BEST = POSTFIX_WAYS["as Debian has it"]
HARAKA_BEST = "cpus"
"""The fastest over the cells of `--tune`, see docs/performance.md."""
TARGETS = {(5_000, 1): 1.5, (5_000, 10): 2.5, (5_000, 50): 3.0}
TARGET_LARGE, TARGET_KEPT, TARGET_CPU, TARGET_MEMORY = 1.8, 2.0, 0.4, 64e6
_PATIENCE = 120.0


@dataclass(frozen=True)
class Cell:
    """One kind of load: octets of content, connections at a time, and whether they are kept from mail to mail."""

    size: int
    concurrency: int
    kept: bool

    @property
    def name(self) -> str:
        return f"{self.size // 1000} KB, {'kept' if self.kept else 'one each'}, {self.concurrency}"

    def mails(self, scale: float) -> int:
        """An even number that takes each peer a second or two."""
        most = {1: 600, 10: 700, 50: 1000}[self.concurrency] * (0.4 if self.size > 50_000 else 1)
        return max(2 * self.concurrency, round(most * scale / 2) * 2)

    @property
    def target(self) -> float:
        if self.kept:
            return TARGET_KEPT
        return TARGETS.get((self.size, self.concurrency), TARGET_LARGE)


@dataclass(frozen=True)
class Measured:
    """Delivered mails a second, CPU milliseconds a mail, octets of memory (PSS) at the end."""

    rate: float
    cpu: float
    memory: int


def clients(peer: Peer, cell: Cell, half: int) -> None:
    """Hand in `half` mails of each domain: at once, or one after the other where only one connection is asked for."""
    running = []
    for domain in DOMAINS:
        command = ["smtp-source", "-s", str(max(1, cell.concurrency // 2)), "-m", str(half), "-l", str(cell.size)]
        command += [*(["-d"] if cell.kept else []), "-f", f"info@{domain}", "-t", "klant@example.test"]
        running.append(subprocess.Popen([*command, f"127.0.0.1:{peer.port}"]))
        if cell.concurrency == 1:
            running[-1].wait()
    if any(client.wait() for client in running):
        raise SystemExit(f"{peer.name}: smtp-source failed at {cell.name}")


def measure(peer: Peer, sinks: dict[str, Sink], cell: Cell, mails: int) -> Measured:
    """One round. Ends the run when a mail is lost, doubled or at the wrong upstream."""
    half = mails // 2
    before = {domain: sink.messages() for domain, sink in sinks.items()}
    cpu, start = peer.group.seconds(), time.monotonic()
    clients(peer, cell, half)
    while any(sink.messages() - before[domain] < half for domain, sink in sinks.items()):
        if time.monotonic() - start > _PATIENCE:
            raise SystemExit(f"{peer.name}: not all mail arrived in {_PATIENCE:.0f} s at {cell.name}")
        time.sleep(0.005)
    seconds = time.monotonic() - start
    time.sleep(0.2)  # what comes twice comes now, and what is written down late is paid for
    counts = [sink.messages() - before[domain] for domain, sink in sinks.items()]
    if counts != [half, half]:
        raise SystemExit(f"{peer.name}: {counts} mails arrived of {half} each at {cell.name}")
    return Measured(2 * half / seconds, (peer.group.seconds() - cpu) * 1000 / (2 * half), peer.group.memory())


# ---- how long a client waits -----------------------------------------------------------------------------------------


async def _one(port: int, domain: str, content: bytes) -> float:
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    for line in (
        b"HELO client.test",
        b"MAIL FROM:<info@%s>" % domain.encode(),
        b"RCPT TO:<klant@example.test>",
        b"DATA",
    ):
        writer.write(line + b"\r\n")
        await reader.readline()
    writer.write(content + b".\r\n")
    answer = await reader.readline()
    if not answer.startswith(b"250"):
        raise SystemExit(f"port {port} answered {answer!r}")
    waited = time.perf_counter() - start
    writer.write(b"QUIT\r\n")
    writer.close()
    return waited


async def _waits(port: int, concurrency: int, mails: int, size: int) -> list[float]:
    head = (
        b"From: info@acme.test\r\nTo: klant@example.test\r\nSubject: bench\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n"
    )
    content = (
        head
        + b"Message-ID: <bench@acme.test>\r\n\r\n"
        + b"regel met tekst van zestig tekens voor de meting ...\r\n" * (size // 54)
    )
    waits: list[float] = []
    left = iter(range(mails))

    async def client(number: int) -> None:
        for _ in left:
            waits.append(await _one(port, DOMAINS[number % 2], content))

    await asyncio.gather(*[client(number) for number in range(concurrency)])
    return waits


def p99(peer: Peer, sinks: dict[str, Sink], size: int, mails: int) -> float:
    """Milliseconds from connect to the 250 of the mail that 99 of 100 stay below, at 50 connections."""
    before = sum(sink.messages() for sink in sinks.values())
    waits = sorted(asyncio.run(_waits(peer.port, 50, mails, size)))
    deadline = time.monotonic() + _PATIENCE
    while sum(sink.messages() for sink in sinks.values()) - before < mails and time.monotonic() < deadline:
        time.sleep(0.01)
    return waits[int(len(waits) * 0.99)] * 1000


# ---- the run ---------------------------------------------------------------------------------------------------------


def sync_milliseconds(folder: Path) -> float:
    """What the disk takes for one commit's worth (60 KB over what is there): the limit that no mail server passes."""
    file = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(61440), 0)
    os.fsync(file)
    taken = []
    for _ in range(40):
        os.pwrite(file, bytes(61440), 0)
        start = time.perf_counter()
        os.fdatasync(file)
        taken.append(time.perf_counter() - start)
    os.close(file)
    return statistics.median(taken) * 1000


@contextlib.contextmanager
def upstreams(folder: Path) -> Iterator[dict[str, Sink]]:
    sinks = {domain: Sink(folder, domain) for domain in DOMAINS}
    try:
        yield sinks
    finally:
        for sink in sinks.values():
            sink.stop()


Found = dict[Cell, dict[str, list[Measured]]]


def compare(
    cells: Sequence[Cell], rounds: int, scale: float, note: Callable[[str], None]
) -> tuple[Found, dict[str, dict[int, float]]]:
    found: Found = {cell: {} for cell in cells}
    waits: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.chmod(folder, 0o755)
        sinks = stack.enter_context(upstreams(folder))
        peers = [
            stack.enter_context(callpro_relay(folder, sinks)),
            stack.enter_context(postfix(folder, sinks, POSTFIX_BEST)),
            stack.enter_context(haraka(folder, sinks, HARAKA_BEST)),
        ]
        for cell in cells:
            note(f"(a sync of 60 KB takes {sync_milliseconds(folder):.2f} ms now)")
            mails = cell.mails(scale)
            for turn in range(rounds + 1):
                for peer in peers:
                    measured = measure(peer, sinks, cell, mails if turn else max(2 * cell.concurrency, mails // 4))
                    if turn:  # the first round warms up and does not count
                        found[cell].setdefault(peer.name, []).append(measured)
            note(row(cell, found[cell], {}))
        for size in sorted({cell.size for cell in cells}):
            for peer in peers:
                waits.setdefault(peer.name, {})[size] = statistics.median(
                    p99(peer, sinks, size, round(500 * scale)) for _ in range(rounds)
                )
    return found, waits


def median(values: Sequence[Measured], key: str) -> float:
    return float(statistics.median(getattr(value, key) for value in values))


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured], key: str) -> float:
    """The median of the ratios of each round: a slow moment of the machine hits all peers of its round."""
    return float(statistics.median(getattr(a, key) / getattr(b, key) for a, b in zip(ours, theirs, strict=True)))


HEAD = (
    "| load | relay/s | Postfix/s | Haraka/s | x Postfix | x better peer | wanted | CPU ms relay | Postfix | Haraka "
    "| x Postfix | PSS MB | p99 ms relay / Postfix / Haraka |\n|" + "---|" * 13
)


def row(cell: Cell, found: dict[str, list[Measured]], waits: dict[str, dict[int, float]]) -> str:
    ours, theirs, third = found["callpro-relay"], found["Postfix"], found["Haraka"]
    speed, cpu = ratio(ours, theirs, "rate"), ratio(ours, theirs, "cpu")
    best = min(speed, ratio(ours, third, "rate"))
    reached = best if cell.kept else speed
    shown = ""
    if waits and cell.concurrency == 50 and not cell.kept:
        shown = " / ".join(f"{waits[name][cell.size]:.0f}" for name in found)
    memory = max(value.memory for value in ours)
    return (
        f"| {cell.name} | {median(ours, 'rate'):.0f} | {median(theirs, 'rate'):.0f} | {median(third, 'rate'):.0f} "
        f"| {speed:.2f} | {best:.2f} | {cell.target:g} {_mark(reached >= cell.target)} "
        f"| {median(ours, 'cpu'):.2f} | {median(theirs, 'cpu'):.2f} | {median(third, 'cpu'):.2f} "
        f"| {cpu:.2f} {_mark(cpu <= TARGET_CPU)} | {memory / 1e6:.0f} {_mark(memory <= TARGET_MEMORY)} | {shown} |"
    )


def _mark(good: bool) -> str:
    return "ok" if good else "**short**"


def tune(rounds: int, scale: float) -> None:
    """Ways to set up Postfix and Haraka, each alone, so that the comparison is with the best."""
    cells = [Cell(5_000, 10, False), Cell(5_000, 50, False), Cell(100_000, 10, False)]
    print(f"| set-up | {' | '.join(f'{cell.name}: /s, CPU ms' for cell in cells)} |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        os.chmod(name, 0o755)
        with upstreams(Path(name)) as sinks:
            ways = {f"Postfix, {way}": postfix_in(Path(name), number, sinks, extra)
                    for number, (way, extra) in enumerate(POSTFIX_WAYS.items())}  # fmt: skip
            ways |= {f"Haraka, nodes={nodes}": haraka(Path(name), sinks, nodes) for nodes in ("0", "cpus")}
            for way, made in ways.items():
                with made as peer:
                    texts = []
                    for cell in cells:
                        mails = cell.mails(scale)
                        measure(peer, sinks, cell, max(2 * cell.concurrency, mails // 4))
                        found = [measure(peer, sinks, cell, mails) for _ in range(rounds)]
                        texts.append(f"{median(found, 'rate'):.0f}, {median(found, 'cpu'):.2f}")
                    print(f"| {way} | {' | '.join(texts)} |", flush=True)


def slow_commits(rounds: int, scale: float) -> None:
    """The relay alone on a disk whose commits take 5 ms longer."""
    if not shutil.which("cc"):
        raise SystemExit("--slow-commits compiles a small shim: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name, contextlib.ExitStack() as stack:
        shim = Path(name) / "slow_sync.so"
        source = Path(__file__).parent / "slow_sync.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
        sinks = stack.enter_context(upstreams(Path(name)))
        environment = {"LD_PRELOAD": str(shim), "SLOW_SYNC_MS": "5"}
        peer = stack.enter_context(callpro_relay(Path(name), sinks, environment=environment))
        print("commits 5 ms slower\n\n| load | relay/s | CPU ms |\n|---|---|---|")
        for cell in (Cell(5_000, at, False) for at in (1, 10, 50)):
            mails = cell.mails(scale)
            measure(peer, sinks, cell, max(2 * cell.concurrency, mails // 4))
            found = [measure(peer, sinks, cell, mails) for _ in range(rounds)]
            print(f"| {cell.name} | {median(found, 'rate'):.0f} | {median(found, 'cpu'):.2f} |", flush=True)


@contextlib.contextmanager
def postfix_in(folder: Path, number: int, sinks: dict[str, Sink], extra: str) -> Iterator[Peer]:
    (folder / str(number)).mkdir(mode=0o755)
    with postfix(folder / str(number), sinks, extra) as peer:
        yield peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 short rounds, under 5 minutes")
    parser.add_argument("--tune", action="store_true", help="compare ways to set up the peers")
    parser.add_argument("--slow-commits", action="store_true", help="the relay alone, each commit 5 ms slower")
    parser.add_argument("--rounds", type=int, default=0, help="default: 3 when quick, else 5")
    parser.add_argument("--only", default="", help="cells whose name holds this text, such as `5 KB, one each`")
    asked = parser.parse_args()
    rounds, scale = asked.rounds or (3 if asked.quick else 5), 0.6 if asked.quick else 2.0
    if asked.tune:
        tune(rounds, scale)
        return
    if asked.slow_commits:
        slow_commits(rounds, scale)
        return
    cells = [Cell(size, at, kept) for size in (5_000, 100_000) for kept in (False, True) for at in (1, 10, 50)]
    cells = [cell for cell in cells if cell.name.startswith(asked.only)]
    start = time.monotonic()
    found, waits = compare(cells, rounds, scale, lambda text: print(text, file=sys.stderr, flush=True))
    print(f"{os.cpu_count()} processors, peers in turn, medians of {rounds} rounds, {time.monotonic() - start:.0f} s;")
    print("nothing lost, doubled or at the wrong upstream. One each: a connection for each mail.\n")
    print(HEAD)
    for cell in cells:
        print(row(cell, found[cell], waits))


if __name__ == "__main__":
    main()
