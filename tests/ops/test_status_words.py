"""The page speaks English and Dutch, all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops import nodes
from ops.status import desk, looks, words
from ops.status.words import DUTCH, language_of, say_in, who_text
from routing.outcome import Who
from routing.provider_events import Told
from spool.contract import Settled

TEMPLATES = Path(words.__file__).parent / "templates"


def sentences() -> set[str]:
    """Everything that a template, or the code beside it, says by name."""
    found: set[str] = set()
    for path in TEMPLATES.glob("*.html"):
        found |= set(re.findall(r"""\bt\("((?:[^"\\]|\\.)*)"[,)]""", path.read_text("utf-8")))
    for module in (looks, desk):
        found |= set(re.findall(r"""\bsay\("((?:[^"\\]|\\.)*)"[,)]""", Path(module.__file__).read_text("utf-8")))
    return found


def test_everything_that_is_said_has_its_dutch():
    assert len(sentences()) > 60
    assert sentences() - DUTCH.keys() == set()
    composed = {f"{scope} {{subject}}" for scope in ("mail", "route", "sender")}
    composed |= {f"last {period}" for period in ("hour", "day", "month")}
    composed |= {"added", "removed", "changed"}
    composed |= {"Overview", "Volumes", "Mail", "Rules", "Calendar", "Orders", "hold", "release", "retry", "drop"}
    composed |= {*nodes.SENTENCES, "Relays"}
    composed |= {str(word) for word in (*Settled, *Told)} | {"waiting", "received", "repaired", "attempt", "note"}
    assert composed - DUTCH.keys() == set()


def test_both_say_the_same_values():
    for english, dutch in DUTCH.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", dutch)), english


def test_a_sentence_without_its_dutch_is_a_bug_and_no_guess():
    with pytest.raises(KeyError):
        say_in("nl")("never written")


def test_everybody_who_can_mend_has_a_name():
    for who in Who:
        assert who_text(who, say_in("en"))
        assert who_text(who, say_in("nl"))


@pytest.mark.parametrize(
    ("accepted", "chosen", "language"),
    [
        ("", "", "en"),
        ("nl", "", "nl"),
        ("nl-BE,nl;q=0.9,en;q=0.8", "", "nl"),
        ("en-GB,en;q=0.9,nl;q=0.8", "", "en"),
        ("de,nl;q=0.3", "", "nl"),
        ("en;q=0.1, NL;q=0.2", "", "nl"),
        ("fr", "", "en"),
        ("nl;q=x,en", "", "en"),
        ("nl;q=0", "", "en"),
        ("*", "", "en"),
        ("en", "nl", "nl"),
        ("nl", "en", "en"),
        ("nl", "xx", "nl"),
        ("," * 10_000, "", "en"),
    ],
)
def test_the_language_is_chosen_or_accepted(accepted, chosen, language):
    assert language_of(accepted, chosen) == language
