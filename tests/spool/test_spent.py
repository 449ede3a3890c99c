"""What was sent on an account is on disk before it is sent, and is told again after a restart."""

from __future__ import annotations

from spool.contract import SPENT_SLOT
from spool.view import Spent

START = 1_700_000_400.0
"""The beginning of a slot."""


def totals(entries: list[Spent]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for one in entries:
        mails, recipients = found.get(one.account, (0, 0))
        found[one.account] = (mails + one.mails, recipients + one.recipients)
    return found


def test_what_was_counted_is_told_after_a_restart_and_never_as_earlier_than_it_was(engine):
    async def spend(spool):
        await spool.spend([Spent("a", START + 1, 1, 5), Spent("b", START + 2, 1, 1)])
        await spool.spend([Spent("a", START + 599, 1, 7), Spent("a", START + 600, 1, 100)])

    engine.run(spend)

    async def ask(spool):
        found = await spool.spent(START)
        assert totals(found) == {"a": (3, 112), "b": (1, 1)}
        first, *_ = [one for one in found if one.account == "a"]
        assert first.at >= START + 599
        assert first.at <= START + SPENT_SLOT
        assert totals(await spool.spent(START + 2 * SPENT_SLOT)) == {}
        assert totals(await spool.spent(START + SPENT_SLOT)) == {"a": (1, 100)}

    engine.run(ask)


def test_what_was_not_sent_after_all_is_taken_back(engine):
    async def test(spool):
        await spool.spend([Spent("a", START, 2, 9)])
        await spool.spend([Spent("a", START, -1, -4)])
        assert totals(await spool.spent(START)) == {"a": (1, 5)}
        await spool.spend([])

    engine.run(test)


def test_what_is_days_old_is_forgotten(engine):
    async def test(spool):
        await spool.spend([Spent("a", START, 1, 1)])
        await spool.spend([Spent("a", START + 3 * 86400, 1, 1)])
        assert totals(await spool.spent(START)) == {"a": (1, 1)}

    engine.run(test)
