"""Haraka from npm as a peer: its own queue, with one small plugin that takes mail from here and routes it by sender.

Its queue is not synced to disk before its 250, unlike Postfix's and ours: its numbers carry that.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from peers import HERE, ControlGroup, Peer, Sink, free_port, wait_for

PROGRAM = HERE / "bench" / "haraka" / "node_modules" / "Haraka" / "bin" / "haraka"


@contextlib.contextmanager
def haraka(folder: Path, sinks: Mapping[str, Sink], nodes: str = "0") -> Iterator[Peer]:
    """Running, with `nodes` processes (`cpus` is one for each processor)."""
    if not PROGRAM.exists() or not shutil.which("node"):
        raise SystemExit("Haraka is a peer: run bench/setup")
    home, port = folder / f"haraka-{nodes}", free_port()
    for name in ("config", "plugins", "queue"):
        (home / name).mkdir(parents=True)
    shutil.copy(HERE / "bench" / "haraka" / "plugins" / "by_sender.js", home / "plugins")
    shutil.copy(PROGRAM.parent.parent / "config" / "connection.ini", home / "config")
    texts = {
        "smtp.ini": f"listen=127.0.0.1:{port}\nnodes={nodes}\n",
        "outbound.ini": "concurrency_max=100\nenable_tls=false\nlocal_mx_ok=true\n",
        "plugins": "by_sender\n",
        "log.ini": "[main]\nlevel=notice\n",
        "me": "haraka.bench.test\n",
        "upstreams.json": json.dumps({domain: sink.port for domain, sink in sinks.items()}),
    }
    for name, text in texts.items():
        (home / "config" / name).write_text(text)
    group = ControlGroup(f"haraka-{nodes}")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["node", str(PROGRAM), "-c", str(home)], stdout=log, stderr=log, cwd=home, preexec_fn=group.enter
        )
    try:
        wait_for(port)
        yield Peer("Haraka", port, group)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        group.remove()
