"""What a spool keeps for people: how much went through, who ordered what, which mail was slow."""

from __future__ import annotations

from spool.view import GivenOrder, Volume
from tests.spool.engines import RETRY, arrival, settlement

HOUR = 3600.0
START = 1_700_000_000.0 - 1_700_000_000.0 % 86400


def totals(volumes) -> dict[tuple[float, str, str], tuple[int, int, int, int]]:
    return {
        (one.at - START, one.route, one.customer): (one.mails, one.recipients, one.delivered, one.failed)
        for one in volumes
    }


def test_what_went_through_adds_up_by_stretch_route_and_customer(engine):
    async def test(spool):
        await spool.tally([])
        await spool.tally([Volume(START + 1, "*.nl", "acme.nl", 2, 3, 0, 0), Volume(START + 1, "*.nl", "b.nl", 1, 1)])
        await spool.tally(
            [Volume(START + 2, "*.nl", "acme.nl", 1, 1, 4, 1), Volume(START + HOUR, "x", "acme.nl", 7, 7)]
        )
        await spool.tally([Volume(START + HOUR - 1, "*.nl", "acme.nl", delivered=5)])

    engine.run(test)
    with engine.view() as view:
        assert totals(view.volumes([START, START + HOUR, START + 2 * HOUR])) == {
            (0.0, "*.nl", "acme.nl"): (3, 4, 9, 1),
            (0.0, "*.nl", "b.nl"): (1, 1, 0, 0),
            (HOUR, "x", "acme.nl"): (7, 7, 0, 0),
        }
        assert totals(view.volumes([START, START + 600])) == {
            (0.0, "*.nl", "acme.nl"): (3, 4, 4, 1),
            (0.0, "*.nl", "b.nl"): (1, 1, 0, 0),
        }
        assert view.volumes([START + 2 * HOUR, START + 3 * HOUR]) == []
        assert view.volumes([START]) == []


def test_after_days_nothing_is_lost_but_the_minutes_and_after_a_month_all_is(engine):
    async def test(spool):
        for slot in range(24):
            await spool.tally([Volume(START + 300 * slot, "a", "a", 1, 1)])
        for hour in range(24, 24 * 40):  # each hour's first count tidies up
            await spool.tally([Volume(START + hour * HOUR, "b", "b", 1, 1)])
            if hour == 24 * 4:
                with engine.view() as view:
                    kept = view.volumes([START, START + HOUR, START + 2 * HOUR])
                    assert [(one.at - START, one.mails) for one in kept] == [(0.0, 12), (HOUR, 12)]

    engine.run(test)
    with engine.view() as view:
        assert view.volumes([START, START + 4 * 86400]) == []
        assert sum(one.mails for one in view.volumes([START, START + 50 * 86400])) >= 24 * 34


def test_orders_are_kept_the_newest_first(engine):
    given = [GivenOrder(START + n, "jan", "drop", f"route r{n}", "dubbel é", n, 1) for n in range(3)]

    async def test(spool):
        for order in given:
            await spool.record(order)

    engine.run(test)
    with engine.view() as view:
        assert list(view.orders(2)) == [given[2], given[1]]
        assert len(view.orders(10)) == 3


def test_orders_are_forgotten_with_the_history(engine):
    given = [GivenOrder(START + n, "jan", "drop", f"mail {n}", "", 1, 0) for n in range(3)]

    async def test(spool):
        for order in given:
            await spool.record(order)
        assert await spool.prune(START + 1) == 0

    engine.run(test)
    with engine.view() as view:
        assert list(view.orders(10)) == [given[2], given[1]]


def test_the_slowest_mail_is_found_and_quick_mail_is_not(engine):
    async def test(spool):
        took = {}
        for seconds in (5, 59, 61, 600, 120):
            mail = arrival(spool, engine.clock)
            await spool.put(mail)
            took[mail.id] = seconds
        late = arrival(spool, engine.clock)
        await spool.put(late)
        came = engine.clock.now
        leased = {mail.id: mail for mail in await spool.lease("acme.nl", 10, came)}
        for number, seconds in sorted(took.items(), key=lambda item: item[1]):
            engine.clock.now = came + seconds
            await spool.settle(settlement(leased[number]))
        await spool.settle(settlement(leased[late.id], RETRY, engine.clock.now + 60))
        with engine.view() as view:
            slow = view.slowest(came - 1, 2)
            assert [(round(mail.seconds), took[mail.id]) for mail in slow] == [(600, 600), (120, 120)]
            assert len(view.slowest(came - 1, 10)) == 3
            assert view.slowest(came + 1, 10) == []

    engine.run(test)
