"""The real relay as a process of its own, for journeys and the demo: files, a port, its log, and nothing patched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.waiting import LONG

ROOT = Path(__file__).resolve().parent.parent.parent
Event = dict[str, object]


class RelayProcess:
    """`relay.py serve` with `routes` as its routes.yaml. An async context manager; leaving it stops the relay.

    `port` is where it listens. `events` are its log lines, parsed. `extra` goes to the end of relay.yaml. `listen` are
    more listeners (YAML, `{address: ...}`), whose ports follow the first in `ports`. `environment` is added to this
    process's own (SSL_CERT_FILE, secrets), `spool` is a file somewhere else than in `folder`; `url` is another kind of
    spool, and `spool_options` stand behind its url: `, lease: 3s`. `host` is where it listens, for all of
    that /24; `within` is a command that starts it somewhere else, such as nsenter.
    """

    def __init__(
        self,
        folder: Path,
        routes: str,
        *,
        extra: str = "",
        listen: str = "",
        environment: Mapping[str, str] | None = None,
        watch: Callable[[Event], None] | None = None,
        spool: Path | None = None,
        url: str | None = None,
        spool_options: str = "",
        host: str = "127.0.0.1",
        within: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.spool = spool or folder / "spool.db"
        self.url = url or f"sqlite:///{self.spool}"
        self.config = folder / "relay.yaml"
        self.events: list[Event] = []
        self.host = host
        self.port = 0
        self.ports: list[int] = []
        self._extra = extra
        self._listen = f", {listen}" if listen else ""
        self._spool_options = spool_options
        self._environment = dict(environment or {})
        self._watch = watch
        self._within = within
        self._changed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.write_routes(routes)

    def write_routes(self, routes: str) -> None:
        """New rules; they count from the next start or `reload`. The file is never seen half written."""
        written = self.folder / "routes.new"
        written.write_text(routes, "utf-8")
        written.replace(self.folder / "routes.yaml")

    async def __aenter__(self) -> RelayProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.running:
            await self.stop()

    async def start(self) -> None:
        """Start it and wait until it listens. The port stays the same over restarts."""
        self._write_config()
        seen = len(self.events)
        self._process = await asyncio.create_subprocess_exec(
            *self._within, sys.executable, str(ROOT / "relay.py"), "serve", "--config", str(self.config),
            "--log-format", "json",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env=self._surroundings(), limit=1 << 20,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        started = await self.event("started", after=seen)
        listen = started["listen"]
        assert isinstance(listen, list)
        self.ports = [int(str(address).rpartition(":")[2]) for address in listen]
        self.port = self.ports[0]
        self._write_config()  # for the commands beside it, and for the next start

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        assert self._process
        assert self._reader
        self._process.send_signal(number)
        code = await asyncio.wait_for(self._process.wait(), LONG)
        await self._reader
        return code

    @property
    def pid(self) -> int:
        """The number of the process, while it runs."""
        assert self._process
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def memory(self) -> int:
        """Octets of memory that are its own share (PSS, proc(5)); reading it costs the process nothing."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text("ascii")
        return int(text.partition("\nPss:")[2].split()[0]) << 10

    def signal(self, number: int) -> None:
        """Send a signal, and wait for nothing."""
        assert self._process
        self._process.send_signal(number)

    async def reload(self) -> Event:
        """SIGHUP; the event that ended the reload (`reloaded` or `reload_refused`)."""
        assert self._process
        seen = len(self.events)
        self._process.send_signal(signal.SIGHUP)
        return await self.event("reloaded", "reload_refused", after=seen)

    async def event(self, *names: str, after: int = 0, seconds: float = LONG, **fields: object) -> Event:
        """Wait for an event of one of these names with these fields, from index `after` of `events` on."""

        def found() -> Event | None:
            return next(
                (e for e in self.events[after:] if e["event"] in names and fields.items() <= e.items()),
                None,
            )

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: found() or self._ended()), seconds)
            except TimeoutError:
                raise AssertionError(f"no {names} {fields} in {seconds} s; the log:\n{self.log()}") from None
            event = found()
        if event is None:
            raise AssertionError(f"the relay ended before {names}; the log:\n{self.log()}")
        return event

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Another command of the relay beside the running one: exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "relay.py"), *arguments, "--config", str(self.config),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=self._surroundings(),
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    def log(self) -> str:
        """Everything it logged so far, a line per event."""
        return "\n".join(json.dumps(event, ensure_ascii=False) for event in self.events)

    def _write_config(self) -> None:
        allow = "" if self.host == "127.0.0.1" else f", allow: [{self.host.rpartition('.')[0]}.0/24]"
        self.config.write_text(
            f"hostname: relay.test\nlisten: [{{address: '{self.host}:{self.port}'{allow}}}{self._listen}]\n"
            f"spool: {{url: '{self.url}'{self._spool_options}}}\n{self._extra}",
            "utf-8",
        )

    def _surroundings(self) -> dict[str, str]:
        """Its folder is its unit's state folder too."""
        return {**os.environ, "STATE_DIRECTORY": str(self.folder), **self._environment}

    def _ended(self) -> bool:
        return self._reader is not None and self._reader.done()

    async def _read(self) -> None:
        assert self._process
        assert self._process.stderr
        async for line in self._process.stderr:
            try:
                event: Event = json.loads(line)
            except ValueError:
                event = {"event": "stray output", "text": line.decode("utf-8", "replace").rstrip()}
            self.events.append(event)
            if self._watch:
                self._watch(event)
            async with self._changed:
                self._changed.notify_all()
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
