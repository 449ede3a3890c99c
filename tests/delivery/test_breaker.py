"""An upstream that is not there: asked by one probe at a time, not by every mail, and found again."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from config.credentials import Secret
from delivery.backoff import reach_waits
from delivery.endpoint import BROKEN_AFTER, Endpoint
from delivery.plan import build_plan
from routing.outcome import Outcome, Stage, Word
from spool.sqlite_view import SqliteView
from tests.delivery.room import BAD_LOGIN, BUSY, DOWN, SENT, START, Scripted, events, kinds, room, route, rules
from upstreams.base import Host
from upstreams.http_client import connects_to
from upstreams.smtp_login import PasswordLogin
from upstreams.smtp_session import SmtpWay

TLS_DOWN = Outcome(Word.RETRY, "handshake timed out", Stage.TLS)


def test_it_breaks_after_failed_connects_in_a_row_and_any_answer_mends_it():
    endpoint = Endpoint()
    for number in range(1, BROKEN_AFTER + 2):
        endpoint.unanswered(DOWN, float(number))
        assert endpoint.broken == (number >= BROKEN_AFTER)
    assert endpoint.since == 1.0
    endpoint.answered()
    assert (endpoint.broken, endpoint.since, endpoint.trouble) == (False, None, None)


def test_a_heap_for_a_dead_host_is_a_few_sends_and_then_probes(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", DOWN, concurrency=4)
        one.probe_answer = DOWN
        names = tuple(f"c{number}.nl" for number in range(4))
        async with room(tmp_path, tuple(route(name, via="one") for name in names), one, start=False) as r:
            numbers = [await r.put(f"info@{name}", route=name) for name in names for _ in range(5)]
            await r.scheduler.start()
            await r.clock.advance(1500)
            assert len(one.mails) <= BROKEN_AFTER + 4
            assert 4 <= len(one.probes) <= 1500 / 300 + 2
            assert all(later - earlier >= 60 for earlier, later in pairwise(one.probes))
            assert sum((await r.waiting()).values()) == 20
            view = SqliteView(str(tmp_path / "spool.db"))
            story = view.show(numbers[-1])
            view.close()
            assert "Connection refused" in story.entries[-1].text
            silent = r.scheduler.silent()
            assert {(way.route, way.upstream, way.silent) for way in silent} == {(name, "one", True) for name in names}
            assert {way.reply for way in silent} == {DOWN.reply}
            assert min(way.next_probe for way in silent) > r.clock.at
            told = Counter(line["mail"] for line in events(caplog, "deferred"))
            assert len(told) == 20
            assert set(told.values()) == {1}, "that nobody answers is told once for each mail, and not at each turn"
            sends = len(one.mails)
            one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            assert len(one.mails) == sends + 20, "all at once, not by their own back-off"
            assert r.scheduler.silent() == ()
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_to_a_dead_host_expires_when_it_should_with_the_reason(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one, two = Scripted("one", DOWN), Scripted("two")
        one.probe_answer = DOWN
        routes = (route("acme.nl", via="one"), route("<>", via="two"))
        async with room(tmp_path, routes, one, two, expire=7200.0) as r:
            for _ in range(6):
                await r.put()
            await r.clock.advance(7100)
            assert events(caplog, "expired") == []
            await r.clock.advance(200)
            assert len(events(caplog, "expired")) == 6
            assert b"Connection refused" in two.mails[-1].content
            assert len(two.mails) == 6

    asyncio.run(scenario())


ANSWERS = st.lists(st.sampled_from((DOWN, TLS_DOWN, BUSY, SENT)), max_size=12)


@settings(max_examples=12, deadline=None)
@given(ANSWERS, st.lists(st.sampled_from((DOWN, SENT)), max_size=4), st.integers(1, 6))
def test_whatever_the_outage_every_mail_gets_out_after_it(answers, probes, mails):
    async def scenario(folder: Path):
        one = Scripted("one", *answers, SENT)
        left = list(probes)
        ask = one.probe

        async def probe() -> Outcome:
            one.probe_answer = left.pop(0) if left else SENT
            return await ask()

        one.probe = probe
        async with room(folder, (route("acme.nl", via="one"),), one, retry=(60.0, 300.0)) as r:
            for _ in range(mails):
                await r.put()
            await r.clock.advance(7200)
            assert await r.waiting() == {}
            assert r.scheduler.unreachable() == {}
            assert r.clock.at == START + 7200

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


def test_how_often_a_host_that_does_not_answer_is_asked():
    """As often as mail would be tried, and never so seldom that mail waits hours for a host that is back."""
    assert reach_waits((60.0, 300.0, 900.0)) == (60.0, 300.0)
    assert reach_waits((1.0,)) == (1.0,)
    assert reach_waits((3600.0,)) == (60.0, 300.0)


def test_the_log_says_when_nobody_answers_and_when_somebody_does_again(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        one = Scripted("one", DOWN)
        one.probe_answer = DOWN
        async with room(tmp_path, (route("acme.nl", via="one"),), one) as r:
            for _ in range(6):
                await r.put()
            await r.clock.advance(1000)
            (unreachable,) = events(caplog, "unreachable")
            assert (unreachable["upstream"], unreachable["reply"]) == ("one", DOWN.reply)
            one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            (reached,) = events(caplog, "reached")
            assert reached["seconds"] >= 1000
            assert await r.waiting() == {}

    asyncio.run(scenario())


def same_host(count: int, *answers: object, **settings: int) -> list[Scripted]:
    """Upstreams of so many customers that all lead to one host and port."""
    made = [Scripted(f"u{number}", *answers, **settings) for number in range(count)]
    for upstream in made:
        upstream.connects_to = "mail.example:587"
        upstream.probe_answer = DOWN
    return made


def routes_of(upstreams: list[Scripted]) -> tuple[object, ...]:
    return tuple(route(f"c{number}.nl", via=one.name) for number, one in enumerate(upstreams))


def test_fifty_entries_on_a_dead_host_are_one_probe_a_round(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        entries = same_host(50, DOWN)
        async with room(tmp_path, routes_of(entries), *entries, retry=(60.0, 300.0)) as r:
            for _ in range(3):
                for number in range(50):
                    await r.put(f"info@c{number}.nl", route=f"c{number}.nl")
                await r.quiet()
            await r.clock.advance(1500)
            assert sum(len(one.mails) for one in entries) <= 50, "at most each entry's first, at the same moment"
            probes = sorted(at for one in entries for at in one.probes)
            assert 5 <= len(probes) <= 1500 / 300 + 2
            assert all(later - earlier >= 60 for earlier, later in pairwise(probes))
            assert len({one.name for one in entries if one.probes}) == len(probes), "they take turns"
            (unreachable,) = events(caplog, "unreachable")
            assert (unreachable["endpoint"], unreachable["upstreams"]) == ("mail.example:587", 50)
            assert len(r.scheduler.unreachable()) == 50
            for one in entries:
                one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(301)
            assert await r.waiting() == {}
            assert r.scheduler.unreachable() == {}

    asyncio.run(scenario())


def test_a_refused_login_ends_the_outage_for_the_others(tmp_path, caplog):
    """The first customer's password is wrong as well: the host answers, and that is what the others wait for."""

    async def scenario():
        caplog.set_level(logging.INFO)
        entries = same_host(2, DOWN)
        async with room(tmp_path, routes_of(entries), *entries, retry=(60.0,)) as r:
            for number in (0, 1):
                for _ in range(4):
                    await r.put(f"info@c{number}.nl", route=f"c{number}.nl")
            await r.clock.advance(59)
            for one in entries:
                one.probe_answer = BAD_LOGIN
            entries[0].answers, entries[1].answers = [BAD_LOGIN], [SENT]
            await r.clock.advance(60)
            assert await r.waiting() == {"c0.nl": 4}
            assert [way.upstream for way in r.scheduler.held()] == ["u0"]
            assert len([mail for mail in entries[1].mails if mail.route == "c1.nl"]) >= 4

    asyncio.run(scenario())


def test_a_customer_on_hold_closes_no_door_to_another_on_the_host(tmp_path):
    async def scenario():
        entries = same_host(2)
        entries[0].answers, entries[0].probe_answer = [BAD_LOGIN], BAD_LOGIN
        async with room(tmp_path, routes_of(entries), *entries) as r:
            for _ in range(5):
                await r.put("info@c0.nl", route="c0.nl")
                await r.put("info@c1.nl", route="c1.nl")
            assert await r.waiting() == {"c0.nl": 5}
            assert r.scheduler.unreachable() == {}

    asyncio.run(scenario())


def test_ways_on_hold_do_not_each_ask_a_host_that_is_dead(tmp_path):
    async def scenario():
        entries = same_host(20, BAD_LOGIN)
        async with room(tmp_path, routes_of(entries), *entries, retry=(60.0, 300.0)) as r:
            for number in range(20):
                await r.put(f"info@c{number}.nl", route=f"c{number}.nl")
            await r.quiet()
            assert len(r.scheduler.held()) == 20
            await r.clock.advance(3600)
            assert sum(len(one.probes) for one in entries) <= 20 + 3600 / 300 + 2
            for one in entries:
                one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(7500)
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_other_hosts_ports_and_manners_of_connecting_are_other_endpoints():
    """What a connect hangs on is in the text, and nothing of the customer's account."""
    ways = [
        SmtpWay("mail.example", 587),
        SmtpWay("mail.example", 25),
        SmtpWay("other.example", 587),
        SmtpWay("mail.example", 587, "implicit"),
        SmtpWay("mail.example", 587, source_address="192.0.2.1"),
        SmtpWay("mail.example", 587, ipv4_only=True),
    ]
    assert len({way.connects_to(60.0) for way in ways} | {ways[0].connects_to(1.0)}) == 7
    with_login = SmtpWay("MAIL.example", 587, login=PasswordLogin("acme", Secret("literal", "s3cret")))
    assert with_login.connects_to(60.0) == ways[0].connects_to(60.0)
    assert connects_to(60.0, "https://api.eu.mailgun.net/v3") == connects_to(90.0, "https://API.eu.mailgun.net:443")


def test_a_host_that_hangs_on_the_sender_is_not_shared_between_senders(tmp_path):
    async def scenario():
        one = Scripted("one", lambda mail: dict.fromkeys(mail.recipients, DOWN if mail.route == "a.nl" else SENT))
        one.connects_to = None
        async with room(tmp_path, (route("a.nl", via="one"), route("b.nl", via="one")), one) as r:
            for _ in range(5):
                await r.put("info@a.nl", route="a.nl")
            await r.clock.advance(1000)
            for _ in range(5):
                await r.put("info@b.nl", route="b.nl")
            assert await r.waiting() == {"a.nl": 5}

    asyncio.run(scenario())


def test_a_reload_during_the_outage_leaves_one_probe_that_goes_on(tmp_path):
    async def scenario():
        entries = same_host(3, DOWN)
        again = same_host(3, DOWN)[0]
        async with room(tmp_path, routes_of(entries), *entries, retry=(60.0,)) as r:
            for number in range(3):
                for _ in range(3):
                    await r.put(f"info@c{number}.nl", route=f"c{number}.nl")
            await r.clock.advance(90)
            before = rules(routes_of(entries), passwords={"u0": "two"})
            again.now = r.clock.now
            stock = kinds(again)
            await r.scheduler.replace(build_plan(before, stock, Host("relay.callcenter.nl"), r.plan))
            await r.clock.advance(300)
            probes = sorted(at for one in (*entries, again) for at in one.probes)
            assert all(later - earlier >= 59 for earlier, later in pairwise(probes))
            assert entries[0].closed == 1
            for one in (again, *entries[1:]):
                one.answers, one.probe_answer = [SENT], SENT
            await r.clock.advance(61)
            assert await r.waiting() == {}

    asyncio.run(scenario())
