"""What every engine must do with what providers tell: on the right timeline, once, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from routing.provider_events import ProviderEvent, Told
from spool.contract import Noted, Notice, Settled, id_text
from tests.spool.engines import REJECT, SENT, arrival, nothing, settlement

UNKNOWN = Noted(None, False)


def event(mail: int | str, number: int = 1, told: Told = Told.BOUNCED, reply: str = "550 5.1.1 één") -> ProviderEvent:
    text = mail if isinstance(mail, str) else id_text(mail)
    return ProviderEvent(f"event-{number}", text, "jan@example.org", 1_700_000_100.5, told, reply)


def notice(*events: ProviderEvent, seal: str = "seal", routes: tuple[str, ...] = ("acme.nl",)) -> Notice:
    return Notice("our-sendgrid", frozenset(routes), events, seal, 1_700_000_300.0)


def timeline(engine, mail):
    with engine.view() as view:
        return view.show(mail.id).entries


def test_an_event_stands_on_the_timeline_of_its_mail(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased))
        assert await spool.note(notice(event(mail.id))) == (Noted("acme.nl", True),)
        entry = timeline(engine, mail)[-1]
        assert (entry.event, entry.text, entry.recipient) == ("bounced", "550 5.1.1 één", "jan@example.org")
        assert (entry.at, entry.upstream, entry.seconds, entry.outcomes) == (1_700_000_100.5, "our-sendgrid", None, ())
        with engine.view() as view:  # what we did stays apart from what they told
            (recipient,) = view.show(mail.id).mail.recipients
        assert (recipient.state, recipient.last) == ("delivered", SENT)

    engine.run(test)


def test_an_event_may_come_before_the_attempt_is_written(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        assert await spool.note(notice(event(mail.id, told=Told.DELIVERED))) == (Noted("acme.nl", True),)
        await spool.settle(settlement(leased))
        assert [entry.event for entry in timeline(engine, mail)] == ["received", "delivered", "attempt"]

    engine.run(test)


def test_an_event_is_told_once_however_often_it_comes(engine):
    async def test(spool):
        one, other = arrival(spool, engine.clock), arrival(spool, engine.clock)
        await asyncio.gather(spool.put(one), spool.put(other))
        again = [spool.note(notice(event(one.id), event(one.id), seal=f"seal {number}")) for number in range(20)]
        answers = await asyncio.gather(*again)
        assert sum(noted.new for answer in answers for noted in answer) == 1
        assert {noted.route for answer in answers for noted in answer} == {"acme.nl"}
        # The same id on another mail is other news: it is the provider that gives ids.
        assert await spool.note(notice(event(other.id), seal="other")) == (Noted("acme.nl", True),)
        assert [entry.event for entry in timeline(engine, one)] == ["received", "bounced"]

    engine.run(test)


def test_a_seal_is_taken_once_also_over_a_restart(engine):
    sent = []

    async def first(spool):
        mail = arrival(spool, engine.clock)
        sent.append(mail)
        await spool.put(mail)
        answers = await asyncio.gather(*(spool.note(notice(event(mail.id, number))) for number in range(20)))
        assert [answer for answer in answers if answer is not None] == [(Noted("acme.nl", True),)]

    async def second(spool):
        assert await spool.note(notice(event(sent[0].id, 99))) is None
        assert [entry.event for entry in timeline(engine, sent[0])] == ["received", "bounced"]
        engine.clock.now = 1_700_000_300.5  # its request is too old by now, and refused before it comes here
        assert await spool.note(notice(event(sent[0].id, 99))) == (Noted("acme.nl", True),)

    engine.run(first)
    engine.run(second)


def test_nobody_tells_of_another_customers_mail(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        theirs = notice(event(mail.id), routes=("globex.nl",))
        assert await spool.note(theirs) == (UNKNOWN,)
        assert [entry.event for entry in timeline(engine, mail)] == ["received"]

        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased))  # by the upstream acme-login, before the rules moved
        assert await spool.note(replace(theirs, seal="2")) == (UNKNOWN,)
        assert await spool.note(replace(theirs, seal="3", upstream="acme-login")) == (Noted("acme.nl", True),)
        # What was told counts for nothing as a proof that it was handed over.
        other = arrival(spool, engine.clock)
        await spool.put(other)
        told = notice(event(other.id, 1), seal="4")
        assert await spool.note(told) == (Noted("acme.nl", True),)
        assert await spool.note(replace(notice(event(other.id, 2), seal="5"), routes=frozenset())) == (UNKNOWN,)

    engine.run(test)


def test_mails_that_are_not_known_are_said_to_be_so(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        events = [event(name, number) for number, name in enumerate(("", "no id", "0000000000000", "ZZZZZZZZZZZZZ"))]
        noted = await spool.note(notice(*events, event(mail.id, 9), event(id_text(mail.id).lower(), 10)))
        assert noted == (UNKNOWN,) * 4 + (Noted("acme.nl", True),) * 2
        assert await spool.note(notice(seal="nothing")) == ()

    engine.run(test)


def test_what_was_told_is_forgotten_with_its_mail(engine):
    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased))
        await spool.note(notice(event(mail.id)))
        engine.clock.now += 100
        assert await spool.prune(engine.clock.now) == 1
        assert await spool.note(notice(event(mail.id), seal="late")) == (UNKNOWN,)

    engine.run(test)


def test_bad_news_is_among_the_failures_with_who_told_it_also_after_a_restart(engine):
    """Good news, and news of another day, are not."""
    days = [event(0, number, told) for number, told in enumerate(Told)]

    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased))
        await spool.note(notice(*[replace(one, mail=id_text(mail.id)) for one in days]))
        refused = arrival(spool, engine.clock)
        await spool.put(refused)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased, REJECT, done={"jan@example.org": Settled.FAILED}))

    engine.run(test)
    engine.run(nothing)
    with engine.view() as view:
        told = [(line.how, line.told_by, line.words) for line in view.failures(1_700_000_000)]
        assert told == [
            ("bounced", "our-sendgrid", "550 5.1.1 één"),
            ("dropped", "our-sendgrid", "550 5.1.1 één"),
            ("complained", "our-sendgrid", "550 5.1.1 één"),
            ("failed", None, ""),
        ]
        (first, *_) = view.failures(1_700_000_000)
        assert (first.route, first.sender, first.recipient) == ("acme.nl", "info@acme.nl", "jan@example.org")
        assert first.at == 1_700_000_100.5
        assert [line.how for line in view.failures(1_700_000_101)] == []
