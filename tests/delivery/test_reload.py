"""New rules while mail waits: what is used on, what is closed, what is tried at once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from config.fields import Settings
from config.rules import Route
from delivery.plan import build_plan
from spool.sqlite_view import SqliteView
from tests.delivery.room import (
    BAD_LOGIN,
    BUSY,
    DOWN,
    SENT,
    Room,
    Scripted,
    events,
    kinds,
    room,
    route,
    rules,
)
from tests.waiting import until
from upstreams.base import Host, Upstream

HOST = Host("relay.callcenter.nl")


async def reload(r: Room, routes: tuple[Route, ...], *fresh: Scripted, passwords: dict[str, str] | None = None) -> None:
    for upstream in fresh:
        upstream.now = r.clock.now
    r.plan = build_plan(rules(routes, passwords), kinds(*fresh), HOST, r.plan)
    await r.scheduler.replace(r.plan)


def test_upstreams_with_an_equal_entry_are_used_on():
    old_a, old_b, new_b = Scripted("a"), Scripted("b"), Scripted("b")
    routes = (route("acme.nl", via="a"), route("globex.nl", via="b"))
    first = build_plan(rules(routes), kinds(old_a, old_b), HOST, None)
    second = build_plan(rules(routes, {"b": "two"}), kinds(new_b), HOST, first)
    assert second.upstreams == {"a": old_a, "b": new_b}
    assert first.upstreams == {"a": old_a, "b": old_b}


def test_a_plan_that_cannot_be_built_leaves_the_old_one_alone():
    def refuse(name: str, settings: Settings, host: Host) -> Upstream:
        raise ValueError(f"{name}: the certificate has no private key; give a PEM with both")

    routes = (route("acme.nl", via="a"),)
    first = build_plan(rules(routes), kinds(Scripted("a")), HOST, None)
    broken = {"scripted": replace(kinds()["scripted"], build=refuse)}
    with pytest.raises(ValueError, match="private key"):
        build_plan(rules((*routes, route("globex.nl", via="b"))), broken, HOST, first)
    assert list(first.upstreams) == ["a"]


def test_a_corrected_password_releases_the_mail_that_waits(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        wrong, right = Scripted("a", BAD_LOGIN), Scripted("a")
        wrong.probe_answer = BAD_LOGIN
        routes = (route("acme.nl", via="a"),)
        async with room(tmp_path, routes, wrong) as r:
            for _ in range(5):
                await r.put()
            await until(lambda: events(caplog, "held") != [], "the hold")
            await r.quiet()
            await reload(r, routes, right, passwords={"a": "two"})
            await until(lambda: len(right.mails) == 5, "all mail")
            assert len(wrong.mails) == 1
            await until(lambda: wrong.closed == 1, "the old one closed")
            assert await r.waiting() == {}
            await r.clock.advance(7200)
            assert wrong.probes == []

    asyncio.run(scenario())


def test_an_unchanged_route_keeps_its_hold_and_its_backoff(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b, c = Scripted("a", BAD_LOGIN), Scripted("b", BUSY), Scripted("c")
        a.probe_answer = BAD_LOGIN
        routes = (route("acme.nl", via="a"), route("globex.nl", via="b"))
        async with room(tmp_path, routes, a, b, c) as r:
            await r.put()
            await r.put("info@globex.nl", route="globex.nl")
            await until(lambda: a.mails and b.mails, "both tries")
            await r.quiet()
            await reload(r, (*routes, route("hooli.nl", via="c")), c)
            await r.put("info@hooli.nl", route="hooli.nl")
            await until(lambda: c.mails, "the new route")
            await r.quiet()
            assert (len(a.mails), len(b.mails)) == (1, 1)
            assert r.scheduler.routes()["acme.nl"].held != ()
            await r.clock.advance(70)
            assert (len(a.probes), len(b.mails)) == (1, 2)

    asyncio.run(scenario())


def test_mail_goes_by_the_rule_that_its_sender_has_now(tmp_path):
    async def scenario():
        a, b = Scripted("a", DOWN), Scripted("b")
        async with room(tmp_path, (route("acme.nl", "globex.nl", via="a"),), a) as r:
            await r.put("info@globex.nl")
            await until(lambda: len(a.mails) == 1, "the try")
            await r.quiet()
            await reload(r, (route("acme.nl", via="a"), route("globex.nl", via="b")), b)
            await until(lambda: len(b.mails) == 1, "by the new rule, at once")
            assert b.mails[0].route == "globex.nl"
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_in_the_lane_goes_by_the_new_rule_too(tmp_path):
    async def scenario():
        a, b = Scripted("a", concurrency=1), Scripted("b")
        async with room(tmp_path, (route("acme.nl", "globex.nl", via="a"),), a) as r:
            a.opened.clear()
            for _ in range(6):
                await r.put("info@globex.nl")
            await until(lambda: a.under_way == 1, "a send")
            await r.quiet()
            await reload(r, (route("globex.nl", via="b"),), b)
            await until(lambda: len(b.mails) == 5, "the others")
            assert a.closed == 0
            a.opened.set()
            await until(lambda: a.closed == 1, "closed behind the last send")
            assert len(a.mails) == 1
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_mail_whose_sender_no_rule_names_any_more_is_kept_and_heals(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        a, b, c = Scripted("a", BUSY), Scripted("b"), Scripted("c")
        async with room(tmp_path, (route("acme.nl", via="a"),), a) as r:
            numbers = [await r.put() for _ in range(3)]
            await until(lambda: len(a.mails) == 3, "the tries")
            await r.quiet()
            await reload(r, (route("globex.nl", via="b"),), b)
            await r.clock.advance(8 * 3600)
            assert await r.waiting() == {"acme.nl": 3}
            assert len(events(caplog, "held")) == 1
            assert events(caplog, "held")[0]["level"] == "ERROR"
            view = SqliteView(str(tmp_path / "spool.db"))
            notes = [entry.text for entry in view.show(numbers[0]).entries if "no rule" in entry.text]
            view.close()
            assert notes
            await reload(r, (route("acme.nl", via="c"),), c)
            await until(lambda: len(c.mails) == 3, "the mail")
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_send_under_way_by_the_old_password_does_not_hold_the_new_one(tmp_path, caplog):
    async def scenario():
        caplog.set_level(logging.INFO)
        old, new = Scripted("a", BAD_LOGIN), Scripted("a")
        routes = (route("acme.nl", via="a"),)
        async with room(tmp_path, routes, old) as r:
            old.opened.clear()
            await r.put()
            await until(lambda: old.under_way == 1, "a send")
            await reload(r, routes, new, passwords={"a": "two"})
            old.opened.set()
            await until(lambda: old.closed == 1, "the old one closed")
            await until(lambda: len(new.mails) == 1, "the mail by the new one, at once")
            assert events(caplog, "held") == []
            assert await r.waiting() == {}

    asyncio.run(scenario())


def test_a_fallback_that_a_reload_takes_away_is_not_used(tmp_path):
    async def scenario():
        a, b = Scripted("a", SENT), Scripted("b", concurrency=1)
        routes = (route("acme.nl", via=("a", "b")), route("globex.nl", via="b"))
        async with room(tmp_path, routes, a, b) as r:
            b.opened.clear()
            await r.put("info@globex.nl", route="globex.nl")
            await until(lambda: b.under_way == 1, "the fallback is busy")
            a.answers, a.probe_answer = [BAD_LOGIN], BAD_LOGIN
            await r.put()
            await until(lambda: len(a.mails) == 1, "the first is wrong")
            await r.quiet()
            a.answers = [SENT]
            fresh = Scripted("a")
            await reload(r, (route("acme.nl", via="a"),), fresh, passwords={"a": "two"})
            await until(lambda: len(fresh.mails) == 1, "by the new rules")
            b.opened.set()
            await until(lambda: b.closed == 1 and a.closed == 1, "both closed")
            assert [mail.route for mail in b.mails] == ["globex.nl"]

    asyncio.run(scenario())
