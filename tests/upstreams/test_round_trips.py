"""How often a mail waits for a far server: counted turns, no clocks."""

from __future__ import annotations

import asyncio

import pytest

from routing.outcome import Word
from tests.fakes.far import Far
from tests.fakes.smtp import FakeSmtp
from tests.upstreams.smtp_kit import mail, upstream

PLAIN = ("SIZE 36700160", "8BITMIME")


@pytest.mark.parametrize(
    ("keywords", "recipients", "turns"),
    [
        (("PIPELINING", *PLAIN), ("b@x.nl",), 2),
        (("PIPELINING", *PLAIN), ("b@x.nl", "c@x.nl", "d@x.nl"), 2),
        (PLAIN, ("b@x.nl",), 4),
        (PLAIN, ("b@x.nl", "c@x.nl", "d@x.nl"), 6),
    ],
    ids=["pipelining", "pipelining, three recipients", "one by one", "one by one, three recipients"],
)
def test_round_trips_of_a_mail_on_a_kept_connection(keywords, recipients, turns):
    """Two with PIPELINING: the envelope and DATA, then the mail. Without it RFC 2920 lets no command overtake a reply:
    MAIL, each RCPT, DATA and the mail each have their own.
    """

    async def go() -> tuple[int, int]:
        async with (
            FakeSmtp(keywords=keywords) as server,
            Far(server.port) as far,
            upstream(server, port=far.port) as way,
        ):
            await way.send(mail(*recipients))
            before = far.turns
            for _ in range(5):
                results = await way.send(mail(*recipients))
                assert {outcome.word for outcome in results.values()} == {Word.SENT}
            assert len(server.received) == 6
            return far.turns - before, far.connections

    assert asyncio.run(go()) == (5 * turns, 1)
