"""What a mail costs by each kind of upstream, against look-alikes: CPU of the relay, and delivered mails a second.

Run as `python -m bench.ways [--mails N] [--size OCTETS]`, as root, with Debian's postfix for smtp-source. The
look-alikes are strict Python servers in this process, apart from the relay's: each mail costs them what the last
column says, and where a second of it is full before the relay's is, they are what the rate measures. The CPU column is
the relay's own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.peers import ControlGroup, free_port
from scripts.demo import SECRETS, Way, look_alikes, smtp_arrivals
from tests.fakes.smtp import FakeSmtp

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 10
_NO_PACE = "pace: {per_second: 100000, per_minute: 1000000, per_hour: 10000000, per_day: 100000000}"
"""Over what is known of Microsoft's limits: this asks what a mail costs, not how many Microsoft takes."""


async def hand_in(port: int, sender: str, mails: int, size: int) -> None:
    tool = shutil.which("smtp-source", path="/usr/sbin:/usr/bin")
    if tool is None:
        raise SystemExit("smtp-source is missing: apt-get install postfix")
    process = await asyncio.create_subprocess_exec(
        tool, "-s", str(AT_ONCE), "-m", str(mails), "-l", str(size), "-f", sender, "-t", "klant@example.test",
        f"127.0.0.1:{port}",
    )  # fmt: skip
    if await process.wait():
        raise SystemExit(f"smtp-source failed for {sender}")


async def measure(way: Way, port: int, group: ControlGroup, mails: int, size: int) -> tuple[float, float, float]:
    """The relay's CPU milliseconds a mail, mails a second, and the look-alike's CPU milliseconds a mail."""
    before, cpu, start = len(way.arrivals()), group.seconds(), time.monotonic()
    own = time.process_time()
    await hand_in(port, way.sender, mails, size)
    while (arrived := len(way.arrivals()) - before) < mails:
        if time.monotonic() - start > 120:
            raise SystemExit(f"{way.place}: {arrived} of {mails} mails arrived")
        await asyncio.sleep(0.01)
    seconds, own = time.monotonic() - start, time.process_time() - own
    await asyncio.sleep(0.2)
    return (group.seconds() - cpu) * 1000 / mails, mails / seconds, own * 1000 / mails


async def main(mails: int, size: int, rounds: int, only: str) -> None:
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
        folder = Path(name)
        port = free_port()
        async with look_alikes(folder) as street, FakeSmtp() as plain:
            routes = street.routes.replace("upstreams:\n", "upstreams:\n" + _plain(plain.port), 1)
            routes = routes.replace("{type: graph,", f"{{type: graph, {_NO_PACE},")
            routes = routes.replace("{type: smtp_oauth,", f"{{type: smtp_oauth, {_NO_PACE},")
            routes = routes.replace("routes:\n", "routes:\n  - {from: plain.nl, via: plain}\n", 1)
            (folder / "routes.yaml").write_text(routes)
            (folder / "relay.yaml").write_text(
                f"listen: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: 'sqlite:///{folder}/spool.db'}}\n"
            )
            group = ControlGroup("ways")
            environment = os.environ | SECRETS | {"SSL_CERT_FILE": str(street.authority.bundle)}
            with (folder / "log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, str(ROOT / "relay.py"), "serve", "--config", str(folder / "relay.yaml"),
                    stderr=log, env=environment, preexec_fn=group.enter,
                )  # fmt: skip
            try:
                first = Way("info@plain.nl", "info@plain.nl", "SMTP, no TLS", smtp_arrivals(plain))
                chosen = (way for way in street.ways if only in way.place and not _left_out(way))
                await table((first, *chosen), port, group, mails, size, rounds)
            finally:
                process.terminate()
                await process.wait()
                group.remove()


async def table(ways: tuple[Way, ...], port: int, group: ControlGroup, mails: int, size: int, rounds: int) -> None:
    await _listening(port)
    print(
        f"{size} octets, {AT_ONCE} clients, a connection for each mail; {rounds} rounds of {mails} mails, ways in turn"
    )
    print("medians; x plain is that of each round; the rate is the best\n")
    print("| way out | CPU ms a mail | x plain | delivered/s | look-alike's ms |\n|---|---|---|---|---|")
    for way in ways:
        await measure(way, port, group, max(20, mails // 5), size)
    found: dict[Way, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way].append(await measure(way, port, group, mails, size))
    plain = [cpu for cpu, _, _ in found[ways[0]]]
    for way, results in found.items():
        cpu, rates, own = zip(*results, strict=True)
        ratio = median(each / without for each, without in zip(cpu, plain, strict=True))
        print(f"| {way.place} | {median(cpu):.2f} | {ratio:.2f} | {max(rates):.0f} | {median(own):.2f} |", flush=True)


def _left_out(way: Way) -> bool:
    """A folder takes no time, and Campaign Monitor is never under load."""
    return "folder" in way.place or "Campaign" in way.place


async def _listening(port: int) -> None:
    for _ in range(400):
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit("the relay does not listen")


def _plain(port: int) -> str:
    return f"  plain: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=400)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="beside plain SMTP only ways whose name has this in it")
    asked = parser.parse_args()
    asyncio.run(main(asked.mails, asked.size, asked.rounds, asked.only))
