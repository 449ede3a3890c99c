"""The wire by itself: how replies come apart, and how long each is waited for, by one timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from upstreams.smtp_wire import Broken, Wire


class Transport:
    """Takes all, says nothing."""

    def __init__(self) -> None:
        self.aborted = False

    def write(self, octets: bytes) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


def wire() -> tuple[Wire, Transport]:
    transport: Any = Transport()
    return Wire(transport), transport


REPLIES = b"250-one\r\n250 two\r\n250\r\n354 go  on\r\n220 a\xffb\n"
READ = ["250 one two", "250", "354 go on", "220 a\ufffdb"]


@pytest.mark.parametrize("octets", [1, 2, 7, 1000])
def test_replies_come_apart_however_they_come_in(octets: int) -> None:
    async def read() -> list[str]:
        line, _ = wire()
        line.send(b"", len(READ))
        for start in range(0, len(REPLIES), octets):
            line.data_received(REPLIES[start : start + octets])
        return [str(await line.reply(1)) for _ in READ]

    assert asyncio.run(read()) == READ


@pytest.mark.parametrize(
    "said", [b"250-a\r\n251 b\r\n", b"99 x\r\n", b"x" * 9000, b"250-" + b"x" * 8000 + b"\r\n250-a"]
)
def test_what_is_no_reply_breaks_the_wire(said: bytes) -> None:
    async def read() -> None:
        line, transport = wire()
        line.send(b"", 1)
        for _ in range(5):
            line.data_received(said)
        with pytest.raises(Broken):
            await line.reply(1)
        assert transport.aborted

    asyncio.run(read())


def test_each_wait_has_its_own_time_though_they_share_a_timer() -> None:
    """A long wait behind a short one is not cut short, and a short one behind a long one is not drawn out."""

    async def waits() -> list[float]:
        line, _ = wire()
        loop = asyncio.get_running_loop()
        taken = []
        for seconds, answer in ((0.05, True), (0.4, True), (30.0, True), (0.3, False)):
            line.send(b"", 1)
            start = loop.time()
            if answer:
                loop.call_later(seconds - 0.02 if seconds < 1 else 0.0, line.data_received, b"250 ok\r\n")
                assert (await line.reply(seconds)).code == 250
            else:
                with pytest.raises(Broken, match=r"no answer within 0\.3 seconds"):
                    await line.reply(seconds)
            taken.append(loop.time() - start)
        return taken

    taken = asyncio.run(waits())
    assert taken[3] >= 0.29
    assert taken[3] < 20
