"""Name servers that do not answer: the mail of others goes on, and the log says that it is the name.

The relay asks a look-alike through a resolv.conf of its own, which only root can lay over the machine's: where it may
not, this is skipped by name.
"""

from __future__ import annotations

import asyncio
import os
import smtplib
import subprocess
from pathlib import Path

import pytest

from tests.fakes.dns import FakeDns
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp

RESOLVER = f"127.99.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""Port 53 can be had once at each address: processes that test at one time need one each."""


@pytest.fixture
def within(tmp_path: Path) -> tuple[str, ...]:
    """A command that starts another on a machine called `machine.example`, with this look-alike as its only way to find
    names.
    """
    config, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    config.write_text(f"nameserver {RESOLVER}\noptions timeout:20 attempts:2\n")
    hosts.write_text("127.0.0.1 localhost\n")
    lay = f"mount --bind {config} /etc/resolv.conf && mount --bind {hosts} /etc/hosts && hostname machine.example"
    start = ("unshare", "--mount", "--uts", "sh", "-c", f'{lay} && exec "$@"', "sh")
    try:
        subprocess.run([*start, "true"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root that may mount: {getattr(error, 'stderr', error)}")
    return start


def send_from(port: int, domains: list[str]) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        for domain in domains:
            client.sendmail(f"info@{domain}", ["piet@example.nl"], b"Subject: x\r\n\r\nx\r\n")


def test_dead_names_of_some_hold_up_no_mail_of_others(tmp_path, within):
    dead = [f"klant{number}.dead.example" for number in range(12)]

    async def journey() -> None:
        async with FakeSmtp() as server, FakeDns(host=RESOLVER, port=53) as dns:
            dns.put("mail.good.example", "A", "127.0.0.1")
            dns.silent.update(dead)
            upstreams = "".join(
                f"  {host}: {{type: smtp, host: {host}, port: {server.port}, tls: none, timeout: 8s}}\n"
                for host in (*dead, "mail.good.example")
            )
            routes = "".join(f"  - {{from: {host}, via: {host}}}\n" for host in (*dead, "mail.good.example"))
            rules = f"upstreams:\n{upstreams}routes:\n{routes}"
            async with RelayProcess(tmp_path / "r", rules, within=within) as relay:
                await asyncio.to_thread(send_from, relay.port, [*dead, "mail.good.example"])
                first = await relay.event("delivered", "deferred")
                assert first["event"] == "delivered", relay.events
                said = await relay.event("deferred")
                assert "cannot find klant" in str(said["reply"])
                assert "name servers" in str(said["reply"])

    asyncio.run(journey())


def test_a_relay_whose_name_is_written_asks_nobody_for_it_at_its_start(tmp_path, within):
    """It kept clients waiting for as long as dead name servers take."""

    async def journey() -> None:
        async with FakeDns(host=RESOLVER, port=53) as dns:
            rules = (
                f"upstreams:\n  out: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: a.nl, via: out}}\n"
            )
            async with RelayProcess(tmp_path / "r", rules, within=within):
                assert "machine.example" not in dns.asked

    asyncio.run(journey())
