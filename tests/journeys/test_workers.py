"""`workers: N` on one PostgreSQL: several processes on one port, killed, reloaded, drained and told wrong things.

Real processes, a real database, real clients; what got its 250 arrives whatever happens to one of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fakes import postgres
from tests.fakes.relay_process import ROOT, Event, RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.fakes.tcp_proxy import TcpProxy
from tests.faults.kill_rounds import Tally, client
from tests.faults.node_rounds import Nodes
from tests.journeys.mails import header
from tests.journeys.test_activation import MAIL, Kept, one_mail
from tests.journeys.test_activation import write as write_activated
from tests.waiting import until

QUIET = "doctor: {every: 0s}\n"


def rules(port: int, *domains: str) -> str:
    up = f"upstreams:\n  up: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none}}\nroutes:\n"
    return up + "".join(f"  - {{from: {domain}, via: up}}\n" for domain in domains or ("acme.nl",))


class Workers(RelayProcess):
    """A relay of several processes: `start` waits until all of them listen."""

    def __init__(self, folder: Path, routes: str, url: str, count: int = 2, extra: str = "", **more: object) -> None:
        extra = f"{QUIET}workers: {count}\ndelivery: {{retry: [1s]}}\n{extra}"
        options = f", lease: 3s{more.pop('buffer', '')}"
        super().__init__(folder, routes, url=url, spool_options=options, extra=extra, **more)  # type: ignore[arg-type]

    async def start(self) -> None:
        seen = len(self.events)
        await super().start()
        await self.event("workers_started", after=seen)

    def pids(self) -> dict[int, int]:
        """The process of each worker, by its number."""
        return {
            int(str(event["worker"])): int(str(event["pid"]))
            for event in self.events
            if event["event"] == "worker_started"
        }

    def said(self, name: str) -> list[Event]:
        return [event for event in self.events if event["event"] == name]

    async def again(self, worker: int, after: int) -> None:
        """Wait until it is there again."""
        started = await self.event("worker_started", after=after, worker=worker)
        await self.event("started", after=self.events.index(started), worker=worker)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def replies(port: int, sender: str, times: int = 12) -> Counter[str]:
    """What so many clients, each with a connection of its own at the same time, hear to MAIL FROM."""

    async def one() -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await reader.readline()
            writer.write(f"HELO x\r\nMAIL FROM:<{sender}>\r\n".encode())
            await reader.readline()
            return (await asyncio.wait_for(reader.readline(), 60)).decode()[:3]
        finally:
            writer.close()

    return Counter(await asyncio.gather(*(one() for _ in range(times))))


async def all_take_mail(port: int, events: list[Event], workers: set[int], after: int = 0) -> int:
    """Mails by so many connections at once, until each worker has taken some; how many. They race for each of them."""
    for batch in range(1, 50):
        answers = Counter(await asyncio.gather(*(one_mail(port) for _ in range(20))))
        assert answers == {"250 2.0.0": 20}
        await asyncio.sleep(0.05)  # the log gathers its lines
        if {event["worker"] for event in events[after:] if event["event"] == "accepted"} == workers:
            return batch * 20
    raise AssertionError("one of them takes nothing")


@pytest.mark.parametrize("struck", [1, 2])
def test_a_worker_is_killed_under_load_and_everything_arrives(tmp_path: Path, database: str, struck: int) -> None:
    async def journey() -> None:
        over, tally = asyncio.Event(), Tally()
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 3) as relay:
            nodes = Nodes([relay], upstream, database, tally)
            clients = [asyncio.create_task(client(relay.port, f"c{one}", over, tally)) for one in range(9)]
            await asyncio.sleep(1.0)
            seen, pid = len(relay.events), relay.pids()[struck]
            os.kill(pid, signal.SIGKILL)
            died = await relay.event("worker_died", after=seen)
            assert (died["worker"], died["pid"], died["level"]) == (struck, pid, "error")
            assert "SIGKILL" in str(died["why"])
            await relay.again(struck, seen)
            await asyncio.sleep(1.0)
            over.set()
            await asyncio.gather(*clients)
            await until(lambda: not (nodes.count() or tally.lost), every=0.1)
            assert await relay.stop() == 0
            nodes.count()
            assert len(tally.promised) > 50
            assert not tally.lost
            assert not tally.invented

    asyncio.run(journey())


def test_a_reload_is_for_all_or_for_nobody(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with FakeSmtp() as upstream:
            relay = Workers(tmp_path / "r", rules(upstream.port), database, 3)
            async with relay:
                assert await replies(relay.port, "info@globex.nl") == {"550": 12}
                relay.write_routes(rules(upstream.port, "acme.nl", "globex.nl"))
                seen = len(relay.events)
                assert (await relay.reload())["event"] == "reloaded"
                assert await replies(relay.port, "info@globex.nl") == {"250": 12}

                relay.write_routes(
                    rules(upstream.port, "acme.nl", "globex.nl") + "  - {from: initech.nl, via: nobody}\n"
                )
                assert (await relay.reload())["event"] == "reload_refused"
                assert await replies(relay.port, "info@globex.nl") == {"250": 12}
                pid = relay.pids()[2]
                os.kill(pid, signal.SIGKILL)  # it comes back by the rules in force, not by those on disk
                await relay.again(2, seen)
                assert await replies(relay.port, "info@globex.nl", 30) == {"250": 30}
                # one answer each, and not one from each worker
                counts = Counter(event["event"] for event in relay.events[seen:] if event.get("level") != "warning")
                assert (counts["reloaded"], counts["reload_refused"], counts["config"]) == (1, 1, 1)
                assert counts["rules_change"] == 1

    asyncio.run(journey())


def test_a_worker_whose_files_cannot_be_read_keeps_all_by_the_old_rules(tmp_path: Path, database: str) -> None:
    """Rules that one worker alone refuses, for it does not answer at all."""

    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 2) as relay:
            stopped = relay.pids()[2]
            os.kill(stopped, signal.SIGSTOP)
            try:
                relay.write_routes(rules(upstream.port, "acme.nl", "globex.nl"))
                refused = await relay.reload()
            finally:
                os.kill(stopped, signal.SIGCONT)
            assert refused["event"] == "reload_refused"
            assert "worker 2 does not answer" in str(refused["why"])
            assert await replies(relay.port, "info@globex.nl") == {"550": 12}
            assert (await relay.reload())["event"] == "reloaded"
            assert await replies(relay.port, "info@globex.nl") == {"250": 12}

    asyncio.run(journey())


def test_files_that_change_are_noticed_once_for_all(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with (
            FakeSmtp() as upstream,
            Workers(tmp_path / "r", rules(upstream.port), database, 2, extra="watch: 1s\n") as relay,
        ):
            relay.write_routes(rules(upstream.port, "acme.nl", "globex.nl"))
            await relay.event("reloaded")
            assert await replies(relay.port, "info@globex.nl") == {"250": 12}

    asyncio.run(journey())


def test_sigterm_drains_all_of_them(tmp_path: Path, database: str) -> None:
    """Mail under way at each of them still leaves, nobody new is let in, and nothing is left behind."""

    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 2) as relay:
            writers, readers = [], []
            for _ in range(16):
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(MAIL)
                while not (await asyncio.wait_for(reader.readline(), 60)).startswith(b"354"):
                    pass
                readers.append(reader)
                writers.append(writer)
            pids = list(relay.pids().values())
            stopping = asyncio.create_task(relay.stop())
            await relay.event("stopping", worker=1)
            await relay.event("stopping", worker=2)
            assert await one_mail(relay.port) == "ConnectionRefusedError"
            for writer in writers:
                writer.write(b"Subject: hoi\r\n\r\nHallo\r\n.\r\n")
            for reader in readers:
                assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"250")
            assert await stopping == 0
            assert all(gone(pid) for pid in pids)
        async with Workers(tmp_path / "r", rules(upstream.port), database, 2) as relay:
            assert not relay.said("worker_died")

    asyncio.run(journey())


def test_workers_do_not_outlive_their_parent(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 2) as relay:
            pids = list(relay.pids().values())
            relay.signal(signal.SIGKILL)
            await until(lambda: all(gone(pid) for pid in pids))
            assert relay._process
            assert relay._reader
            await relay._process.wait()
            await relay._reader
            assert len(relay.said("stopped")) == 2, "in good order"

    asyncio.run(journey())


# ---- what systemd is told


class Systemd:
    """Hears what a service tells (sd_notify(3)): every message, as a dictionary."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Systemd]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._hear)
        try:
            yield self
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                lines = self._socket.recv(65536).decode().splitlines()
                said = dict(line.partition("=")[::2] for line in lines)
                self.heard.append((asyncio.get_running_loop().time(), said))

    def count(self, key: str) -> int:
        return sum(key in said for _, said in self.heard)


SHORT = """\
import sys
import ops.workers
ops.workers._START = ops.workers._DRAIN = 2.0
import relay
sys.exit(relay.main(sys.argv[3:]))
"""


def test_one_that_hangs_is_killed_at_its_start_and_at_the_end(tmp_path: Path, database: str) -> None:
    """With seconds in the place of a minute."""

    async def journey() -> None:
        parts = urlsplit(database)
        async with FakeSmtp() as upstream, TcpProxy(parts.port or 0) as proxy:
            url = database.replace(f":{parts.port}/", f":{proxy.port}/")
            routes, within = rules(upstream.port), (sys.executable, "-c", SHORT)
            relay = Workers(tmp_path / "r", routes, url, 2, environment={"PYTHONPATH": str(ROOT)}, within=within)
            async with relay:
                seen = len(relay.events)
                proxy.freeze()
                os.kill(relay.pids()[2], signal.SIGKILL)
                killed = await relay.event("worker_killed", after=seen)
                assert (killed["worker"], killed["why"]) == (2, "not ready in 2 seconds")
                seen = len(relay.events)
                proxy.thaw()
                await relay.again(2, seen)

                stuck = relay.pids()[2]
                os.kill(stuck, signal.SIGSTOP)
                assert await relay.stop() == 0
                assert relay.said("worker_killed")[-1]["why"] == "it did not stop within 2 seconds"
                assert gone(stuck)

    asyncio.run(journey())


def test_systemd_hears_of_one_service(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        systemd = Systemd(tmp_path / "notify")
        told = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "600000"}
        async with systemd.listening(), FakeSmtp() as upstream:
            relay = Workers(tmp_path / "r", rules(upstream.port), database, 2, environment=told)
            await relay.start()
            await until(lambda: systemd.count("READY") == 1)
            status = next(said["STATUS"] for _, said in systemd.heard if "READY" in said)
            assert status.startswith("2 workers, listening on 127.0.0.1:")
            await until(lambda: systemd.count("WATCHDOG") >= 3)

            stuck = relay.pids()[2]
            os.kill(stuck, signal.SIGSTOP)  # alive, and nothing moves: nobody may say that all is well
            await asyncio.sleep(0.5)
            pings = systemd.count("WATCHDOG")
            await asyncio.sleep(1.5)
            assert systemd.count("WATCHDOG") == pings
            os.kill(stuck, signal.SIGCONT)
            await until(lambda: systemd.count("WATCHDOG") > pings)

            await relay.reload()
            await until(lambda: systemd.count("READY") == 2)
            assert systemd.count("RELOADING") == 1
            assert await relay.stop() == 0
            await until(lambda: systemd.count("STOPPING") == 1)
            assert systemd.count("READY") == 2

    asyncio.run(journey())


def test_a_worker_that_cannot_start_does_not_take_the_others_along(tmp_path: Path) -> None:
    """The database is away, so it cannot; the others answer 451, and systemd is told that the relay lives."""

    async def journey() -> None:
        systemd, server = Systemd(tmp_path / "notify"), postgres.Server().start()
        told = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "600000"}
        try:
            async with systemd.listening(), FakeSmtp() as upstream:
                relay = Workers(tmp_path / "r", rules(upstream.port), server.url(), 2, environment=told)
                async with relay:
                    server.stop()
                    seen = len(relay.events)
                    os.kill(relay.pids()[2], signal.SIGKILL)
                    why = "it ended with exit code 1; its own lines before this one say more"
                    await relay.event("worker_died", after=seen, why=why)
                    pings = systemd.count("WATCHDOG")
                    await until(lambda: systemd.count("WATCHDOG") > pings + 2)
                    assert (await one_mail(relay.port)).startswith("451")
                    server.start()
                    await relay.again(2, seen)
        finally:
            server.remove()

    asyncio.run(journey())


def test_all_accept_on_the_socket_that_systemd_keeps(tmp_path: Path, database: str) -> None:
    port = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
    serve = write_activated(tmp_path, port)
    config = tmp_path / "relay.yaml"
    config.write_text(
        f"hostname: relay.test\nlisten: [{{address: '127.0.0.1:{port}'}}]\nspool: {{url: '{database}'}}\n"
        f"workers: 2\n{QUIET}"
    )

    async def journey() -> None:
        async with Kept(port, serve) as kept:
            assert await one_mail(port) == "250 2.0.0"
            await until(lambda: any(event["event"] == "workers_started" for event in kept.events))
            first = kept.relay()
            await all_take_mail(port, kept.events, {1, 2})
            os.kill(first, signal.SIGTERM)  # the port stays: the next client is taken by the next relay
            await until(lambda: gone(first))
            assert await one_mail(port) == "250 2.0.0"

    asyncio.run(journey())


# ---- one address for people and monitors


def samples(text: str, name: str) -> dict[str, float]:
    """The values of a metric by its worker, added up."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(rf"^callpro_relay_{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE):
        worker = re.search(r'worker="(\d+)"', labels)
        found[worker[1] if worker else ""] += float(value)
    return dict(found)


def test_page_metrics_and_commands_speak_for_all(tmp_path: Path, database: str) -> None:
    extra = "status: {address: '127.0.0.1:0'}\n"

    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 3, extra) as relay:
            pages = [event for event in relay.said("status_listening") if "127.0.0.1" in str(event["address"])]
            assert [event["worker"] for event in pages] == [1]
            sent = await all_take_mail(relay.port, relay.events, {1, 2, 3})
            await until(lambda: different(upstream) == sent)
            async with httpx.AsyncClient(base_url=f"http://{pages[0]['address']}", timeout=60) as browser:
                assert (await browser.get("/readyz")).status_code == 200
                text = (await browser.get("/metrics")).text
                accepted = samples(text, "accepted_mails_total")
                assert (set(accepted), sum(accepted.values())) == ({"1", "2", "3"}, sent), text
                assert sum(samples(text, "delivered_recipients_total").values()) == sent
                assert samples(text, "worker_up") == {"1": 1, "2": 1, "3": 1}
                assert samples(text, "nodes") == {"": 3}, "what is in the database is said once"
                assert text.count("# HELP callpro_relay_accepted_mails_total ") == 1
                shown = (await browser.get("/nodes")).text
                assert all(f":{pid}" in shown for pid in relay.pids().values())

                seen = len(relay.events)
                os.kill(relay.pids()[3], signal.SIGSTOP)
                try:
                    await asyncio.sleep(1.1)
                    text = (await browser.get("/metrics", timeout=30)).text
                    assert samples(text, "worker_up") == {"1": 1, "2": 1, "3": 0}
                finally:
                    os.kill(relay.pids()[3], signal.SIGCONT)
                os.kill(relay.pids()[1], signal.SIGKILL)
                await relay.again(1, seen)
            code, text = await relay.command("nodes", "--json")
            assert (code, len(json.loads(text)["nodes"])) == (0, 3), text
            code, text = await relay.command("queue", "hold", "--route", "acme.nl")
            assert code == 0, text
            code, text = await relay.command("queue", "holds")
            assert "acme.nl" in text
            code, text = await relay.command("check", "--diff")
            assert (code, "No customer changes" in text) == (0, True), text

    asyncio.run(journey())


def test_health_is_that_of_all_of_them(tmp_path: Path, database: str) -> None:
    """Whichever hangs, somebody answers; and while the database answers nobody, every number is there."""
    extra = "status: {address: '127.0.0.1:0', token: een-lang-geheim-van-ons}\n"

    async def journey() -> None:
        parts = urlsplit(database)
        async with FakeSmtp() as upstream, TcpProxy(parts.port or 0) as proxy:
            url = database.replace(f":{parts.port}/", f":{proxy.port}/")
            async with (
                Workers(tmp_path / "r", rules(upstream.port), url, 3, extra) as relay,
                httpx.AsyncClient(base_url=f"http://{relay.said('status_listening')[0]['address']}", timeout=60) as web,
            ):

                async def asked() -> tuple[int, int, str]:
                    alive, ready = await web.get("/healthz"), await web.get("/readyz")
                    return alive.status_code, ready.status_code, alive.json()["checks"]["workers"]

                assert await asked() == (200, 200, "ok")
                for hangs in (2, 1):
                    os.kill(relay.pids()[hangs], signal.SIGSTOP)
                    try:
                        assert await asked() == (503, 200, f"no answer from {hangs}")
                    finally:
                        os.kill(relay.pids()[hangs], signal.SIGCONT)
                    await until(lambda: good(web, "/healthz"), every=0.1)

                # the pages are the first worker's, whoever is asked, and know who has logged in
                entered = await web.post("/login", data={"token": "een-lang-geheim-van-ons", "name": "Jan"})
                assert entered.status_code == 303
                assert (await relay.event("status_login"))["peer"] == "127.0.0.1"
                cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
                pages = await asyncio.gather(*(web.get("/", headers=cookie) for _ in range(12)))
                assert {(page.status_code, "/logout" in page.text) for page in pages} == {(200, True)}
                assert all(page.headers["x-content-type-options"] == "nosniff" for page in pages)

                proxy.freeze()
                await until(lambda: bad(web, "/readyz"), "an answer that is no longer the last one", every=0.1)
                ready, numbers = await asyncio.gather(web.get("/readyz"), web.get("/metrics"))
                assert re.match("worker 1: .*; worker 2: .*; worker 3: ", ready.json()["checks"]["spool"]), ready.text
                assert samples(numbers.text, "worker_up") == {"1": 1, "2": 1, "3": 1}
                assert samples(numbers.text, "ready") == {"1": 0, "2": 0, "3": 0}
                proxy.thaw()
                await until(lambda: good(web, "/readyz"), every=0.1)

    asyncio.run(journey())


async def good(web: httpx.AsyncClient, path: str) -> bool:
    return (await web.get(path)).status_code == 200


async def bad(web: httpx.AsyncClient, path: str) -> bool:
    return (await web.get(path)).status_code == 503


def test_an_alert_comes_once_and_not_from_each(tmp_path: Path) -> None:
    """A worker that died, and a database that is away for all of them."""
    told = tmp_path / "told"
    extra = f"alerts: {{command: [sh, -c, 'cat >> {told}; echo >> {told}']}}\n"

    async def journey() -> None:
        server = postgres.Server().start()
        try:
            async with (
                FakeSmtp() as upstream,
                Workers(tmp_path / "r", rules(upstream.port), server.url(), 3, extra) as relay,
            ):
                seen = len(relay.events)
                os.kill(relay.pids()[1], signal.SIGKILL)
                await relay.event("alert_sent", after=seen)
                await relay.again(1, seen)
                server.stop()
                assert (await one_mail(relay.port)).startswith("451")
                for _ in range(20):
                    await one_mail(relay.port)
                await relay.event("spool.trouble", worker=1)
                await until(lambda: told.read_text().count('"event": "spool.trouble"') == 1)
                server.start()
                await relay.event("spool.recovered")
                said = [json.loads(line) for line in told.read_text().splitlines() if line]
                assert [one["event"] for one in said] == ["worker_died", "spool.trouble"]
                assert "Worker 1 died and is started again: it was killed by SIGKILL" in said[0]["text"]
        finally:
            server.remove()

    asyncio.run(journey())


def different(upstream: FakeSmtp) -> int:
    """Mails that arrived; what was under way when the database went comes twice."""
    return len({header(mail.content, "Message-ID") for mail in upstream.received})


def test_each_has_a_buffer_of_its_own(tmp_path: Path) -> None:
    """The database is away: all take mail, and all of it arrives. What a worker that is no more had is told."""
    buffer, page = ", buffer: sqlite", "status: {address: '127.0.0.1:0'}\n"

    async def journey() -> None:
        server = postgres.Server().start()
        try:
            async with FakeSmtp() as upstream:
                routes = rules(upstream.port)
                async with Workers(tmp_path / "r", routes, server.url(), 2, page, buffer=buffer) as relay:
                    server.stop()
                    sent = await all_take_mail(relay.port, relay.events, {1, 2})
                    assert not upstream.received
                    _, text = await relay.command("queue", "list")
                    assert f"{sent} mails wait in the buffer of this machine" in text
                    async with httpx.AsyncClient(
                        base_url=f"http://{relay.said('status_listening')[0]['address']}"
                    ) as web:
                        assert f"on this machine ({sent})" in (await web.get("/")).text
                        assert sum(samples((await web.get("/metrics")).text, "buffer_mails").values()) == sent
                    seen = len(relay.events)
                    os.kill(relay.pids()[2], signal.SIGKILL)  # it finds its own file again
                    await relay.again(2, seen)
                    server.start()
                    await until(lambda: different(upstream) == sent)
                    server.stop()
                    seen = len(relay.events)
                    sent += await all_take_mail(relay.port, relay.events, {1, 2}, seen)
                    assert await relay.stop() == 0
                server.start()
                (tmp_path / "s").symlink_to(tmp_path / "r")
                one = RelayProcess(
                    tmp_path / "s", routes, url=server.url(), spool_options=f", lease: 3s{buffer}", extra=QUIET
                )
                async with one:
                    left = await one.event("spool.buffer_left")
                    assert (left["file"], left["level"]) == (str(tmp_path / "s" / "buffer.worker-2.db"), "error")
                    assert "`workers: 2`" in str(left["do"])
                async with Workers(tmp_path / "r", routes, server.url(), 2, buffer=buffer):
                    await until(lambda: different(upstream) == sent)
        finally:
            server.remove()

    asyncio.run(journey())


def test_the_log_says_who_spoke_and_keeps_lines_whole(tmp_path: Path, database: str) -> None:
    """Many lines of several processes at once, and none inside another."""

    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 3) as relay:
            await asyncio.gather(*(one_mail(relay.port) for _ in range(300)))
            await until(lambda: len(upstream.received) == 300)
            assert await relay.stop() == 0
            assert not relay.said("stray output")
            assert all("worker" in one for one in relay.events if one["event"] not in ("workers_started", "config"))

    asyncio.run(journey())


# ---- what cannot be


async def ends(relay: RelayProcess) -> tuple[int, list[Event]]:
    """The exit code of a relay that does not start, and what it said."""
    with pytest.raises(AssertionError, match="ended before"):
        await relay.start()
    assert relay._process
    return await relay._process.wait(), relay.events


def test_what_cannot_be_is_said_once(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        relay = Workers(tmp_path / "port", rules(1), database, 3)
        relay.port = taken.getsockname()[1]
        code, said = await ends(relay)
        assert code == 1
        (text,) = [str(event["text"]) for event in said if event["event"] == "stray output"]
        assert text.startswith(
            f"callpro-relay: cannot listen on 127.0.0.1:{relay.port}: Address already in use; another"
        )
        taken.close()

        code, said = await ends(Workers(tmp_path / "db", rules(1), database + "_no", 3))
        assert code == 1
        stray = [str(event["text"]) for event in said if event["event"] == "stray output"]
        assert len(stray) == 1, said
        assert "does not exist" in stray[0]
        assert not any(event["event"] == "worker_died" for event in said)

        code, said = await ends(Workers(tmp_path / "rules", "routes: nothing\n", database, 3))
        assert code == 1
        assert [event["event"] for event in said if event.get("level") == "error"] == ["config"]

        code, said = await ends(Workers(tmp_path / "sqlite", rules(1), f"sqlite:///{tmp_path}/spool.db", 3))
        assert code == 1
        assert any("one file has one writer" in str(event) and "PostgreSQL" in str(event) for event in said), said

    asyncio.run(journey())


def test_one_that_dies_again_and_again_is_started_ever_more_slowly(tmp_path: Path, database: str) -> None:
    async def journey() -> None:
        async with FakeSmtp() as upstream, Workers(tmp_path / "r", rules(upstream.port), database, 2) as relay:
            for _ in range(3):
                seen = len(relay.events)
                os.kill(relay.pids()[2], signal.SIGKILL)
                await relay.again(2, seen)
            assert [event["again_in"] for event in relay.said("worker_died")] == [0.25, 0.5, 1.0]

    asyncio.run(journey())
