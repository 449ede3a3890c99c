"""The programs that a benchmark compares, each started alone with its own folder, and stopped by what was started.

Load only ever goes to 127.0.0.1. CPU is read from a control group where that can be had, so that every process counts.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
DOMAINS = ("acme.test", "globex.test")
POSTFIX_DAEMONS = "/usr/lib/postfix/sbin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.recv(100)
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on port {port} after {seconds} s")
        time.sleep(0.05)


class ControlGroup:
    """CPU seconds of everything started inside, the ended ones too (cgroup v1 cpuacct or v2)."""

    def __init__(self, name: str) -> None:
        for base, file in (("/sys/fs/cgroup/cpuacct", "cpuacct.usage"), ("/sys/fs/cgroup", "cpu.stat"),
                           ("/sys/fs/cgroup/unified", "cpu.stat")):  # fmt: skip
            folder = Path(base) / f"bench-{name}-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError:
                continue
            if (folder / file).exists():
                self._folder, self._file = folder, folder / file
                return
            folder.rmdir()
        raise SystemExit("CPU is counted by control group, and none can be made here: run this as root")

    def enter(self) -> None:
        """Called in a child between fork and exec."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self) -> float:
        text = self._file.read_text()
        if self._file.name == "cpuacct.usage":
            return int(text) / 1e9
        return int(re.search(r"usage_usec (\d+)", text)[1]) / 1e6  # type: ignore[index]

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()]

    def memory(self) -> int:
        """Octets of proportional set size of all inside."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())[1])  # type: ignore[index]
        return total * 1024

    def remove(self) -> None:
        deadline = time.monotonic() + 10
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        with contextlib.suppress(OSError):
            self._folder.rmdir()


class Sink:
    """An upstream: Postfix's smtp-sink, with its count of messages read from its own counter."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self._counter = folder / f"sink-{name}.txt"
        with self._counter.open("wb") as out:
            self._process = subprocess.Popen(
                ["smtp-sink", "-u", "nobody", "-c", f"127.0.0.1:{self.port}", "1000"], stdout=out
            )
        wait_for(self.port)

    def messages(self) -> int:
        with self._counter.open("rb") as counter:
            counter.seek(max(0, self._counter.stat().st_size - 200))
            found = re.findall(rb"mesg=(\d+)", counter.read())
        return int(found[-1]) if found else 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@dataclass(frozen=True)
class Peer:
    """A running relay of some make."""

    name: str
    port: int
    group: ControlGroup


@contextlib.contextmanager
def callpro_relay(
    folder: Path,
    sinks: Mapping[str, Sink],
    more: str = "",
    environment: Mapping[str, str] | None = None,
    rules: str | None = None,
) -> Iterator[Peer]:
    """`more` are keys of both upstreams, as in YAML, and `rules` are others than a route to each sink; `environment`
    is added to this process's own.
    """
    home = folder / "callpro-relay"
    home.mkdir()
    port = free_port()
    (home / "relay.yaml").write_text(
        f"listen: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: 'sqlite:///{home}/spool.db'}}\n"
    )
    upstreams = "".join(
        f"  {domain}: {{type: smtp, host: 127.0.0.1, port: {sink.port}, tls: none{more and ', '}{more}}}\n"
        for domain, sink in sinks.items()
    )
    routes = "".join(f"  - {{from: {domain}, via: {domain}}}\n" for domain in sinks)
    (home / "routes.yaml").write_text(rules or f"upstreams:\n{upstreams}routes:\n{routes}")
    group = ControlGroup("relay")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "relay.py"), "serve", "--config", str(home / "relay.yaml")],
            stderr=log, preexec_fn=group.enter, env=os.environ | dict(environment or {}),
        )  # fmt: skip
    try:
        wait_for(port)
        yield Peer("callpro-relay", port, group)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        group.remove()


_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {home}/log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
local_recipient_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
sender_dependent_relayhost_maps = texthash:{home}/relayhost
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtpd_tls_security_level = none
"""

_MASTER_CF = """\
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@contextlib.contextmanager
def postfix(folder: Path, sinks: Mapping[str, Sink], extra: str = "") -> Iterator[Peer]:
    if not shutil.which("postfix"):
        raise SystemExit("Postfix is the peer: apt-get install postfix")
    home = folder / "postfix"
    (home / "queue").mkdir(parents=True)
    (home / "data").mkdir()
    shutil.chown(home / "data", "postfix")
    os.chmod(folder, 0o755)
    port = free_port()
    (home / "main.cf").write_text(_MAIN_CF.format(home=home, daemons=POSTFIX_DAEMONS) + extra)
    (home / "master.cf").write_text(_MASTER_CF.format(port=f"127.0.0.1:{port}"))
    (home / "relayhost").write_text("".join(f"@{domain} [127.0.0.1]:{sink.port}\n" for domain, sink in sinks.items()))
    group = ControlGroup("postfix")
    command = ["postfix", "-c", str(home)]
    subprocess.run([*command, "start"], check=True, stderr=subprocess.DEVNULL, preexec_fn=group.enter)
    try:
        wait_for(port)
        yield Peer("Postfix", port, group)
    finally:
        subprocess.run([*command, "stop"], check=False, stderr=subprocess.DEVNULL)
        group.remove()
