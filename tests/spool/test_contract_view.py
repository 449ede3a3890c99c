"""What every engine must tell people: the list, the story, the verbatim reply."""

from __future__ import annotations

import pytest

from routing.outcome import Hint, Outcome, Stage, Who, Word
from spool.contract import Settled, Settlement
from spool.view import Filter
from tests.spool.engines import REJECT, RETRY, SENT, arrival, settlement


def test_the_story_of_a_mail(engine):
    async def test(spool):
        start = engine.clock.now
        mail = arrival(spool, engine.clock, recipients=("a@x.nl", "b@x.nl"), repairs=("date", "long lines"))
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, start)
        engine.clock.now = start + 2
        await spool.settle(settlement(leased, RETRY, start + 60))
        (leased,) = await spool.lease("acme.nl", 1, start + 60)
        engine.clock.now = start + 61
        results = settlement(leased, SENT).attempts[0].results | {"b@x.nl": REJECT}
        done = {"a@x.nl": Settled.DELIVERED, "b@x.nl": Settled.FAILED}
        attempt = type(settlement(leased).attempts[0])("globex", start + 60, 1.5, results)
        await spool.settle(Settlement(leased, done, (attempt,), note="One recipient bounced."))
        with engine.view() as view:
            story = view.show(mail.id)
        assert story.mail.due_at is None
        assert story.mail.attempts == 2
        assert story.mail.size == len(mail.content)
        assert story.message_id == "<1@acme.nl>"
        assert (story.peer, story.helo) == ("127.0.0.1", "callpro")
        assert [(line.address, line.state, line.last) for line in story.mail.recipients] == [
            ("a@x.nl", "delivered", SENT),
            ("b@x.nl", "failed", REJECT),
        ]
        assert [entry.event for entry in story.entries] == ["received", "repaired", "attempt", "attempt", "note"]
        assert "date, long lines" in story.entries[1].text
        assert story.entries[2].outcomes == (("a@x.nl", RETRY), ("b@x.nl", RETRY))
        assert (story.entries[3].upstream, story.entries[3].seconds, story.entries[3].at) == ("globex", 1.5, start + 60)
        assert dict(story.entries[3].outcomes) == results
        assert story.entries[4].text == "One recipient bounced."

    engine.run(test)


def test_a_reply_is_kept_verbatim(engine):
    reply = "550-5.7.1 één\n550 5.7.1 \udce9 \x00 \U0001f600 'quoted' \"too\""
    outcome = Outcome(
        Word.CONFIG, reply, Stage.LOGIN, 535, wait=1.5, upstream_id="", hint=Hint(Who.US, "Do this.", "Doe dit.")
    )

    async def test(spool):
        mail = arrival(spool, engine.clock)
        await spool.put(mail)
        (leased,) = await spool.lease("acme.nl", 1, engine.clock.now)
        await spool.settle(settlement(leased, outcome, engine.clock.now + 1))
        with engine.view() as view:
            assert view.show(mail.id).mail.recipients[0].last == outcome

    engine.run(test)


def test_the_list_filters_and_pages(engine):
    async def test(spool):
        start = engine.clock.now
        mails = []
        for number in range(12):
            route = ("acme.nl", "globex.nl")[number % 2]
            recipients = (f"Klant{number}@Example.org", "copy@x.nl") if number < 6 else ("other@y.nl",)
            mails.append(arrival(spool, engine.clock, route=route, sender=f"info@{route}", recipients=recipients))
            await spool.put(mails[-1])
            engine.clock.now += 10
        for mail in await spool.lease("globex.nl", 2, engine.clock.now):
            await spool.settle(settlement(mail))
        ids = [mail.id for mail in mails]
        waiting = [number for number in ids if number not in (ids[1], ids[3])]
        with engine.view() as view:

            def listed(limit: int = 100, after: int = 0, **fields: object) -> list[int]:
                return [line.id for line in view.list(Filter(**fields), limit, after)]

            assert listed() == waiting
            assert listed(limit=4) == waiting[:4]
            assert listed(limit=4, after=waiting[3]) == waiting[4:8]
            assert listed(settled=True) == [ids[1], ids[3]]
            assert listed(settled=True, route="acme.nl") == []
            assert listed(settled=True, route="globex.nl", after=ids[1]) == [ids[3]]
            assert listed(route="globex.nl") == [ids[5], ids[7], ids[9], ids[11]]
            assert listed(sender="INFO@acme.nl") == ids[0::2]
            assert listed(sender="@globex.nl", limit=1) == [ids[5]]
            assert listed(recipient="klant4@example.ORG") == [ids[4]]
            assert listed(recipient="@x.nl") == [ids[0], ids[2], ids[4], ids[5]]
            assert listed(recipient="copy@x.nl", settled=True) == [ids[1], ids[3]]
            assert listed(recipient="@x.nl", route="acme.nl", older_than=start + 30) == [ids[0], ids[2]]
            assert listed(recipient="nobody@x.nl") == []
            (line,) = view.list(Filter(recipient="klant4@example.org"), 1)
            assert (line.route, line.sender, line.received_at, line.due_at) == (
                "acme.nl",
                "info@acme.nl",
                start + 40,
                start + 40,
            )
            assert [(r.address, r.state, r.last) for r in line.recipients] == [
                ("Klant4@Example.org", "waiting", None),
                ("copy@x.nl", "waiting", None),
            ]

    engine.run(test)


def test_the_mails_to_a_domain_are_walked_in_order_both_ways(engine):
    """Their order is merged from parts; a mail to several people there is told once."""

    async def test(spool):
        mails = []
        for number in range(60):
            there = tuple(f"{chr(97 + (number * 7 + more) % 26)}{number}@X.nl" for more in range(number % 4))
            mails.append(arrival(spool, engine.clock, recipients=(*there, "other@y.nl")))
            await spool.put(mails[-1])
        for mail in await spool.lease("acme.nl", 30, engine.clock.now):
            await spool.settle(settlement(mail))
        with engine.view() as view:
            for settled, among in ((None, mails), (True, mails[:30]), (False, mails[30:])):
                wanted = [mail.id for mail in among if any(to.endswith("X.nl") for to in mail.recipients)]

                def listed(limit: int = 100, after: int = 0, *, newest: bool = False, settled=settled):
                    lines = view.list(Filter(recipient="@x.nl", settled=settled), limit, after, newest_first=newest)
                    return [line.id for line in lines]

                assert listed() == wanted
                assert listed(newest=True) == wanted[::-1]
                assert listed(1, newest=True) == wanted[-1:]
                assert listed(7, wanted[4]) == wanted[5:12]
                assert view.count(Filter(recipient="@x.nl", settled=settled)) == len(wanted)
            assert view.list(Filter(recipient="@nobody.nl", settled=None), 5) == []

    engine.run(test)


def test_an_unknown_number_has_no_story(engine):
    async def test(spool):
        with engine.view() as view:
            assert view.show(12345) is None

    engine.run(test)


@pytest.mark.parametrize("address", ["a@x.nl", "Ab@x.nl", '"x@y"@z.nl', "postmaster", "zoë@x.nl", "@x.nl.", "9@X.NL"])
def test_every_recipient_is_found_in_any_case(engine, address):
    async def test(spool):
        mail = arrival(spool, engine.clock, recipients=(address, "other@y.nl"))
        await spool.put(mail)
        with engine.view() as view:
            for text in (address, address.swapcase()) if address.isascii() else (address,):
                if not text.startswith("@"):
                    (found,) = view.list(Filter(recipient=text, settled=None), 5)
                    assert found.id == mail.id
            assert view.list(Filter(recipient=f"x{address}", settled=None), 5) == []

    engine.run(test)
