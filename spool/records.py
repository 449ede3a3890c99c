"""How results are kept: JSON that reads well at a `sqlite3` prompt, and back. Every engine uses the same form.

The reply goes in and comes out verbatim. No engine and no I/O here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from routing.outcome import Hint, Outcome, Results, Stage, Who, Word

_MESSAGE_ID: Final = re.compile(rb"\n(?i:message-id):[ \t]*(?:\r\n[ \t]+)?([^\r\n]+)")
_LONGEST_MESSAGE_ID: Final = 998


def results_text(results: Results) -> str:
    """`[{"to": [address, ...], "word": "sent", "reply": ...}, ...]`: one object per distinct outcome."""
    groups: dict[Outcome, list[str]] = {}
    for address, outcome in results.items():
        groups.setdefault(outcome, []).append(address)
    return json.dumps([{"to": to} | outcome_fields(outcome) for outcome, to in groups.items()])


def read_results(text: str) -> Iterator[tuple[str, Outcome]]:
    """(address, outcome) for everything `results_text` was given."""
    for group in json.loads(text):
        outcome = read_outcome({key: value for key, value in group.items() if key != "to"})
        for address in group["to"]:
            yield address, outcome


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a JSON object, without the fields that say nothing."""
    fields: dict[str, Any] = {"word": outcome.word, "reply": outcome.reply, "stage": outcome.stage}
    for name in ("code", "enhanced", "wait", "upstream_id"):
        if (value := getattr(outcome, name)) is not None:
            fields[name] = value
    if outcome.hint is not None:
        fields["hint"] = {"who": outcome.hint.who, "en": outcome.hint.en, "nl": outcome.hint.nl}
    return fields


def last_outcomes(texts: Iterable[str]) -> dict[str, Outcome]:
    """The newest outcome of each recipient, from `results_text` values oldest first."""
    newest: dict[str, Outcome] = {}
    for text in texts:
        newest.update(read_results(text))
    return newest


def message_id_of(content: bytes) -> str | None:
    """The Message-ID field's value, for the story; None when the header has none."""
    found = _MESSAGE_ID.search(b"\n" + content[: content.find(b"\r\n\r\n") + 2])
    return found[1].strip()[:_LONGEST_MESSAGE_ID].decode("utf-8", "replace") if found else None


def read_outcome(fields: dict[str, Any]) -> Outcome:
    """The outcome behind `outcome_fields`."""
    known = {"word": Word(fields["word"]), "stage": Stage(fields["stage"]), "hint": _hint(fields.get("hint"))}
    return Outcome(**{**fields, **known})


def _hint(value: dict[str, str] | str | None) -> Hint | None:
    """A hint as kept. Older records hold one sentence, in English, for whoever runs the relay."""
    if value is None or isinstance(value, str):
        return Hint(Who.US, value, value) if value else None
    return Hint(Who(value["who"]), value["en"], value["nl"])
