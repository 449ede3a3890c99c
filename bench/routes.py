"""What the number of routes costs: calls for a mail, the time of `check`, start and memory, at 1, 50 and 5,000 routes.

Run as `python -m bench.routes`, with Debian's postfix for its tools. Calls are counted by cProfile in the real relay:
those of a run with many mails less those of a run with few, so a busy machine changes nothing.
"""

from __future__ import annotations

import argparse
import pstats
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.peers import HERE, Sink, free_port, wait_for

FEW, MANY = 200, 2200


def configure(home: Path, routes: int, sink: int) -> int:
    """relay.yaml, routes.yaml and a file for each hundred customers; returns the port."""
    port = free_port()
    (home / "routes.d").mkdir(parents=True)
    (home / "relay.yaml").write_text(
        f"listen: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: 'sqlite:///{home}/spool.db'}}\n"
    )
    there = f"  there: {{type: smtp, host: 127.0.0.1, port: {sink}, tls: none}}\n"
    (home / "routes.yaml").write_text(f"upstreams:\n{there}routes:\n  - {{from: klant0.nl, via: there}}\n")
    for start in range(1, routes, 100):
        lines = "".join(f"  - {{from: klant{at}.nl, via: there}}\n" for at in range(start, min(routes, start + 100)))
        (home / "routes.d" / f"{start}.yaml").write_text("routes:\n" + lines)
    return port


def run(home: Path, port: int, sink: Sink, mails: int, profile: Path | None) -> tuple[float, float]:
    """Serve so many mails. Returns the seconds until it listened, and megabytes of memory at the end."""
    profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
    command = [sys.executable, *profiler, str(HERE / "relay.py"), "serve", "--config", str(home / "relay.yaml")]
    begin = time.monotonic()
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log)
    wait_for(port, 60)
    started, before = time.monotonic() - begin, sink.messages()
    for sender in ("info@klant0.nl",):
        subprocess.run(["smtp-source", "-s", "4", "-m", str(mails), "-l", "5000", "-f", sender, "-t", "k@example.test",
                        f"127.0.0.1:{port}"], check=True)  # fmt: skip
    while sink.messages() - before < mails:
        time.sleep(0.02)
    status = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    return started, int(re.search(r"Pss:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]


def calls(profile: Path) -> int:
    return int(pstats.Stats(str(profile)).total_calls)  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routes", default="1,50,5000")
    asked = parser.parse_args()
    print("| routes | calls a mail | check s | start s | PSS MB |\n|---|---|---|---|---|")
    for routes in map(int, asked.routes.split(",")):
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
            home = Path(name) / "etc"
            sink = Sink(Path(name), "there")
            try:
                port = configure(home, routes, sink.port)
                begin = time.monotonic()
                subprocess.run([sys.executable, str(HERE / "relay.py"), "check", "--config", str(home / "relay.yaml")],
                               check=True, stdout=subprocess.DEVNULL)  # fmt: skip
                checked = time.monotonic() - begin
                started, memory = run(home, port, sink, FEW, None)
                counts = []
                for mails in (FEW, MANY):
                    run(home, port, sink, mails, Path(name) / "profile")
                    counts.append(calls(Path(name) / "profile"))
                each = (counts[1] - counts[0]) / (MANY - FEW)
                print(f"| {routes} | {each:.0f} | {checked:.1f} | {started:.1f} | {memory:.0f} |", flush=True)
            finally:
                sink.stop()


if __name__ == "__main__":
    main()
