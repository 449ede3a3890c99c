"""How `queue list` and `queue show` look: for people at 3 a.m., and as JSON for scripts.

Pure. What an upstream or client said is shown as it was, but can never move the cursor or colour the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, tzinfo
from math import inf
from typing import Any, Final

from delivery.holds import HeldWay
from routing.outcome import Outcome, Word
from spool.contract import id_text
from spool.holding import Hold
from spool.records import outcome_fields
from spool.view import MailLine, RecipientLine, Story, TimelineEntry

_REASONS_SHOWN: Final = 3
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def list_text(lines: Sequence[MailLine], now: float, ways: Sequence[HeldWay] = (), limit: int | None = None) -> str:
    """Two lines a mail: what it is, and why it waits or how it ended. `ways` are those that delivery holds; of as many
    mails as `limit` there may be more.
    """
    if not lines:
        return "No mail.\n"
    blocks = [f"{_headline(line, now)}\n    {state_text(line, now, ways)}{_reasons(line)}\n" for line in lines]
    more = "; there may be more, see --limit" if len(lines) == limit else ""
    return "".join(blocks) + f"{len(lines)} {'mail' if len(lines) == 1 else 'mails'}{more}\n"


def story_text(story: Story, now: float, zone: tzinfo | None = None, ways: Sequence[HeldWay] = ()) -> str:
    """A mail's timeline, oldest first. `zone` is the local one when left out; `ways` as in `list_text`."""
    mail = story.mail
    head = (
        ("route", mail.route),
        ("from", _sender(mail)),
        ("Message-ID", story.message_id or "none"),
        ("received", f"{_moment(mail.received_at, zone)} ({age_text(now - mail.received_at)} ago)"),
        ("state", state_text(mail, now, ways)),
    )
    out = [f"Mail {id_text(mail.id)}, {size_text(mail.size)}"]
    out += [f"  {name:<11} {plain(value)}" for name, value in head]
    out += ["", "Recipients", *(f"  {_recipient(line)}" for line in mail.recipients), "", "Timeline"]
    for entry in story.entries:
        out += _entry(entry, zone)
    return "\n".join(out) + "\n"


def list_json(lines: Sequence[MailLine], ways: Sequence[HeldWay] = ()) -> str:
    """An array of mails; times are ISO 8601 in UTC, sizes octets. `ways` as in `list_text`."""
    return json.dumps([_mail_fields(line, ways) for line in lines], indent=2) + "\n"


def story_json(story: Story, ways: Sequence[HeldWay] = ()) -> str:
    """A mail as in `list_json`, with `timeline`."""
    head = {"message_id": story.message_id, "peer": story.peer, "helo": story.helo}
    timeline = [_entry_fields(entry) for entry in story.entries]
    return json.dumps({**_mail_fields(story.mail, ways), **head, "timeline": timeline}, indent=2) + "\n"


def probe_at(mail: MailLine, ways: Iterable[HeldWay]) -> float | None:
    """When the way that a mail waits for is probed next (unix seconds): its own due time is only the last resort. None
    when it does not wait for a way on hold.
    """
    refused = any(line.state == "waiting" and line.last and line.last.word is Word.CONFIG for line in mail.recipients)
    if mail.due_at is None or mail.hold is not None or not refused:
        return None
    return min((way.next_probe for way in ways if way.route == mail.route and way.on_hold), default=None)


def closed_ways(mail: MailLine, ways: Iterable[HeldWay]) -> list[HeldWay]:
    """The ways on hold that keep a waiting mail here, or from its first choice."""
    waits = mail.due_at is not None and mail.hold is None and not mail.leased
    return [way for way in ways if way.route == mail.route and not way.paced] if waits else []


def paced_way(mail: MailLine, ways: Iterable[HeldWay], now: float) -> HeldWay | None:
    """The way whose pace a mail waits for that would leave now otherwise."""
    if mail.due_at is None or mail.hold is not None or (mail.due_at > now and not mail.leased):
        return None
    its_own = (way for way in ways if way.paced and way.route == mail.route)
    return next((way for way in its_own if not mail.leased or mail.id in way.at_hand), None)


def state_text(mail: MailLine, now: float, ways: Sequence[HeldWay] = ()) -> str:
    """What happens with the mail now, in words."""
    tries = f"{mail.attempts} {'try' if mail.attempts == 1 else 'tries'} so far"
    if mail.due_at is None:
        states = [line.state for line in mail.recipients]
        return "settled: " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    pace = paced_way(mail, ways, now)
    if pace is not None:
        return plain(f"waits, as {pace.reply}; next mail in {age_text(pace.next_probe - now)}, {tries}")
    if mail.leased:
        return f"under way now, {tries}"
    if mail.hold is not None:
        reason = f": {mail.hold.reason}" if mail.hold.reason else ""
        held = f"on hold for {age_text(now - mail.hold.since)} by {mail.hold.who}{reason}"
        return plain(f"{held} ({mail.hold.scope} {mail.hold.subject}), {tries}")
    if mail.due_at == inf:
        return f"released just now, {tries}"
    probed = probe_at(mail, ways)
    if probed is not None and now < mail.due_at:
        return f"waits for its way, which is probed in {age_text(probed - now)}, {tries}"
    if mail.due_at <= now:
        closed = closed_ways(mail, ways)
        if closed:
            names = plain(" and ".join(dict.fromkeys(way.upstream for way in closed)))
            after = age_text(min(way.next_probe for way in closed) - now)
            return f"waits, as {names} does not work; next probe in {after}, {tries}"
        return f"due for {age_text(now - mail.due_at)}, {tries}"
    return f"next try in {age_text(mail.due_at - now)}, {tries}"


def age_text(seconds: float) -> str:
    """A length of time in its two largest units: `45s`, `3m`, `2h 5m`, `3d 4h`."""
    left = max(seconds, 0.0)
    parts: list[str] = []
    for length, unit in _UNITS:
        count, left = divmod(left, length)
        if count and not (unit == "s" and parts):
            parts.append(f"{int(count)}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def size_text(octets: int) -> str:
    """`812 B`, `5.2 KB`, `8.0 MB` (powers of 1024)."""
    if octets < 1024:
        return f"{octets} B"
    return f"{octets / 1024:.1f} KB" if octets < 1 << 20 else f"{octets / (1 << 20):.1f} MB"


def plain(text: str) -> str:
    """`text` with nothing in it that a terminal would obey; letters of any language stay."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _headline(mail: MailLine, now: float) -> str:
    first = mail.recipients[0].address if mail.recipients else "nobody"
    more = f" and {len(mail.recipients) - 1} more" if len(mail.recipients) > 1 else ""
    age = f"{age_text(now - mail.received_at)} ago"
    route, envelope = plain(mail.route), f"{plain(_sender(mail))} -> {plain(first)}{more}"
    return f"{id_text(mail.id)}  {age:<10} {size_text(mail.size):>8}  {envelope}  [{route}]"


def _reasons(mail: MailLine) -> str:
    """The newest outcome of those who still wait (of all, when settled): each distinct one once."""
    told = [line for line in mail.recipients if line.last and (mail.due_at is None or line.state == "waiting")]
    groups: dict[Outcome, list[str]] = {}
    for line in told:
        if line.last is not None:
            groups.setdefault(line.last, []).append(line.address)
    shown = list(groups.items())[:_REASONS_SHOWN]
    left = len(groups) - len(shown)
    reasons = [f"\n    {_who(addresses)}: {_said(outcome)}" for outcome, addresses in shown]
    return "".join(reasons) + (f"\n    and {left} other answers" if left else "")


def _recipient(line: RecipientLine) -> str:
    last = f"  {_said(line.last)}" if line.last else ""
    return f"{line.state:<9}  {plain(line.address)}{last}"


def _entry(entry: TimelineEntry, zone: tzinfo | None) -> Iterator[str]:
    took = "" if entry.seconds is None else f", {entry.seconds:.1f} s"
    what = plain(entry.text) if entry.upstream is None else f"{plain(entry.upstream)}{took}"
    yield f"  {_moment(entry.at, zone)}  {entry.event:<8}  {what}"
    if entry.recipient is not None:
        yield f"      {plain(entry.recipient)}"
        yield from (f"        {plain(line)}" for line in entry.text.splitlines())
    groups: dict[Outcome, list[str]] = {}
    for address, outcome in entry.outcomes:
        groups.setdefault(outcome, []).append(address)
    for outcome, addresses in groups.items():
        yield f"      {_who(addresses)}: {outcome.word} at {outcome.stage}"
        yield from (f"        {plain(line)}" for line in outcome.reply.splitlines())
        if outcome.hint:
            yield f"        -> {plain(str(outcome.hint))}"


def _said(outcome: Outcome) -> str:
    hint = f" -> {plain(str(outcome.hint))}" if outcome.hint else ""
    return f"{outcome.word} at {outcome.stage}: {plain(' / '.join(outcome.reply.splitlines()))}{hint}"


def _who(addresses: Sequence[str]) -> str:
    return plain(addresses[0]) + (f" and {len(addresses) - 1} more" if len(addresses) > 1 else "")


def _sender(mail: MailLine) -> str:
    return mail.sender or "<>"


def _moment(at: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone(zone).isoformat(" ", "seconds")


def _mail_fields(mail: MailLine, ways: Sequence[HeldWay]) -> dict[str, Any]:
    probed = probe_at(mail, ways)
    return {
        "id": id_text(mail.id),
        "route": mail.route,
        "sender": mail.sender,
        "received_at": _utc(mail.received_at),
        "due_at": None if mail.due_at in (None, inf) or mail.hold else _utc(mail.due_at),
        "probe_at": None if probed is None else _utc(probed),
        "leased": mail.leased,
        "hold": _hold_fields(mail.hold) if mail.hold else None,
        "attempts": mail.attempts,
        "size": mail.size,
        "recipients": [
            {"address": line.address, "state": line.state, "last": outcome_fields(line.last) if line.last else None}
            for line in mail.recipients
        ],
    }


def _hold_fields(hold: Hold) -> dict[str, Any]:
    return {**asdict(hold), "since": _utc(hold.since)}


def _entry_fields(entry: TimelineEntry) -> dict[str, Any]:
    return {
        "at": _utc(entry.at),
        "event": entry.event,
        "text": entry.text,
        "upstream": entry.upstream,
        "seconds": entry.seconds,
        "recipient": entry.recipient,
        "outcomes": list(_outcomes(entry.outcomes)),
    }


def _outcomes(outcomes: Iterable[tuple[str, Outcome]]) -> Iterator[dict[str, Any]]:
    for address, outcome in outcomes:
        yield {"recipient": address, **outcome_fields(outcome)}


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
