"""CPU of this process per mail: our SMTP dialogue beside aiosmtpd as it comes, same client, nothing kept on disk.

Run as `python -m bench.intake_micro [mails]`; needs smtp-source (Debian's postfix package). Says nothing about disks.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop
from aiosmtpd.smtp import SMTP

from config.relay_settings import Limits, Listen, Relay
from config.rules import Place, Route, RouteSettings
from intake.server import Intake
from spool.contract import Arrival, Spool

_ROUTE = Route("acme.nl", RouteSettings(from_=("acme.nl",), via=("there",)), Place("routes.yaml", 1))


class Stock:
    """The least a handler of aiosmtpd's can do."""

    async def handle_RCPT(self, _server: object, _session: object, envelope: object, address: str, _o: object) -> str:
        envelope.rcpt_tos.append(address)  # type: ignore[attr-defined]
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: object, _envelope: object) -> str:
        return "250 OK"


def forgetting_spool() -> Spool:
    """A spool that keeps nothing, so that only the dialogue is measured."""
    numbers = itertools.count(1)

    async def put(_self: Spool, _arrival: Arrival) -> None: ...

    methods = {name: None for name in Spool.__abstractmethods__}
    made: type[Spool] = type("Forgetting", (Spool,), {**methods, "put": put, "next_id": lambda _self: next(numbers)})
    return made()


async def source(port: int, *arguments: str) -> None:
    tool = shutil.which("smtp-source", path="/usr/sbin:/usr/bin")
    assert tool, "smtp-source is missing: apt-get install postfix"
    process = await asyncio.create_subprocess_exec(
        tool, *arguments, "-f", "info@acme.nl", "-t", "klant@example.org", f"127.0.0.1:{port}"
    )
    assert await process.wait() == 0


async def measure(port: int, mails: int, *arguments: str) -> tuple[float, float]:
    """CPU milliseconds of this process for one mail, and mails a second."""
    await source(port, "-m", "200", *arguments)
    cpu, clock = time.process_time(), time.perf_counter()
    await source(port, "-m", str(mails), *arguments)
    return (time.process_time() - cpu) / mails * 1000, mails / (time.perf_counter() - clock)


async def main(mails: int) -> None:
    loop = asyncio.get_running_loop()
    stock = await loop.create_server(lambda: SMTP(Stock(), hostname="relay.test", loop=loop), "127.0.0.1", 0)
    relay = Relay(listen=(Listen(address="127.0.0.1:0"),), limits=Limits())
    intake = Intake(relay, forgetting_spool(), lambda _sender: _ROUTE, "relay.test")
    await intake.start()
    ports = {"stock": stock.sockets[0].getsockname()[1], "ours": intake.addresses[0][1]}
    for name, arguments in (
        ("5 KB, a connection each, 10 at once", ("-s", "10", "-l", "5000")),
        ("5 KB, kept connections, 10 at once", ("-s", "10", "-l", "5000", "-d")),
        ("5 KB, a connection each, 1 at once", ("-s", "1", "-l", "5000")),
        ("100 KB, a connection each, 10 at once", ("-s", "10", "-l", "100000")),
    ):
        found = {who: await measure(port, mails, *arguments) for who, port in ports.items()}
        line = "  ".join(f"{who} {cpu:.3f} ms {rate:.0f}/s" for who, (cpu, rate) in found.items())
        print(f"{name}: {line}  ratio {found['ours'][0] / found['stock'][0]:.2f}")
    await intake.stop(1)
    stock.close()


if __name__ == "__main__":
    run: Callable[[Awaitable[None]], None] = uvloop.run
    run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000))
