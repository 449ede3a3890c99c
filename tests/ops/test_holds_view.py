"""What is on hold, word for word: in `queue holds` and in a mail's state."""

from __future__ import annotations

import json
from math import inf

import pytest

from delivery.holds import HeldWay
from ops.holds_view import holds_text, release_command
from ops.orders import Answer, Order, answer_text, order_text, read_answer, read_order
from ops.queue_view import list_json, state_text
from ops.status.looks import state_text as page_state
from ops.status.words import say_in
from spool.holding import Hold, Scope
from spool.view import Filter, RecipientLine
from tests.ops.test_queue_view import NOW, line

ROUTE = Hold(Scope.ROUTE, "acme.nl", NOW - 7200, "jan (as root)", "verkeerde bijlage")
WAY = HeldWay("acme.nl", "acme-login", NOW - 300, "535-5.7.8 no\r\n535 5.7.8 really", "Ask for it.", NOW + 720)


def test_each_hold_says_why_and_how_it_ends():
    assert holds_text([ROUTE], [WAY], NOW) == (
        "route acme.nl  on hold for 2h by jan (as root): verkeerde bijlage\n"
        "    end it: callpro-relay queue release --route acme.nl\n"
        "route acme.nl by acme-login  on hold for 5m, it does not work:\n"
        "    535-5.7.8 no / 535 5.7.8 really -> Ask for it.\n"
        "    next probe in 12m; try with mail now: callpro-relay queue release --route acme.nl\n"
    )


def test_an_upstream_where_nobody_answers_is_told_once_with_whom_it_keeps_waiting():
    away = [
        HeldWay(f"{name}.nl", "spare", NOW - 120, "Connection refused", None, NOW + 30, silent=True) for name in "abc"
    ]
    assert holds_text([], away, NOW) == (
        "spare  nobody answers for 2m; mail of a.nl and 2 more waits:\n"
        "    Connection refused\n"
        "    next probe in 30s; its mail leaves when somebody answers\n"
    )


PACED = HeldWay(
    "acme.nl", "up", NOW - 725, "the pace of route acme.nl has no room", None, NOW + 7200, paced=True, at_hand=(7,)
)


def test_a_pace_without_room_is_told_with_when_there_is_some():
    assert holds_text([], [PACED], NOW) == (
        "route acme.nl by up  waits, as the pace of route acme.nl has no room\n"
        "    next mail in 2h, by itself; more: callpro-relay queue forecast\n"
    )


def test_mail_that_waits_for_its_pace_says_so_and_not_that_it_is_due_or_under_way():
    said = "waits, as the pace of route acme.nl has no room; next mail in 2h, 0 tries so far"
    for untried in (line(due_at=NOW - 5, attempts=0), line(leased=True, attempts=0, id=7)):
        assert state_text(untried, NOW, [PACED]) == said
        assert page_state(untried, NOW, say_in("en"), [PACED]) == "waits for its pace by up, next mail in 2h"
        assert page_state(untried, NOW, say_in("nl"), [PACED]) == "wacht op tempo van up, volgende over 2h"
    assert "under way now" in state_text(line(leased=True), NOW, [PACED]), "this one is with the upstream"
    assert "next try in 4m" in state_text(line(), NOW, [PACED]), "it has a time of its own"
    assert "on hold for 2h" in state_text(line(due_at=NOW - 5, hold=ROUTE), NOW, [PACED])
    assert "due for 5s" in state_text(line(due_at=NOW - 5, route="x.nl"), NOW, [PACED])
    assert read_answer(json.loads(answer_text(Answer(ways=(PACED,))))) == Answer(ways=(PACED,))


@pytest.mark.parametrize(
    ("scope", "subject", "typed"),
    [
        (Scope.MAIL, "1K9ZQ2M4P1ABC", "1K9ZQ2M4P1ABC"),
        (Scope.SENDER, "@acme.nl", "--sender @acme.nl"),
        (Scope.ROUTE, "*.acme.nl", "--route '*.acme.nl'"),
        (Scope.ROUTE, "<>", "--route '<>'"),
    ],
)
def test_what_ends_a_hold_can_be_typed_as_it_stands(scope, subject, typed):
    assert release_command(Hold(scope, subject, 1.0, "jan", "")) == f"callpro-relay queue release {typed}"


def test_a_mail_on_hold_says_so_with_who_and_why():
    held = "on hold for 2h by jan (as root): verkeerde bijlage (route acme.nl), 3 tries so far"
    assert state_text(line(hold=ROUTE), NOW) == held
    assert state_text(line(hold=ROUTE, due_at=inf), NOW) == held
    assert state_text(line(hold=ROUTE, leased=True), NOW) == "under way now, 3 tries so far"
    (told,) = json.loads(list_json([line(hold=ROUTE, due_at=inf)]))
    assert (told["due_at"], told["hold"]["reason"], told["hold"]["scope"]) == (None, "verkeerde bijlage", "route")


@pytest.mark.parametrize("silent", [False, True])
def test_mail_that_was_not_tried_says_which_way_it_waits_for(silent):
    ways = [HeldWay("acme.nl", "acme-login", NOW - 300, "535 no", None, NOW + 38, silent=silent)]
    untried = line(due_at=NOW - 725, attempts=0, recipients=(RecipientLine("jan@x.nl", "waiting", None),))
    assert state_text(untried, NOW, ways) == "waits, as acme-login does not work; next probe in 38s, 0 tries so far"
    assert page_state(untried, NOW, say_in("en"), ways) == "waits for acme-login, next try in 38s"
    assert page_state(untried, NOW, say_in("nl"), ways) == "wacht op acme-login, volgende poging over 38s"
    assert state_text(untried, NOW) == "due for 12m, 0 tries so far"
    assert state_text(line(route="x.nl", due_at=NOW - 5), NOW, ways) == "due for 5s, 3 tries so far"
    assert "next try in 4m" in state_text(line(), NOW, ways), "it has a time of its own"


def test_nothing_that_a_terminal_would_obey_comes_from_a_reason():
    assert "\x1b" not in holds_text([Hold(Scope.ROUTE, "a\x1b[2J", 1.0, "j\x1bn", "x\x1by")], (), NOW)


def test_orders_and_answers_survive_the_socket():
    order = Order("drop", Filter(route="é.nl", older_than=1.5, ids=(7, 8)), "jan", "dubbel\n")  # type: ignore[arg-type]
    assert read_order(order_text(order)) == order
    assert "\n" not in order_text(order)
    answer = Answer(3, 1, (ROUTE,), (WAY,))
    assert read_answer(json.loads(answer_text(answer))) == answer
