"""Addresses of names: none waits for another, and an address is none's business but ours."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from upstreams import resolving
from upstreams.resolving import addresses


def test_names_that_nobody_answers_for_hold_up_no_other(monkeypatch):
    over = threading.Event()
    look_up = resolving._look_up

    def slow(host: str, port: int, family: int, flags: int = 0):
        if host.endswith(".dead.example") and not flags:
            over.wait(60)
        return look_up(host, port, family, flags)

    monkeypatch.setattr(resolving, "_look_up", slow)

    async def scenario() -> None:
        waiting = [asyncio.create_task(addresses(f"h{number}.dead.example", 25)) for number in range(40)]
        assert ("127.0.0.1", 25) in {found[4] for found in await addresses("localhost", 25, socket.AF_INET)}
        assert not any(task.done() for task in waiting)
        waiting[0].cancel()
        over.set()
        for answer in (await asyncio.gather(*waiting, return_exceptions=True))[1:]:
            assert isinstance(answer, socket.gaierror)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["127.0.0.7", "::1"])
def test_an_address_needs_no_thread(host, monkeypatch):
    monkeypatch.setattr(threading, "Thread", None)
    (found,) = asyncio.run(addresses(host, 2525))
    assert found[4][:2] == (host, 2525)
