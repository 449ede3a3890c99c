"""What a hint must be to help: who must do what, in plain Dutch and English."""

from __future__ import annotations

import re

from routing.outcome import Hint, Outcome, Who, Word

MEND = (Who.CUSTOMER, Who.US, Who.CALLPRO)
"""Who can put a route right."""

DUTCH = re.compile(r"\b(de|het|een|wij|ons|niet|dit|dat|op|van|voor|zet|of|naar)\b", re.IGNORECASE)
ENGLISH = re.compile(r"\b(the|a|we|our|not|this|that|at|of|for|set|or|must|to|from)\b", re.IGNORECASE)
NOT_DUTCH = re.compile(r"\b(the|must|administrator|whoever|their|customer|which|address)\b", re.IGNORECASE)


def assert_helpful(outcome: Outcome) -> None:
    """Every outcome of the word config has a hint for somebody who can act, and every hint is in both languages."""
    if outcome.word is Word.CONFIG:
        assert outcome.hint is not None, outcome
        assert outcome.hint.who in MEND, outcome
    if outcome.hint is not None:
        assert_bilingual(outcome.hint)


def assert_bilingual(hint: Hint) -> None:
    for text, language in ((hint.en, ENGLISH), (hint.nl, DUTCH)):
        assert language.search(text), text
        assert text[-1] in ".?)", text
        assert text.isprintable(), text
    assert not NOT_DUTCH.search(hint.nl), hint.nl
    assert re.findall(r"`[^`]+`", hint.en) == re.findall(r"`[^`]+`", hint.nl), "both name the same settings"
