"""What `queue list` and `queue show` say, word for word."""

from __future__ import annotations

import json
from datetime import timedelta, timezone

import pytest

from delivery.holds import HeldWay
from ops.queue_view import age_text, list_json, list_text, size_text, story_json, story_text
from routing.outcome import Hint, Outcome, Stage, Who, Word
from spool.contract import id_number, id_text
from spool.view import MailLine, RecipientLine, Story, TimelineEntry

NOW = 1_700_000_000.0
NUMBER = id_number("1K9ZQ2M4P1ABC")
BUSY = Outcome(Word.RETRY, "451-4.7.1 Even geduld\r\n451 4.7.1 één ogenblik", Stage.RECIPIENT, 451, "4.7.1")
SENT = Outcome(Word.SENT, "250 2.0.0 Ok", Stage.CONTENT, 250)
ADMIN = Hint(Who.CUSTOMER, "The customer's admin sets the password again.", "De beheerder zet het wachtwoord opnieuw.")
LOGIN = Outcome(Word.CONFIG, "535 5.7.8 no", Stage.LOGIN, 535, hint=ADMIN)


def line(**changes: object) -> MailLine:
    fields = {
        "id": NUMBER,
        "route": "acme.nl",
        "sender": "info@acme.nl",
        "recipients": (RecipientLine("jan@x.nl", "waiting", BUSY),),
        "received_at": NOW - 725,
        "due_at": NOW + 240,
        "attempts": 3,
        "size": 5321,
        "leased": False,
    }
    return MailLine(**{**fields, **changes})


def test_a_list_says_what_waits_and_why():
    assert list_text([line()], NOW) == (
        "1K9ZQ2M4P1ABC  12m ago      5.2 KB  info@acme.nl -> jan@x.nl  [acme.nl]\n"
        "    next try in 4m, 3 tries so far\n"
        "    jan@x.nl: retry at recipient: 451-4.7.1 Even geduld / 451 4.7.1 één ogenblik\n"
        "1 mail\n"
    )


def test_a_list_that_is_cut_says_so():
    assert list_text([line()] * 3, NOW, limit=3).endswith("\n3 mails; there may be more, see --limit\n")
    assert list_text([line()] * 2, NOW, limit=3).endswith("\n2 mails\n")


def test_an_empty_list_says_so():
    assert list_text([], NOW) == "No mail.\n"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"leased": True}, "under way now, 3 tries so far"),
        ({"due_at": NOW - 61, "attempts": 1}, "due for 1m, 1 try so far"),
        ({"due_at": NOW}, "due for 0s"),
        ({"due_at": None, "recipients": (RecipientLine("a@x.nl", "delivered", SENT),)}, "settled: 1 delivered"),
        ({"sender": ""}, "<> -> jan@x.nl"),
        ({"recipients": (RecipientLine("jan@x.nl", "waiting", LOGIN),)}, "535 5.7.8 no -> The customer's admin sets"),
    ],
)
def test_a_list_says_how_it_stands(changes, said):
    assert said in list_text([line(**changes)], NOW)


def test_many_recipients_with_one_answer_are_one_line():
    many = tuple(RecipientLine(f"r{number}@x.nl", "waiting", BUSY) for number in range(500))
    text = list_text([line(recipients=(RecipientLine("done@x.nl", "delivered", SENT), *many))], NOW)
    assert "done@x.nl and 500 more" in text
    assert "r0@x.nl and 499 more: retry" in text
    assert "250 2.0.0" not in text
    assert len(text.splitlines()) == 4


def test_many_different_answers_are_cut():
    many = [
        RecipientLine(f"r{number}@x.nl", "waiting", Outcome(Word.RETRY, f"451 {number}", Stage.CONTENT))
        for number in range(9)
    ]
    assert "and 6 other answers" in list_text([line(recipients=tuple(many))], NOW)


def test_nothing_that_was_said_to_us_reaches_the_terminal_as_a_command():
    evil = Outcome(Word.RETRY, "451 \x1b[2J\x07\udce9", Stage.CONTENT, hint=Hint(Who.US, "\x1b[31m", "\x1b[31m"))
    mail = line(recipients=(RecipientLine("a\x1b[2Jb@x.nl", "waiting", evil),), route="\x1b", sender="\r\n@x.nl")
    story = Story(mail, "<\x1b>", "p", "\x1b", (TimelineEntry(NOW, "note", "\x1b\r"), entry(evil)))
    for text in (list_text([mail], NOW), story_text(story, NOW), list_json([mail]), story_json(story)):
        assert not {character for character in text if not character.isprintable()} - {"\n"}
        text.encode()


def entry(outcome: Outcome) -> TimelineEntry:
    return TimelineEntry(NOW - 700, "attempt", "", "acme-login", 0.25, (("jan@x.nl", outcome), ("piet@x.nl", SENT)))


def test_a_story_is_told_oldest_first_with_every_reply_verbatim():
    mail = line(recipients=(RecipientLine("jan@x.nl", "waiting", BUSY), RecipientLine("piet@x.nl", "delivered", SENT)))
    entries = (
        TimelineEntry(NOW - 725, "received", "from 127.0.0.1 (callpro), 5321 octets"),
        TimelineEntry(NOW - 725, "repaired", "date"),
        entry(BUSY),
        TimelineEntry(NOW - 10, "note", "The route is on hold."),
    )
    story = Story(mail, "<1@acme.nl>", "127.0.0.1", "callpro", entries)
    assert story_text(story, NOW, timezone(timedelta(hours=1))) == (
        "Mail 1K9ZQ2M4P1ABC, 5.2 KB\n"
        "  route       acme.nl\n"
        "  from        info@acme.nl\n"
        "  Message-ID  <1@acme.nl>\n"
        "  received    2023-11-14 23:01:15+01:00 (12m ago)\n"
        "  state       next try in 4m, 3 tries so far\n"
        "\n"
        "Recipients\n"
        "  waiting    jan@x.nl  retry at recipient: 451-4.7.1 Even geduld / 451 4.7.1 één ogenblik\n"
        "  delivered  piet@x.nl  sent at content: 250 2.0.0 Ok\n"
        "\n"
        "Timeline\n"
        "  2023-11-14 23:01:15+01:00  received  from 127.0.0.1 (callpro), 5321 octets\n"
        "  2023-11-14 23:01:15+01:00  repaired  date\n"
        "  2023-11-14 23:01:40+01:00  attempt   acme-login, 0.2 s\n"
        "      jan@x.nl: retry at recipient\n"
        "        451-4.7.1 Even geduld\n"
        "        451 4.7.1 één ogenblik\n"
        "      piet@x.nl: sent at content\n"
        "        250 2.0.0 Ok\n"
        "  2023-11-14 23:13:10+01:00  note      The route is on hold.\n"
    )


def test_what_the_provider_told_stands_with_its_recipient_and_words():
    told = TimelineEntry(NOW, "bounced", "550 5.1.1 één\r\n550 no", "our-sendgrid", recipient="jan@x.nl")
    evil = TimelineEntry(NOW, "complained", "\x1b[2J", "our-sendgrid", recipient="\x1b[2J@x.nl")
    story = Story(line(), "<1@acme.nl>", "127.0.0.1", "callpro", (told, evil))
    text = story_text(story, NOW, timezone(timedelta(hours=1)))
    assert (
        "  2023-11-14 23:13:20+01:00  bounced   our-sendgrid\n"
        "      jan@x.nl\n"
        "        550 5.1.1 één\n"
        "        550 no\n"
        "  2023-11-14 23:13:20+01:00  complained  our-sendgrid\n"
    ) in text
    assert "\x1b" not in text
    assert json.loads(story_json(story))["timeline"][0]["recipient"] == "jan@x.nl"


def test_json_has_everything_for_a_script():
    story = Story(line(), "<1@acme.nl>", "127.0.0.1", "callpro", (entry(LOGIN),))
    told = json.loads(story_json(story))
    assert told["id"] == id_text(NUMBER)
    assert told["received_at"] == "2023-11-14T22:01:15.000+00:00"
    assert told["recipients"][0]["last"]["reply"] == BUSY.reply
    assert told["timeline"][0]["outcomes"][0] == {
        "recipient": "jan@x.nl",
        "word": "config",
        "reply": "535 5.7.8 no",
        "stage": "login",
        "code": 535,
        "hint": {"who": "customer", "en": ADMIN.en, "nl": ADMIN.nl},
    }
    assert json.loads(list_json([line(due_at=None)]))[0]["due_at"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0.4, "0s"),
        (45, "45s"),
        (60, "1m"),
        (185, "3m"),
        (3600, "1h"),
        (7530, "2h 5m"),
        (3600 * 76, "3d 4h"),
    ],
)
def test_ages(seconds, text):
    assert age_text(seconds) == text


@pytest.mark.parametrize(("octets", "text"), [(812, "812 B"), (5321, "5.2 KB"), (8 << 20, "8.0 MB")])
def test_sizes(octets, text):
    assert size_text(octets) == text


def test_mail_of_a_way_on_hold_waits_for_the_probe_and_not_for_its_own_time():
    ways = [HeldWay("acme.nl", "up", NOW - 60, "535 no", None, NOW + 180), HeldWay("x.nl", "up", NOW, "", None, NOW)]
    held = line(recipients=(RecipientLine("jan@x.nl", "waiting", LOGIN),), due_at=NOW + 3540, attempts=1)
    told = "waits for its way, which is probed in 3m, 1 try so far"
    assert told in list_text([held], NOW, ways)
    assert told in story_text(Story(held, None, "", "", ()), NOW, ways=ways)
    (shown,) = json.loads(list_json([held], ways))
    assert (shown["probe_at"], shown["due_at"]) == ("2023-11-14T22:16:20.000+00:00", "2023-11-14T23:12:20.000+00:00")
    assert "next try in 4m" in list_text([line()], NOW, ways), "this one waits for itself"
    assert "next try in 59m" in list_text([held], NOW), "and without a relay that is all we know"
