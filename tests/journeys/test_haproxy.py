"""HAProxy of Debian before two real relays: it follows /readyz, and `allow` sees the real client."""

from __future__ import annotations

import asyncio
import shutil
import smtplib
import socket
import subprocess

import pytest

from tests.fakes.relay_process import RelayProcess
from tests.waiting import answers, until

HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
pytestmark = pytest.mark.skipif(HAPROXY is None, reason="needs Debian's haproxy: scripts/peers installs it")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def hand_over(port: int, source: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, source_address=(source, 0)) as client:
        client.sendmail("info@acme.nl", ["jan@example.nl"], "Subject: x\r\n\r\nDag\r\n")


def test_a_balancer_follows_readyz_and_passes_on_who_the_client_is(tmp_path):
    front, *checks = free_ports(3)

    async def test() -> None:
        box = tmp_path / "box"
        box.mkdir()
        rules = f"upstreams: {{box: {{type: maildir, path: {box}}}}}\nroutes:\n  - {{from: acme.nl, via: box}}\n"
        relays = [
            RelayProcess(
                tmp_path / f"node{number}", rules, extra=f"status: {{address: '127.0.0.1:{check}'}}\n",
                listen="{address: '127.0.0.1:0', allow: [127.0.0.5], proxy_protocol: [127.0.0.1]}",
            )
            for number, check in enumerate(checks)
        ]  # fmt: skip
        await asyncio.gather(*(relay.start() for relay in relays))
        servers = "".join(
            f"  server r{number} 127.0.0.1:{relay.ports[1]} send-proxy-v2"
            f" check port {check} inter 200ms fall 1 rise 1\n"
            for number, (relay, check) in enumerate(zip(relays, checks, strict=True))
        )
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
            "  timeout check 30s\n"
            f"frontend smtp\n  bind 127.0.0.1:{front}\n  default_backend relays\n"
            "backend relays\n  option httpchk\n  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost\n"
            "  http-check expect status 200\n  option redispatch\n" + servers
        )
        haproxy = subprocess.Popen([str(HAPROXY), "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
        try:
            await until(lambda: answers(front), f"somebody at port {front}", every=0.1)
            for _ in range(4):
                await asyncio.to_thread(hand_over, front, "127.0.0.5")
            for relay in relays:
                assert (await relay.event("accepted"))["peer"] == "127.0.0.5"
            with pytest.raises((smtplib.SMTPException, OSError)):
                await asyncio.to_thread(hand_over, front, "127.0.0.6")
            assert await relays[0].stop() == 0
            await asyncio.sleep(1)  # several checks
            seen = len(relays[1].events)
            for _ in range(4):
                await asyncio.to_thread(hand_over, front, "127.0.0.5")
            await until(lambda: sum(event["event"] == "accepted" for event in relays[1].events[seen:]) >= 4)
        finally:
            haproxy.terminate()
            haproxy.wait(10)
            for relay in relays:
                if relay.running:
                    await relay.stop()

    asyncio.run(test())
