"""Real PostgreSQL servers of Debian for tests: each in a folder of its own, on a free port of the loopback.

PostgreSQL refuses to run as root, so it runs as the user that Debian's package made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

_USER = "postgres"
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on"}


def programs() -> Path | None:
    """The folder of Debian's PostgreSQL programs, the newest version; None when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Server:
    """A server with its data. `start`, `stop` and `kill` as often as you like; `remove` at the end."""

    def __init__(self, settings: dict[str, str] | None = None, copy_of: Server | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relay-pg-", dir="/tmp"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        if copy_of is None:
            self._run("initdb", "-D", self.data, "-U", _USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        else:
            self._run(
                "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d",
                f"host=127.0.0.1 port={copy_of.port} user={_USER} application_name=replica",
            )  # fmt: skip
        defaults = {"max_connections": "200", "shared_buffers": "32MB", "wal_level": "replica", **FAST}
        self._settings = {**defaults, **(settings or {})}

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{port or self.port}/{database}"

    def serve_network(self, address: str, network: str, certificate: Path, key: Path) -> None:
        """From the next start on take connections at `address` too, with TLS, and let everybody of `network` in."""
        names = {"ssl_cert_file": certificate, "ssl_key_file": key}
        for name, source in names.items():
            file = Path(self.data) / source.name
            shutil.copy(source, file)
            file.chmod(0o600)
            if os.geteuid() == 0:
                user = pwd.getpwnam(_USER)
                os.chown(file, user.pw_uid, user.pw_gid)
            self._settings[name] = str(file)
        self._settings |= {"ssl": "on", "listen_addresses": f"127.0.0.1,{address}"}
        with (Path(self.data) / "pg_hba.conf").open("a") as rules:
            rules.write(f"hostssl all all {network} trust\n")

    def start(self) -> Server:
        options = [word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user("postgres", "-D", self.data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1",
                              "-c", f"unix_socket_directories={self.folder}", *options),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return self
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}") from None
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> None:
        """A fast shutdown: every connection is cut. SIGQUIT is a crash."""
        if self._process is not None:
            pid = int((Path(self.data) / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, number)
            self._process.wait(60)
            self._process = None

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-D", self.data, "-w")

    def database(self, name: str, encoding: str | None = None) -> str:
        """A new database; its url."""
        other = f" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0" if encoding else ""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"{other}')
        return self.url(name)

    def drop(self, name: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        folder = programs()
        assert folder is not None
        before = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--init-groups"] if os.geteuid() == 0 else []
        return [*before, str(folder / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._as_user(program, *arguments), capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
