"""What many clients at once cost the rooms behind the status page."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from config.relay_settings import Relay, Status
from intake.counters import Numbers
from ops.status.facts import Facts, Phase
from ops.status.web import Site
from routing.counting import ByCustomer
from spool.contract import SpoolUnavailable


class Rooms:
    """The rooms as the page asks them; what they are asked is counted."""

    def __init__(self) -> None:
        self.backlogs = self.probes = 0
        self.failing: Exception | None = None
        self.customers = ByCustomer(2)
        self.numbers = Numbers()
        self.listening, self.full = True, False

    async def backlog(self) -> dict[str, object]:
        self.backlogs += 1
        await asyncio.sleep(0.01)
        if self.failing:
            raise self.failing
        return {}

    async def probe(self) -> None:
        self.probes += 1
        if self.failing:
            raise self.failing

    async def stuck(self) -> tuple[str, ...]:
        return ()

    def routes(self) -> dict[str, object]:
        return {}

    async def tally(self, volumes: object) -> None:
        raise SpoolUnavailable("not now")


def site(rooms: Rooms) -> Site:
    facts = Facts(
        Relay(status=Status()),
        rooms,
        rooms,
        rooms,
        lambda: None,
        SimpleNamespace(),
        lambda: None,
        phase=Phase.SERVING,  # type: ignore[arg-type]
    )
    return Site(facts, "127.0.0.1:0")


def test_a_crowd_asks_the_spool_once():
    async def test() -> None:
        rooms = Rooms()
        asked = site(rooms)
        looks = await asyncio.gather(*[asked.look() for _ in range(50)])
        assert all(state.report.ready for state, _ in looks)
        assert (rooms.backlogs, rooms.probes) == (1, 1)
        asked.forget()
        await asked.look()
        assert rooms.backlogs == 2

    asyncio.run(test())


def test_a_spool_that_does_not_answer_is_told_and_nothing_is_lost_of_the_counts():
    async def test() -> None:
        rooms = Rooms()
        rooms.failing = SpoolUnavailable("gone")
        rooms.numbers.customers.add("acme.nl", "acme.nl", (1, 2))
        asked = site(rooms)
        state, backlog = await asked.look()
        await asked.count()
        assert not state.report.alive
        assert backlog is None
        assert [(one.mails, one.recipients) for one in asked._volumes._left] == [(1, 2)]

    asyncio.run(test())


def test_a_target_that_is_no_url_is_the_clients_fault(caplog):
    async def test() -> None:
        page = site(Rooms())
        await page.start()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", page._listener.port)
            writer.write(b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
            writer.close()
        finally:
            await page.stop()

    asyncio.run(test())
    assert "bug" not in caplog.text
