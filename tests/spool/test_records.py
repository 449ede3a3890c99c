"""How an outcome is kept, also one that an older relay kept."""

from __future__ import annotations

import json

import pytest

from routing.outcome import Hint, Outcome, Stage, Who, Word
from spool.records import read_results, results_text


@pytest.mark.parametrize("hint", [None, *(Hint(who, "Do this.", "Doe dit.") for who in Who)])
def test_a_hint_is_kept_in_both_languages(hint):
    outcome = Outcome(Word.CONFIG, "535 no", Stage.LOGIN, 535, hint=hint)
    kept = results_text({"a@x.nl": outcome})
    assert dict(read_results(kept)) == {"a@x.nl": outcome}
    assert json.loads(kept)[0].get("hint") == (hint and {"who": hint.who, "en": "Do this.", "nl": "Doe dit."})


def test_a_record_with_one_sentence_is_still_read():
    old = '[{"to": ["a@x.nl"], "word": "config", "reply": "535 no", "stage": "login", "hint": "Do this."}]'
    ((_, outcome),) = read_results(old)
    assert outcome == Outcome(Word.CONFIG, "535 no", Stage.LOGIN, hint=Hint(Who.US, "Do this.", "Do this."))
