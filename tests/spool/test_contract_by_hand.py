"""What people do to waiting mail, on every engine: hold, release, hurry, drop."""

from __future__ import annotations

from math import inf

import pytest

from routing.outcome import Outcome
from spool.contract import Settled, Tally, id_text
from spool.holding import Hold, Scope, sender_subject
from spool.view import Filter
from tests.spool.engines import REJECT, RETRY, SENT, Sqlite, arrival, settlement

ROUTE = (Scope.ROUTE, "acme.nl")
CUSTOMER = (Scope.SENDER, "@acme.nl")


def hold_on(key: tuple[Scope, str], since: float = 1.0) -> Hold:
    return Hold(*key, since, "jan", "the customer asked")


async def put(spool, engine, count=1, **changes) -> list[int]:
    """Mails that came one after the other, and their ids."""
    ids = []
    for _ in range(count):
        engine.clock.now += 1
        ids.append((mail := arrival(spool, engine.clock, **changes)).id)
        await spool.put(mail)
    return ids


async def leased(spool, engine, limit=50, route="acme.nl") -> list[int]:
    return [mail.id for mail in await spool.lease(route, limit, engine.clock.now)]


@pytest.mark.parametrize("memory", [1 << 20, 0], ids=["at hand", "on disk"])
@pytest.mark.parametrize("key", [ROUTE, CUSTOMER, (Scope.SENDER, "info@acme.nl")], ids=str)
def test_held_mail_waits_over_a_restart_and_leaves_in_the_order_in_which_it_came(engine, key, memory):
    ids = []

    async def hold(spool):
        ids.extend(await put(spool, engine, 3, sender="Info@ACME.nl"))
        await spool.hold(hold_on(key))
        ids.extend(await put(spool, engine, 2))
        assert await leased(spool, engine) == []
        assert await spool.next_due("acme.nl") is None
        assert (await spool.backlog())["acme.nl"].waiting == 5
        assert (await spool.backlog())["acme.nl"].next_due == inf

    async def release(spool):
        assert spool.held.all() == (hold_on(key),)
        assert await leased(spool, engine) == []
        await spool.wake("acme.nl", engine.clock.now)
        assert await spool.hurry(Filter(route="acme.nl"), None, engine.clock.now) == Tally(0, 5)
        assert await leased(spool, engine) == []
        engine.clock.now += 5 * 86400
        assert await spool.release(key, engine.clock.now) == hold_on(key)
        late = await put(spool, engine, 1)
        mails = await spool.lease("acme.nl", 10, engine.clock.now)
        assert [mail.id for mail in mails] == ids + late
        assert {mail.released_at for mail in mails[:5]} == {engine.clock.now - 1}
        assert spool.held.nothing
        assert await spool.release(key, engine.clock.now) is None

    async def afterwards(spool):
        assert spool.held.nothing

    engine.run(hold, memory=memory)
    engine.run(release, memory=memory)
    engine.run(afterwards)


def test_a_held_customer_holds_up_nobody_else_on_the_route(engine):
    async def test(spool):
        await put(spool, engine, 40)
        await spool.hold(hold_on(CUSTOMER))
        await put(spool, engine, 40)
        others = await put(spool, engine, 3, sender="info@globex.nl")
        seen: list[int] = []
        spool.on_arrival(lambda route: seen.append(1))
        got: list[int] = []
        while True:  # as the scheduler does it: after every hint, and after a full batch, once more
            hints = len(seen)
            got += (new := await leased(spool, engine, limit=8))
            if len(seen) == hints and len(new) < 8:
                break
        assert got == others

    engine.run(test)


def test_a_mail_that_is_held_by_its_id_and_by_its_route_waits_for_both(engine):
    async def test(spool):
        first, second = await put(spool, engine, 2)
        key = (Scope.MAIL, id_text(first))
        await spool.hold(hold_on(key), "on hold by jan")
        assert await leased(spool, engine) == [second]
        await spool.hold(hold_on(ROUTE))
        await spool.release(key, engine.clock.now, "released by piet")
        assert await leased(spool, engine) == []
        await spool.hold(hold_on(key))
        await spool.release(ROUTE, engine.clock.now)
        assert await leased(spool, engine) == []
        await spool.release(key, engine.clock.now)
        assert await leased(spool, engine) == [first]
        with engine.view() as view:
            notes = [entry.text for entry in view.show(first).entries if entry.event == "note"]
        assert notes == ["on hold by jan", "released by piet"]

    engine.run(test)


def test_an_attempt_under_way_ends_as_it_began_and_what_comes_back_is_held(engine):
    async def test(spool):
        await put(spool, engine, 2)
        one, other = await spool.lease("acme.nl", 2, engine.clock.now)
        await spool.hold(hold_on(CUSTOMER))
        await spool.settle(settlement(one))
        await spool.settle(settlement(other, RETRY, engine.clock.now + 1))
        engine.clock.now += 2
        assert await leased(spool, engine) == []
        await spool.release(CUSTOMER, engine.clock.now)
        assert await leased(spool, engine) == [other.id]

    engine.run(test)


def test_a_hold_on_a_mail_that_was_delivered_meanwhile_is_over(engine):
    async def test(spool):
        await put(spool, engine)
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.hold(hold_on((Scope.MAIL, id_text(mail.id))))
        await spool.settle(settlement(mail))
        assert spool.held.nothing

    async def afterwards(spool):
        assert spool.held.nothing

    engine.run(test)
    engine.run(afterwards)


def test_hurried_mail_is_due_now(engine):
    async def test(spool):
        ids = await put(spool, engine, 3)
        for mail in await spool.lease("acme.nl", 3, engine.clock.now):
            await spool.settle(settlement(mail, RETRY, engine.clock.now + 3600))
        assert await leased(spool, engine) == []
        assert await spool.hurry(Filter(ids=(ids[1],)), "now, says jan", engine.clock.now) == Tally(1, 0)
        assert await leased(spool, engine) == [ids[1]]
        await spool.hold(hold_on((Scope.MAIL, id_text(ids[2]))))
        assert await spool.hurry(Filter(recipient="@example.org"), None, engine.clock.now) == Tally(1, 2)
        assert await leased(spool, engine) == [ids[0]]
        assert await spool.hurry(Filter(ids=(12345,)), None, engine.clock.now) == Tally(0, 0)

    engine.run(test)


@pytest.mark.parametrize("memory", [1 << 20, 0], ids=["at hand", "on disk"])
def test_dropped_mail_is_gone_with_its_content_and_its_story_stays(engine, memory):
    async def test(spool):
        under_way, *others = await put(spool, engine, 4)
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert mail.id == under_way
        await spool.hold(hold_on((Scope.MAIL, id_text(others[0]))))
        assert await spool.drop(Filter(ids=(under_way, *others[:2])), "dropped by jan", engine.clock.now) == Tally(2, 1)
        assert spool.held.nothing
        assert (await spool.backlog())["acme.nl"].waiting == 1
        assert spool.octets == 2 * len(mail.content)
        assert await leased(spool, engine) == [others[2]]
        with engine.view() as view:
            story = view.show(others[0])
            assert [line.state for line in story.mail.recipients] == ["dropped"]
            assert [entry.text for entry in story.entries][1:] == ["dropped by jan"]
            assert [line.id for line in view.list(Filter(settled=True), 10)] == others[:2]
            assert view.count(Filter(settled=True)) == 2
            assert view.count(Filter(route="acme.nl")) == 2

    async def afterwards(spool):
        assert await spool.drop(Filter(sender="@acme.nl"), "dropped", engine.clock.now) == Tally(2, 0)
        assert await spool.backlog() == {}
        assert spool.octets == 0

    engine.run(test, memory=memory)
    engine.run(afterwards, memory=memory)


def test_the_view_tells_of_holds_and_finds_settled_mail(engine):
    async def test(spool):
        first, second, third = await put(spool, engine, 3)
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(mail))
        await spool.hold(hold_on(CUSTOMER, since=2.0))
        await spool.hold(hold_on((Scope.MAIL, id_text(second)), since=1.0))
        with engine.view() as view:
            assert [hold.scope for hold in view.holds()] == [Scope.MAIL, Scope.SENDER]
            found = view.list(Filter(recipient="jan@example.org", settled=None), 2, newest_first=True)
            assert [(line.id, line.hold and line.hold.scope) for line in found] == [
                (third, Scope.SENDER),
                (second, Scope.MAIL),
            ]
            (settled,) = view.list(Filter(settled=True), 9)
            assert (settled.id, settled.hold) == (first, None)

    engine.run(test)


def test_failures_since_a_time_with_the_last_words_of_the_upstream(engine):
    async def test(spool):
        start = engine.clock.now
        await put(spool, engine, 1, recipients=("a@x.nl", "b@x.nl"))
        (mail,) = await spool.lease("acme.nl", 1, engine.clock.now)
        results: dict[str, Outcome] = {"a@x.nl": REJECT, "b@x.nl": RETRY}
        attempt = type(settlement(mail).attempts[0])("one", start + 10, 0.5, results)
        failed = {"a@x.nl": Settled.FAILED}
        await spool.settle(settlement(mail, RETRY, start + 60, done=failed, attempts=(attempt,)))
        (mail,) = await spool.lease("acme.nl", 1, start + 60)
        engine.clock.now = start + 3 * 86400
        await spool.settle(settlement(mail, SENT))
        (dropped,) = await put(spool, engine)
        await spool.drop(Filter(ids=(dropped,)), "dropped", engine.clock.now)
        with engine.view() as view:
            lines = list(view.failures(start))
            assert [(line.recipient, line.how, line.at, line.last) for line in lines] == [
                ("a@x.nl", "failed", start + 10.5, REJECT),
                ("jan@example.org", "dropped", engine.clock.now, None),
            ]
            assert [line.mail for line in view.failures(start + 86400)] == [dropped]

    engine.run(test)


@pytest.mark.parametrize(
    ("text", "subject"),
    [("Info@ACME.nl", "info@acme.nl"), ("@Acme.nl.", "@acme.nl"), ('"a@b"@x.nl', '"a@b"@x.nl')],
)
def test_a_sender_is_written_one_way(text, subject):
    assert sender_subject(text) == subject


@pytest.mark.parametrize("text", ["acme.nl", "", "info@"])
def test_what_is_no_sender_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"@acme\.nl"):
        sender_subject(text)


def test_a_hold_that_could_not_be_written_does_not_count(tmp_path):
    engine = Sqlite(tmp_path)

    async def test(spool):
        (number,) = await put(spool, engine)
        engine.file.rename(tmp_path / "gone.db")
        with pytest.raises(Exception, match="the file is gone"):
            await spool.hold(hold_on(ROUTE))
        (tmp_path / "gone.db").rename(engine.file)
        assert await leased(spool, engine) == [number]

    engine.run(test)
