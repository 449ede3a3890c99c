"""Disks that fill, fail and turn read-only, and files that others hold, below the real process: no 250 without a
commit, old mail still leaves, and it heals without a restart where the disk does.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import CUT, FakeSmtp
from tests.faults.disks import MB, SmallDisk, bad_disk, small_disk
from tests.waiting import until

QUICK = "delivery: {retry: [1s]}\n"


def rules(server: FakeSmtp) -> str:
    return (
        f"upstreams:\n  acme: {{type: smtp, host: 127.0.0.1, port: {server.port}, tls: none}}\n"
        "routes:\n  - {from: acme.nl, via: acme}\n"
    )


class Client:
    """Sends numbered mails, one at a time, and keeps what it was promised."""

    def __init__(self, relay: RelayProcess) -> None:
        self._relay = relay
        self._number = 0
        self.promised: list[str] = []

    async def send(self, octets: int = 5000) -> str:
        """One mail; the relay's last reply."""
        self._number += 1
        to = f"r{self._number}@example.nl"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._relay.port)
        line = b"x" * 70 + b"\r\n"
        content = b"From: info@acme.nl\r\nSubject: x\r\n\r\n" + line * (octets // len(line)) + b".\r\n"
        reply = (await reader.readline()).decode()
        for said in (b"MAIL FROM:<info@acme.nl>\r\n", f"RCPT TO:<{to}>\r\n".encode(), b"DATA\r\n", content):
            writer.write(said)
            reply = (await reader.readline()).decode()
            if reply[0] not in "23":
                break
        writer.close()
        if reply.startswith("250"):
            self.promised.append(to)
        return reply

    async def until(self, code: str, octets: int = 5000) -> str:
        """Send until a reply begins with `code`; that reply."""

        async def said() -> str | None:
            reply = await self.send(octets)
            return reply if reply.startswith(code) else None

        return await until(said, code)


async def arrived(server: FakeSmtp, promised: list[str]) -> Counter[str]:
    """How often each recipient was mailed, once all that were promised were."""

    def got() -> Counter[str]:
        return Counter(to for mail in server.received for to in mail.recipients)

    await until(lambda: got().keys() >= set(promised), "all that was promised")
    return got()


@asynccontextmanager
async def relay_on_a_small_disk(folder: Path) -> AsyncIterator[tuple[RelayProcess, FakeSmtp, SmallDisk]]:
    """A relay that is not started yet, with its spool alone there, and an upstream that cuts every connection."""
    with small_disk(folder / "disk", 76 * MB) as disk:
        async with FakeSmtp(replies={"CONNECT": CUT}) as server:
            yield RelayProcess(folder / "r", rules(server), extra=QUICK, spool=disk.folder / "spool.db"), server, disk


def test_a_disk_that_fills_refuses_new_mail_delivers_the_old_and_recovers(tmp_path: Path) -> None:
    """First down to the room that mail leaves free, then down to the last octet."""

    async def journey() -> None:
        async with relay_on_a_small_disk(tmp_path) as (relay, server, disk):
            async with relay:
                client = Client(relay)
                assert (await client.until("452", MB)).startswith("452 4.3.1 ")
                assert len(client.promised) > 3
                disk.fill()
                assert (await client.send()).startswith("452 ")
                server.script({"CONNECT": []})
                assert set((await arrived(server, client.promised)).values()) == {1}
                assert (await client.send()).startswith("452 ")
                disk.clear()
                await client.until("250")
                await relay.event("spool.recovered")
                got = await arrived(server, client.promised)
                assert await relay.stop() == 0
            # Nothing comes again: what became of the old mail was written down when there was room.
            async with relay:
                await Client(relay).until("250")
                await relay.event("delivered", after=len(relay.events) - 5)
            assert Counter(to for mail in server.received for to in mail.recipients if to != "r1@example.nl") == (
                Counter({to: count for to, count in got.items() if to != "r1@example.nl"})
            )

    asyncio.run(journey())


def test_a_full_disk_at_a_kill_loses_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with relay_on_a_small_disk(tmp_path) as (relay, server, disk):
            async with relay:
                client = Client(relay)
                await client.until("452", MB)
                disk.fill()
                await relay.stop(signal.SIGKILL)
            server.script({"CONNECT": []})
            async with relay:  # it starts on a full disk, and empties it
                assert (await Client(relay).send()).startswith("452 ")
                got = await arrived(server, client.promised)
                disk.clear()
                await Client(relay).until("250")
            assert set(got.values()) == {1}

    asyncio.run(journey())


def test_a_start_on_a_full_disk_says_that_it_is_full_and_loses_nothing(tmp_path: Path) -> None:
    """After an orderly stop SQLite's other files are gone, and it cannot make them."""

    async def journey() -> None:
        async with relay_on_a_small_disk(tmp_path) as (relay, server, disk):
            async with relay:
                client = Client(relay)
                await client.until("452", MB)
            disk.fill()
            with pytest.raises(AssertionError, match=r"the disk of the spool .* is full .*: make room; the mail"):
                await relay.start()
            disk.clear()
            server.script({"CONNECT": []})
            async with relay:
                assert set((await arrived(server, client.promised)).values()) == {1}

    asyncio.run(journey())


def test_io_errors_are_4xx_and_no_promise_is_broken(tmp_path: Path) -> None:
    """The device below a real file system fails what is written, fsync says so, and later it works again."""

    async def journey() -> None:
        with bad_disk(tmp_path / "bad", 24 * MB) as disk:
            async with FakeSmtp(replies={"CONNECT": CUT}) as server:
                relay = RelayProcess(tmp_path / "r", rules(server), extra=QUICK, spool=disk.folder / "spool.db")
                async with relay:
                    client = Client(relay)
                    assert (await client.until("4", MB)).startswith("451 4.3.0 ")
                    assert (await client.send(MB)).startswith("451 ")
                    assert client.promised
                    disk.mend()
                    await client.until("250")
                    server.script({"CONNECT": []})
                    await arrived(server, client.promised)
                    assert relay.running

    asyncio.run(journey())


def test_a_disk_that_turns_read_only_promises_nothing_and_keeps_what_it_has(tmp_path: Path) -> None:
    async def journey() -> None:
        with bad_disk(tmp_path / "bad", 300 * MB, "ext4") as disk:
            async with FakeSmtp(replies={"CONNECT": CUT}) as server:
                relay = RelayProcess(tmp_path / "r", rules(server), extra=QUICK, spool=disk.folder / "spool.db")
                async with relay:
                    client = Client(relay)
                    for _ in range(5):
                        await client.until("250")
                    disk.abort()
                    for _ in range(3):
                        assert (await client.send()).startswith("451 4.3.0 ")
                    await relay.event("spool.trouble")
                    await relay.stop()
                _, said = await relay.command("queue", "list")
                assert "Traceback" not in said
                with pytest.raises(AssertionError, match=r"cannot be written.*Read-only file system"):
                    await relay.start()
                assert "Traceback" not in relay.log()
                disk.repair()
                server.script({"CONNECT": []})
                async with relay:
                    await client.until("250")
                    await arrived(server, client.promised)

    asyncio.run(journey())


def test_a_write_error_of_any_file_is_4xx_and_heals_by_itself(tmp_path: Path) -> None:
    """No root needed: the kernel refuses to let any file of the process grow."""

    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, rules(server), extra=QUICK) as relay:
            client = Client(relay)
            await client.until("250")
            resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            for _ in range(3):
                assert (await client.send()).startswith("451 4.3.0 ")
            resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await client.until("250")
            await relay.event("spool.recovered")
            got = await arrived(server, client.promised)
            assert set(got.values()) == {1}

    asyncio.run(journey())


def test_somebody_who_locks_the_file_gets_clients_a_4xx_and_no_mail_lost(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, rules(server), extra=QUICK) as relay:
            client = Client(relay)
            await client.until("250")
            with closing(sqlite3.connect(relay.spool, isolation_level=None)) as intruder:
                intruder.execute("BEGIN EXCLUSIVE")
                assert (await client.until("451")).startswith("451 4.3.0 ")  # until then the log keeps it
                intruder.execute("ROLLBACK")
            await client.until("250")
            got = await arrived(server, client.promised)
            assert set(got.values()) == {1}

    asyncio.run(journey())


def test_somebody_who_only_reads_for_long_holds_up_nothing(tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp() as server, RelayProcess(tmp_path, rules(server), extra=QUICK) as relay:
            client = Client(relay)
            await client.until("250")
            with closing(sqlite3.connect(relay.spool, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM mail").fetchone()
                for _ in range(20):
                    assert (await client.send(100_000)).startswith("250 ")
                got = await arrived(server, client.promised)
                assert set(got.values()) == {1}

    asyncio.run(journey())


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20_000])


def _garbage_at(place: int) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        octets = file.read_bytes()
        file.write_bytes(octets[:place] + b"\xa5" * 4096 + octets[place + 4096 :])

    return spoil


def _garbage_in_the_log(file: Path) -> None:
    _garbage_at(0)(file.with_name("spool.db-wal"))


def _no_database(file: Path) -> None:
    file.write_bytes(b"\0" * 4096)


SPOILS = {
    "truncated": _truncated,
    "header": _garbage_at(0),
    "queue page": _garbage_at(3 * 4096),
    "log": _garbage_in_the_log,
    "zeros": _no_database,
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_corrupt_spool_is_refused_with_instructions_and_left_as_it_is(how: str, tmp_path: Path) -> None:
    async def journey() -> None:
        async with FakeSmtp(replies={"CONNECT": CUT}) as server:
            relay = RelayProcess(tmp_path, rules(server), extra=QUICK)
            async with relay:
                client = Client(relay)
                for _ in range(20):
                    await client.until("250")
                await relay.stop(signal.SIGKILL if how == "log" else signal.SIGTERM)
            SPOILS[how](relay.spool)
            files = {path.name: path.read_bytes() for path in (relay.spool, tmp_path / "spool.db-wal") if path.exists()}
            started = len(relay.events)
            with pytest.raises(AssertionError, match="ended before"):
                await relay.start()
            said = str(relay.events[started:])
            assert "damaged" in said
            assert "was left as it is: copy it and its -wal and -intake files away" in said
            assert ".recover" in said
            assert "Traceback" not in said
            assert {name: (tmp_path / name).read_bytes() for name in files} == files

    asyncio.run(journey())
