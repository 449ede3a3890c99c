"""How values look on the page: times, states and reasons in the reader's language. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Final

from delivery.holds import HeldWay
from ops.queue_view import age_text, closed_ways, paced_way, probe_at
from ops.status.words import Language, Say, who_text
from routing.outcome import Hint, Outcome
from spool.contract import id_text
from spool.view import MailLine, Story, TimelineEntry

_ANSWERS: Final = 3
_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Said:
    """An outcome for reading: who it is about, the far side's `lines`, and who must do what."""

    who: str
    word: str
    lines: tuple[str, ...]
    mend: str
    mender: str


@dataclass(frozen=True, slots=True)
class MailRow:
    """A mail in a list."""

    id: str
    route: str
    sender: str
    to: str
    age: str
    state: str
    waits: bool
    held: bool
    answers: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Moment:
    """Something on a timeline."""

    at: str
    event: str
    text: tuple[str, ...]
    answers: tuple[Said, ...]


def clock_text(at: float) -> str:
    """`2026-11-24 03:12:09`, as this machine's clock shows it."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def hint_text(hint: Hint | None, language: Language) -> str:
    return "" if hint is None else (hint.nl if language == "nl" else hint.en)


def said(who: str, outcome: Outcome, language: Language, say: Say) -> Said:
    mender = who_text(outcome.hint.who, say) if outcome.hint else ""
    lines = tuple(outcome.reply.splitlines())
    return Said(who, f"{outcome.word} · {outcome.stage}", lines, hint_text(outcome.hint, language), mender)


def mail_row(line: MailLine, now: float, language: Language, say: Say, ways: Sequence[HeldWay] = ()) -> MailRow:
    told = [(one.address, one.last) for one in line.recipients if one.last and _matters(line, one.state)]
    return MailRow(
        id=id_text(line.id),
        route=line.route,
        sender=line.sender or "<>",
        to=names([one.address for one in line.recipients], say, 1),
        age=age_text(now - line.received_at),
        state=state_text(line, now, say, ways),
        waits=line.due_at is not None,
        held=line.hold is not None,
        answers=answers(told, language, say)[:_ANSWERS],
    )


def _matters(line: MailLine, state: str) -> bool:
    return state == "waiting" or line.due_at is None


def state_text(line: MailLine, now: float, say: Say, ways: Sequence[HeldWay] = ()) -> str:
    """What happens with a mail now. `ways` are those that do not work."""
    if line.due_at is None:
        states = [one.state for one in line.recipients]
        return ", ".join(f"{states.count(state)} {say(state)}" for state in dict.fromkeys(states)) or say("done")
    pace = paced_way(line, ways, now)
    if pace is not None:
        until = age_text(pace.next_probe - now)
        return say("waits for its pace by {upstream}, next mail in {time}", upstream=pace.upstream, time=until)
    if line.leased:
        return say("under way now")
    if line.hold is not None:
        reason = f": {line.hold.reason}" if line.hold.reason else ""
        return say("on hold by {who}", who=line.hold.who) + reason
    if line.due_at == inf:
        return say("released just now")
    closed = closed_ways(line, ways)
    if closed and (line.due_at <= now or probe_at(line, ways) is not None):
        upstreams = ", ".join(dict.fromkeys(way.upstream for way in closed))
        probed = age_text(min(way.next_probe for way in closed) - now)
        return say("waits for {upstream}, next try in {time}", upstream=upstreams, time=probed)
    if line.due_at <= now:
        return say("due now")
    return say("next try in {time}, tried {count} times", time=age_text(line.due_at - now), count=line.attempts)


def names(addresses: Sequence[str], say: Say, most: int = _NAMES) -> str:
    """The first few, and how many more."""
    left = len(addresses) - most
    return ", ".join(addresses[:most]) + (f" {say('and {count} more', count=left)}" if left > 0 else "")


def answers(told: Iterable[tuple[str, Outcome]], language: Language, say: Say) -> tuple[Said, ...]:
    """One for all recipients with the same outcome."""
    groups: dict[Outcome, list[str]] = {}
    for address, outcome in told:
        groups.setdefault(outcome, []).append(address)
    return tuple(said(names(addresses, say), outcome, language, say) for outcome, addresses in groups.items())


def timeline(story: Story, language: Language, say: Say) -> list[Moment]:
    return [_moment(entry, language, say) for entry in story.entries]


def _moment(entry: TimelineEntry, language: Language, say: Say) -> Moment:
    took = "" if entry.seconds is None else f", {entry.seconds:.2f} s"
    head = entry.text if entry.upstream is None else f"{entry.upstream}{took}"
    lines = [head, *([entry.recipient, *entry.text.splitlines()] if entry.recipient is not None else [])]
    return Moment(clock_text(entry.at), say(entry.event), tuple(lines), answers(entry.outcomes, language, say))
