"""Two machines for the time of a test: network namespaces of the kernel, joined by cables that can be cut.

`python -m tests.faults.far_machine SCENE FOLDER` plays a scene and fails when a promise was broken. It has to be
started by `unshare --net`: then all of it, this machine included, is gone with the last process, and the host's network
is never touched.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes import postgres
from tests.fakes.authority import Authority
from tests.faults.node_rounds import LEASE, Nodes, Place, node_rounds
from tests.waiting import until

DATABASE, MAIL = "10.99.1.1", "10.99.2.1"
"""Where this machine is on the cable to the database, and on the one for everything else."""
FAR = "10.99.2.2"


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class FarMachine:
    """The other machine. `within` starts a command there."""

    def __init__(self, holder: int) -> None:
        self.within = ("nsenter", f"--net=/proc/{holder}/ns/net", "--")
        for name, near, far in (("db", DATABASE, "10.99.1.2"), ("mail", MAIL, FAR)):
            ip("link", "add", name, "type", "veth", "peer", "name", f"{name}-far", "netns", str(holder))
            ip("address", "add", f"{near}/24", "dev", name)
            ip("link", "set", name, "up")
            self._there("address", "add", f"{far}/24", "dev", f"{name}-far")
            self._there("link", "set", f"{name}-far", "up")
        self._there("link", "set", "lo", "up")

    def _there(self, *words: str) -> None:
        subprocess.run([*self.within, "ip", *words], check=True, capture_output=True)

    def cut(self) -> None:
        """Nothing passes between it and the database, and nobody is told. Its own end of the cable stays up."""
        ip("link", "set", "db", "down")

    def deafen(self) -> None:
        """What it says arrives at the database; the answers do not get back."""
        ip("rule", "add", "from", DATABASE, "to", "10.99.1.2", "blackhole")

    def mend(self) -> None:
        ip("link", "set", "db", "up")
        subprocess.run(["ip", "rule", "delete", "from", DATABASE, "to", "10.99.1.2"], check=False, capture_output=True)


@contextmanager
def far_machine() -> Iterator[FarMachine]:
    up = subprocess.run(["ip", "-o", "link", "show", "up"], check=True, capture_output=True, text=True)
    if up.stdout:
        raise RuntimeError(f"this is a network that somebody uses: start it by `unshare --net`\n{up.stdout}")
    ip("link", "set", "lo", "up")
    holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    try:
        mine = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == mine:
            time.sleep(0.01)
        yield FarMachine(holder.pid)
    finally:
        holder.kill()
        holder.wait()


@contextmanager
def database(folder: Path) -> Iterator[tuple[postgres.Server, Authority]]:
    """A server that the far machine reaches with TLS only, as a real one."""
    authority = Authority(folder)
    server = postgres.Server({"wal_keep_size": "64MB"})
    try:
        server.serve_network(DATABASE, "10.99.1.0/24", *authority.server_files(folder, DATABASE))
        yield server.start(), authority
    finally:
        server.remove()


def taken_by(nodes: Nodes, number: int) -> int:
    """For how many recipients a relay promised mail so far."""
    return sum(name.startswith(f"n{number}c") for name, _ in nodes.tally.promised)


def sent_by(nodes: Nodes, number: int, since: float, until: float) -> list[dict[str, object]]:
    """What a relay handed over in that time (unix seconds)."""
    events = nodes.relays[number].events
    return [e for e in events if e["event"] == "delivered" and since < float(str(e["time"])) < until]


async def play(folder: Path, *, answers: bool, buffer: bool) -> None:
    with far_machine() as far, database(folder) as (server, authority):
        times: list[float] = []

        async def strike(nodes: Nodes) -> None:
            nodes.note_under_way()
            (far.deafen if answers else far.cut)()
            dead = asyncio.create_task(nodes.heard_by_one("spool.node_dead", 0, 1))
            if buffer:
                await nodes.relays[2].event("spool.buffering", seconds=60)
                promised = taken_by(nodes, 2)
                await until(lambda: taken_by(nodes, 2) > promised, "mail that it takes")
            else:
                await nodes.relays[2].event("spool_unavailable", seconds=60)
            await dead
            times.append(time.time())
            await asyncio.sleep(LEASE)
            nodes.note_under_way()
            times.append(time.time())
            far.mend()
            await nodes.relays[2].event("spool.declared_dead", seconds=60)
            seen = len(nodes.relays[2].events)
            await nodes.relays[2].event("delivered", after=seen, seconds=60)
            if buffer:
                await nodes.relays[2].event("spool.buffer_drained", seconds=60)

        url = f"postgresql://postgres@{DATABASE}:{server.port}/postgres"
        place = Place(FAR, far.within, {"SSL_CERT_FILE": str(authority.bundle)})
        nodes = await node_rounds(
            folder, [server.url(), server.url(), url], strike, server.url(), buffer=buffer, upstream_host=MAIL,
            places={2: place},
        )  # fmt: skip
        said = f"{nodes.tally}; under way {nodes.under_way}, leases lost {nodes.lost_leases}"
        assert len(nodes.tally.promised) > 20, said
        assert not nodes.tally.lost, said
        assert not nodes.tally.invented, said
        assert nodes.tally.duplicates <= nodes.under_way + nodes.lost_leases, said
        assert nodes.tally.exit_codes == {0}, said
        begun_before, mended = times[0] + 1.0, times[1]
        assert not sent_by(nodes, 2, begun_before, mended), "it sent although others had its mail"
        print(said)


SCENES = {
    "cut": {"answers": False, "buffer": False},
    "cut with a buffer": {"answers": False, "buffer": True},
    "deaf": {"answers": True, "buffer": False},
}

if __name__ == "__main__":
    asyncio.run(play(Path(sys.argv[2]), **SCENES[sys.argv[1]]))
