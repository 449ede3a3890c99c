"""Failures per day and customer, word for word, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from datetime import timedelta, timezone

from ops.failures_view import each_csv, each_text, failures_csv, failures_text
from routing.outcome import Outcome, Stage, Word
from spool.contract import id_text
from spool.view import FailureLine

ZONE = timezone(timedelta(hours=1))
NIGHT = 1_700_001_000.0  # 2023-11-14 23:30 +01:00
NO_USER = Outcome(Word.REJECT, "550-5.1.1 no such\r\n550 5.1.1 user", Stage.RECIPIENT, 550, "5.1.1")


HEAD = "day,customer,failed,expired,dropped,provider_bounced,provider_dropped,provider_complained\r\n"


def line(**changes: object) -> FailureLine:
    fields = {
        "mail": 7,
        "at": NIGHT,
        "route": "acme.nl",
        "sender": "Info@ACME.nl",
        "recipient": "jan@x.nl",
        "how": "failed",
        "last": NO_USER,
    }
    return FailureLine(**{**fields, **changes})


LINES = [
    line(),
    line(sender="post@acme.nl"),
    line(at=NIGHT + 3600, how="expired"),
    line(sender="", how="dropped", last=None),
]


def test_a_line_for_each_day_and_customer():
    assert failures_text(LINES, ZONE).splitlines() == [
        f"2023-11-14  {'<>':<30}  1 dropped",
        f"2023-11-14  {'acme.nl':<30}  2 failed",
        f"2023-11-15  {'acme.nl':<30}  1 expired",
    ]
    assert failures_csv(LINES, ZONE) == (
        HEAD + "2023-11-14,<>,0,0,1,0,0,0\r\n2023-11-14,acme.nl,2,0,0,0,0,0\r\n2023-11-15,acme.nl,0,1,0,0,0,0\r\n"
    )


def test_nothing_failed():
    assert failures_text([]) == each_text([]) == "No failures.\n"
    assert failures_csv([]) == HEAD


def test_each_recipient_with_the_last_words():
    (row,) = csv.DictReader(io.StringIO(each_csv([line()], ZONE)))
    assert row == {
        "at": "2023-11-14 23:30:00+01:00",
        "customer": "acme.nl",
        "route": "acme.nl",
        "sender": "Info@ACME.nl",
        "recipient": "jan@x.nl",
        "mail": id_text(7),
        "how": "failed",
        "code": "550",
        "status": "5.1.1",
        "reply": "550-5.1.1 no such / 550 5.1.1 user",
    }
    assert "550-5.1.1 no such / 550 5.1.1 user" in each_text([line()], ZONE)


def test_a_formula_in_an_address_stays_text():
    evil = "=cmd|' /c calc'!A0@x.nl"
    (row,) = csv.DictReader(io.StringIO(each_csv([line(recipient=evil)], ZONE)))
    assert row["recipient"] == f"'{evil}"


TOLD = [
    line(how=how, last=None, told_by="our-sendgrid", words="550 no such\r\n=user")
    for how in ("bounced", "dropped", "complained", "complained")
]


def test_what_providers_told_is_counted_beside_what_we_saw_ourselves():
    assert failures_text([*LINES[:1], *TOLD], ZONE) == (
        f"2023-11-14  {'acme.nl':<30}  1 failed, 1 bounced at the provider, 1 dropped by the provider, "
        "2 reported as spam\n"
    )
    assert failures_csv([line(how="dropped"), *TOLD], ZONE) == HEAD + "2023-11-14,acme.nl,0,0,1,1,1,2\r\n"
    (row, *_) = csv.DictReader(io.StringIO(each_csv(TOLD, ZONE)))
    assert (row["how"], row["reply"], row["code"]) == ("provider_bounced", "550 no such / =user", "")
    assert "reported as spam\n    550 no such / =user\n" in each_text(TOLD, ZONE)
