"""What is told to people and what is not: once while it lasts, within the hour's cap, and not for a hiccup."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import contextmanager
from email import message_from_bytes, policy

from config.fields import Duration
from config.relay_settings import AlertMail, Alerts
from ops.alert_sending import Alerting, as_json, letter
from ops.alerts import SORTS, Alert, Desk, Ear, shared_mark
from routing.events import emit
from spool.contract import SpoolUnavailable
from tests.spool.engines import Sqlite
from tests.waiting import until

NOW = 1_700_000_000.0
HELD = {"route": "acme.nl", "upstream": "acme", "reply": "535 5.7.8 bad\r\nlogin", "hint": "Ask for it."}


def settings(**changes: object) -> Alerts:
    mail = AlertMail(from_=("relay@callcenter.nl",), to=("beheer@callcenter.nl",))
    return Alerts(**{"mail": mail, "repeat": Duration(86400), **changes})


def test_a_trouble_is_told_once_until_it_ended_or_a_day_is_over():
    desk = Desk(settings())
    alert = desk.hear("held", HELD, NOW)
    assert alert is not None
    assert alert.text == "Route acme.nl is on hold, acme does not work: 535 5.7.8 bad login -> Ask for it."
    assert desk.hear("held", HELD, NOW + 3600) is None
    assert desk.hear("held", {**HELD, "route": "globex.nl"}, NOW + 3600) is not None, "another customer"
    assert desk.hear("released", {"route": "acme.nl", "upstream": "acme"}, NOW + 7200) is None
    assert desk.hear("held", HELD, NOW + 7201) is not None, "it ended meanwhile"
    assert desk.hear("held", HELD, NOW + 7201 + 86399) is None
    assert desk.hear("held", HELD, NOW + 7201 + 86400) is not None


def test_a_host_that_was_away_for_a_moment_is_no_news():
    desk = Desk(settings())
    away = {"upstream": "acme", "reply": "Connection refused"}
    assert desk.hear("unreachable", away, NOW) is None
    desk.hear("reached", {"upstream": "acme"}, NOW + 60)
    assert desk.due(NOW + 1000) == []
    desk.hear("unreachable", away, NOW + 2000)
    assert desk.due(NOW + 2299) == []
    (alert,) = desk.due(NOW + 2300)
    assert alert.text == "Nobody answers at acme: Connection refused"
    assert desk.due(NOW + 9000) == []


def test_no_more_than_so_many_an_hour_and_the_next_says_how_many_were_left_out():
    desk = Desk(settings(per_hour=3))
    told = [desk.hear("held", {**HELD, "route": f"c{number}.nl"}, NOW + number) for number in range(10)]
    assert [alert is not None for alert in told] == [True] * 3 + [False] * 7
    later = desk.hear("quota_near", {"account": "x", "recipients": 9, "per_day": 10}, NOW + 3600)
    assert later is not None
    assert later.left_out == 7
    assert b"and 7 more before" in as_json(later, "relay.test")


def test_a_clock_that_was_set_back_silences_nobody():
    desk = Desk(settings(per_hour=1))
    assert desk.hear("held", HELD, NOW) is not None
    assert desk.hear("unreachable", {"upstream": "acme", "reply": "x"}, NOW) is None
    back = NOW - 86400
    assert desk.hear("held", {**HELD, "route": "globex.nl"}, back) is not None
    assert len(desk.due(back + 3600)) == 1
    assert desk.hear("held", HELD, back + 7200) is not None


def test_each_step_of_an_end_is_another_alert():
    desk = Desk(settings())
    for days in (30, 14, 7, 1):
        assert desk.hear("expiry_near", {"what": "api key", "where": "up", "days": days}, NOW) is not None


def test_every_sort_can_be_said_with_whatever_fields_come():
    desk = Desk(settings(per_hour=100))
    for name, sort in SORTS.items():
        alert = desk.hear(name, {}, NOW)
        assert (alert is None) == bool(sort.patience)
        assert alert is None or "{" not in alert.text


@contextmanager
def listening():
    """A log, and what an ear on it heard."""
    heard = []
    log = logging.getLogger("test.alerts")
    log.setLevel(logging.INFO)
    ear = Ear(lambda event, fields: heard.append((event, fields)))
    log.addHandler(ear)
    try:
        yield log, heard
    finally:
        log.removeHandler(ear)


def test_the_ear_hears_what_matters_and_not_the_rest():
    with listening() as (log, heard):
        emit(log, "held", logging.ERROR, route="acme.nl")
        emit(log, "held", logging.WARNING, route="acme.nl")
        emit(log, "delivered", route="acme.nl")
        emit(log, "released", route="acme.nl")
        log.error("held up by %s", "nothing")
    assert heard == [("held", {"route": "acme.nl"}), ("released", {"route": "acme.nl"})]


def test_a_sender_without_a_route_is_told_once_until_the_rules_change():
    with listening() as (log, heard):
        emit(log, "refused", logging.WARNING, code=552, reply="552 5.3.4 too large")
        emit(log, "refused", logging.INFO, code=452, reply="452 4.3.1 The spool is full; try again later")
        emit(log, "refused", logging.WARNING, code=550, reply="550 5.7.1 no route", helo="selftest.invalid")
        emit(log, "refused", logging.WARNING, code=550, reply="550 5.7.1 <a@b.nl>: no route", helo="callpro")
    ((event, fields),) = heard
    desk = Desk(settings())
    alert = desk.hear(event, fields, NOW)
    assert alert is not None
    assert alert.text == "Mail is refused for good: 550 5.7.1 <a@b.nl>: no route"
    assert desk.hear(event, {**fields, "reply": "550 5.7.1 <c@d.nl>: no route"}, NOW + 60) is None, "a flood is one"
    desk.hear("reloaded", {}, NOW + 120)
    assert desk.hear(event, fields, NOW + 180) is not None


def test_what_others_said_cannot_break_the_letter():
    desk = Desk(settings())
    alert = desk.hear("held", {**HELD, "reply": "535 x\r\nBcc: evil@example.org\r\n\r\n\u00e9"}, NOW)
    assert alert is not None
    raw = letter(alert, "relay@callcenter.nl", ("beheer@callcenter.nl",), "0000000000001", "relay.test")
    mail = message_from_bytes(raw, policy=policy.SMTP)
    assert not mail.defects
    assert (mail["Bcc"], mail["Auto-Submitted"]) == (None, "auto-generated")
    assert mail["Subject"] == "callpro-relay relay.test: held"
    assert "535 x Bcc: evil@example.org \u00e9" in mail.get_content()
    assert b"\n" not in raw.replace(b"\r\n", b"")


def test_octets_that_are_no_text_keep_no_alert_back():
    argument = b'"J\xe9" <x@b.nl>'.decode("utf-8", "surrogateescape")  # as intake reads what a client says
    alert = Desk(settings()).hear("refused", {"reply": "550 5.7.1 no route", "code": 550, "argument": argument}, NOW)
    assert alert is not None
    assert json.loads(as_json(alert, "relay.test"))["fields"]["argument"] == '"J?" <x@b.nl>'
    raw = letter(alert, "relay@callcenter.nl", ("beheer@callcenter.nl",), "0000000000001", "relay.test")
    assert '"J?" <x@b.nl>' in message_from_bytes(raw, policy=policy.SMTP).get_content()


def test_what_several_relays_find_out_is_the_same_trouble_and_what_is_their_own_is_not():
    def mark(event: str, **fields: object) -> str | None:
        found = shared_mark(Alert(event, "", fields, NOW))
        return found[0] if found else None

    assert mark("held", **HELD) == mark("held", **{**HELD, "reply": "535 other words"})
    assert mark("held", **HELD) != mark("held", **{**HELD, "route": "globex.nl"})
    problem = {"route": "acme.nl", "check": "SPF", "where": "acme.nl", "what": "203.0.113.10 is missing"}
    assert mark("doctor_problem", **problem) == mark("doctor_problem", **problem)
    assert mark("doctor_problem", **problem) != mark("doctor_problem", **{**problem, "what": "203.0.113.11 is missing"})
    for event in ("reload_refused", "spool.trouble", "spool.mail_unreadable", "expiry_near"):
        assert mark(event) is None, event


def test_of_two_relays_on_one_spool_one_tells_and_in_doubt_both_do(tmp_path):
    engine = Sqlite(tmp_path)  # the marks are the same with every engine
    engine.clock.now = time.time()

    async def test(spool):
        told = tmp_path / "told"
        command = settings(mail=None, command=("/bin/sh", "-c", f"printf '%s\\n' \"$(cat)\" >> {told}"))
        relays = [
            Alerting(command, spool, lambda: None, lambda: ((), {}), name, shared=True) for name in ("one", "other")
        ]
        running = [asyncio.create_task(relay.run()) for relay in relays]
        await asyncio.sleep(0)
        logger = logging.getLogger("test")
        emit(logger, "held", logging.ERROR, **HELD)
        emit(logger, "reload_refused", logging.ERROR, why="x")

        async def posts(count: int) -> list[str]:
            await until(lambda: told.exists() and told.read_text().count("\n") >= count)
            return [json.loads(line)["event"] for line in told.read_text().splitlines()]

        assert sorted(await posts(3)) == ["held", "reload_refused", "reload_refused"]

        async def away(*_: object) -> None:
            raise SpoolUnavailable("the database is away")

        told.unlink()
        spool.note = away
        emit(logger, "held", logging.ERROR, **{**HELD, "route": "globex.nl"})
        assert await posts(2) == ["held", "held"]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    engine.run(test)
