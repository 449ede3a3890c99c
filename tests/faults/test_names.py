"""Name servers that do not answer: the mail of others goes on, and the log says that it is the name.

The relay asks a look-alike through a resolv.conf of its own, which only root can lay over the machine's: where it may
not, this is skipped by name.
"""

from __future__ import annotations

import asyncio
import smtplib
import subprocess
from pathlib import Path

import pytest

from tests.fakes.dns import FakeDns
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp

RESOLVER = "127.0.0.99"


@pytest.fixture
def within(tmp_path: Path) -> tuple[str, ...]:
    """A command that starts another with this look-alike as its only name server."""
    config = tmp_path / "resolv.conf"
    config.write_text(f"nameserver {RESOLVER}\noptions timeout:20 attempts:2\n")
    start = ("unshare", "--mount", "sh", "-c", f'mount --bind {config} /etc/resolv.conf && exec "$@"', "sh")
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
