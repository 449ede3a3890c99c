"""The selftest for an open relay: a listener that is closed is good, and one that takes a stranger's mail is found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from config.relay_settings import Listen, Relay
from ops.doctor import Grade, Verdict
from ops.open_relay import open_relay
from tests.fakes.relay_process import RelayProcess
from tests.fakes.smtp import FakeSmtp
from tests.intake.house import House, with_house


def relay_at(port: int, **more: object) -> Relay:
    return Relay(listen=(replace(Listen(address=f"127.0.0.1:{port}"), **more),))


async def look(relay: Relay, *, star: bool = False) -> Verdict:
    (verdict,) = await asyncio.to_thread(open_relay, relay, lambda _sender: star, 5.0)
    return verdict


def test_our_own_listener_is_closed() -> None:
    async def test(house: House) -> None:
        verdict = await look(relay_at(house.port))
        assert verdict.grade is Grade.GOOD
        assert "(4 attempts refused)" in verdict.what
        assert house.spool.arrivals == []
        assert house.intake.numbers.refused["5.7.1"] == 4

    with_house(test)


def test_a_client_outside_allow_is_tried_and_refused() -> None:
    async def test(house: House) -> None:
        verdict = await look(relay_at(house.port, allow=("192.0.2.0/24",)))
        assert (verdict.grade, "(1 attempts refused)" in verdict.what) == (Grade.GOOD, True)

    with_house(test, allow=("192.0.2.0/24",))


@pytest.mark.parametrize(
    ("more", "star", "grade", "mend"),
    [
        ({}, False, Grade.PROBLEM, "this is a bug"),
        ({"allow": ("192.0.2.0/24",)}, False, Grade.PROBLEM, "this is a bug"),
        ({}, True, Grade.WARNING, "takes every sender"),
        ({"allow": ("192.0.2.0/24",)}, True, Grade.PROBLEM, "this is a bug"),
    ],
)
def test_a_server_that_takes_everything_is_found(more: dict[str, object], star: bool, grade: Grade, mend: str) -> None:
    async def test() -> None:
        async with FakeSmtp() as anybody:
            verdict = await look(relay_at(anybody.port, **more), star=star)
            assert (verdict.grade, verdict.route, verdict.where) == (grade, "", f"127.0.0.1:{anybody.port}")
            assert mend in verdict.mend
            assert "took a mail of a stranger from 127.0.0.1" in verdict.what
            assert anybody.received == []

    asyncio.run(test())


def test_nobody_there_is_not_called_closed() -> None:
    async def test() -> None:
        async with FakeSmtp() as server:
            port = server.port
        verdict = await look(relay_at(port))
        assert verdict.grade is Grade.WARNING
        assert "could not be tried" in verdict.what
        assert "Connection refused" in verdict.what

    asyncio.run(test())


def test_a_listener_behind_a_balancer_must_be_silent_to_everybody_else() -> None:
    balanced = {"proxy_protocol": ("192.0.2.7",)}

    async def test(house: House) -> None:
        verdict = await look(relay_at(house.port, **balanced))
        assert verdict.grade is Grade.PROBLEM
        assert "answered 127.0.0.1, no balancer: 550 5.7.1" in verdict.what
        verdict = await look(relay_at(house.port, proxy_protocol=("127.0.0.0/8",)))
        assert (verdict.grade, "one of its balancers" in verdict.what) == (Grade.WARNING, True)

    with_house(test)

    async def closed() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        verdict = await look(relay_at(port, **balanced))
        assert (verdict.grade, "(1 attempts closed)" in verdict.what) == (Grade.GOOD, True)
        server.close()
        await server.wait_closed()
        verdict = await look(relay_at(port, **balanced))
        assert (verdict.grade, "could not be tried" in verdict.what) == (Grade.WARNING, True)

    asyncio.run(closed())


def test_doctor_says_so_of_the_running_relay(tmp_path: Path) -> None:
    async def journey() -> None:
        routes = (
            f"upstreams:\n  try: {{type: maildir, path: {tmp_path}/mail}}\nroutes:\n  - {{from: acme.nl, via: try}}\n"
        )
        async with RelayProcess(tmp_path / "relay", routes) as relay:
            _, text = await relay.command("doctor")
            assert f"good     open relay     127.0.0.1:{relay.port}: lets in no sender without a route" in text
            _, text = await relay.command("doctor", "--no-probes")
            assert "open relay" not in text
            relay.write_routes(routes.replace("acme.nl", '"*"'))
            await relay.reload()
            _, text = await relay.command("doctor")
            assert "warning  open relay" in text
            assert "takes every sender" in text

    asyncio.run(journey())
