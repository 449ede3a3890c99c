"""Delivered mails a second with TLS, with TLS and DKIM (RSA-2048), and with neither, by one process of the relay.

Run as `python -m bench.secure [--kept] [--mails N] [--rounds N]`, as root, with Debian's postfix and haproxy. The
client is smtp-source, the upstream smtp-sink; TLS is ended in front of it by haproxy, so that no Python but ours is
measured. The rounds of the three take turns; what is in the middle is told, and the ratio to plain of each round.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import ControlGroup, Peer, Sink, callpro_relay, free_port
from scripts.demo import new_signing_key
from tests.fakes.authority import Authority

WAYS = {"no TLS": "plain.test", "TLS": "tls.test", "TLS and DKIM": "both.test"}
_HAPROXY = """\
global
  maxconn 1000
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen tls
  bind 127.0.0.1:{port} ssl crt {certificate}
  server sink 127.0.0.1:{sink}
"""


@dataclass(frozen=True)
class Round:
    """Mails a second; milliseconds of processor a mail, of the relay and of haproxy."""

    rate: float
    cpu: float
    terminator: float


@contextlib.contextmanager
def tls_in_front(folder: Path, authority: Authority, sink: int) -> Iterator[tuple[int, ControlGroup]]:
    """The port where haproxy ends TLS for the sink, and what its processor time is counted in."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    if program is None:
        raise SystemExit("haproxy is missing: apt-get install haproxy")
    certificate, port, group = folder / "localhost.pem", free_port(), ControlGroup("haproxy")
    certificate.write_bytes(b"".join(path.read_bytes() for path in authority.server_files(folder)))
    certificate.chmod(0o600)
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(port=port, certificate=certificate, sink=sink))
    process = subprocess.Popen([program, "-db", "-f", str(folder / "haproxy.cfg")], preexec_fn=group.enter)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("haproxy does not start")
        yield port, group
    finally:
        process.terminate()
        process.wait()
        group.remove()


def rules(folder: Path, sink: int, secured: int) -> str:
    """The relay's rules: a domain for each way."""
    key = folder / "dkim.pem"
    key.write_bytes(new_signing_key())
    key.chmod(0o600)
    return f"""\
upstreams:
  plain: {{type: smtp, host: 127.0.0.1, port: {sink}, tls: none}}
  secured: {{type: smtp, host: localhost, port: {secured}, tls: implicit}}
routes:
  - {{from: plain.test, via: plain}}
  - {{from: tls.test, via: secured}}
  - {{from: both.test, via: secured, dkim: {{domain: both.test, selector: s, key: "file:{key}"}}}}
"""


def measure(peer: Peer, sink: Sink, terminator: ControlGroup, domain: str, mails: int, kept: bool) -> Round:
    before, cpu, theirs = sink.messages(), peer.group.seconds(), terminator.seconds()
    start = time.monotonic()
    keep = ["-d"] if kept else []
    client = subprocess.Popen(["smtp-source", *keep, "-s", "10", "-m", str(mails), "-l", "5000", "-f",
                               f"info@{domain}", "-t", "klant@example.test", f"127.0.0.1:{peer.port}"])  # fmt: skip
    while sink.messages() - before < mails:
        if time.monotonic() - start > 60:
            raise SystemExit(f"{domain}: {sink.messages() - before} of {mails} mails arrived")
        time.sleep(0.01)
    seconds = time.monotonic() - start
    if client.wait():
        raise SystemExit("smtp-source failed")
    time.sleep(0.3)
    if sink.messages() - before != mails:
        raise SystemExit(f"{domain}: {sink.messages() - before} of {mails} mails")
    return Round(
        mails / seconds,
        (peer.group.seconds() - cpu) * 1000 / mails,
        (terminator.seconds() - theirs) * 1000 / mails,
    )


def report(found: dict[str, list[Round]]) -> None:
    print("| way out | delivered/s | slowest to fastest | CPU ms a mail | x plain | haproxy's ms |")
    print("|---|---|---|---|---|---|")
    for name, results in found.items():
        rates = sorted(each.rate for each in results)
        ratio = statistics.median(each.cpu / plain.cpu for each, plain in zip(results, found["no TLS"], strict=True))
        print(f"| {name} | {statistics.median(rates):.0f} | {rates[0]:.0f} to {rates[-1]:.0f} "
              f"| {statistics.median(each.cpu for each in results):.2f} | {ratio:.2f} "
              f"| {statistics.median(each.terminator for each in results):.2f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="TLS and DKIM at full load, beside neither.")
    parser.add_argument("--mails", type=int, default=2000, help="a round; default: 2000")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--kept", action="store_true", help="clients keep their connection, as they may")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relay-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        authority, sink = Authority(folder), Sink(folder, "sink")
        stack.callback(sink.stop)
        port, terminator = stack.enter_context(tls_in_front(folder, authority, sink.port))
        environment = {"SSL_CERT_FILE": str(authority.bundle)}
        written = rules(folder, sink.port, port)
        peer = stack.enter_context(callpro_relay(folder, {}, environment=environment, rules=written))
        found: dict[str, list[Round]] = {each: [] for each in WAYS}
        for turn in range(asked.rounds + 1):
            for each, domain in WAYS.items():
                measured = measure(peer, sink, terminator, domain, asked.mails if turn else 200, asked.kept)
                if turn:
                    found[each].append(measured)
        how = "kept connections" if asked.kept else "a connection for each mail"
        print(f"5 KB, 10 clients, {how}; {asked.rounds} rounds of {asked.mails} mails")
        report(found)


if __name__ == "__main__":
    main()
