"""What is said of a mail in rows, as the intake log carries it and as the database keeps it. Pure.

A record is made once, by the writer's thread. Whatever the database would refuse must be refused here.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from spool.contract import Arrival, Settlement
from spool.records import message_id_of, results_text

_HEAD: Final = struct.Struct("<cIQ")
_FINITE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_ANY: Final = json.JSONEncoder(ensure_ascii=False)
_MAIL: Final = b"m"
_SETTLEMENT: Final = b"s"

MailRow = tuple[int, str, str, float, int, str, str, str | None, str]
EventRow = tuple[float, str, str | None, float | None, str | None]


@dataclass(frozen=True, slots=True)
class MailRecord:
    """A new mail. `row` is (id, route, sender, received at, octets, peer, helo, Message-ID, repairs); every recipient
    is named once.
    """

    row: MailRow
    recipients: tuple[str, ...]

    @property
    def id(self) -> int:
        return self.row[0]

    @property
    def size(self) -> int:
        return self.row[4]


@dataclass(frozen=True, slots=True)
class SettlementRecord:
    """What became of a leased mail, told `at`. `events` are (at, text, upstream, seconds, results)."""

    id: int
    at: float
    done: dict[str, str]
    doubted: tuple[str, ...]
    due_at: float | None
    route: str | None
    counted: bool
    warned: bool
    events: tuple[EventRow, ...]

    @property
    def final(self) -> bool:
        return self.due_at is None


@dataclass(frozen=True, slots=True)
class Piece:
    """One record read back; of a mail also where its content begins, counted from the start of the payload."""

    record: MailRecord | SettlementRecord
    place: int


def mail_record(a: Arrival) -> MailRecord:
    """Raises nothing: what cannot be kept shows in `mail_octets`, or at the database."""
    repairs, message_id = "\n".join(a.repairs), message_id_of(a.content)
    row = a.id, a.route, a.sender, a.received_at, len(a.content), a.peer, _readable(a.helo), message_id, repairs
    return MailRecord(row, tuple(dict.fromkeys(a.recipients)))


def settlement_record(settlement: Settlement, now: float) -> SettlementRecord:
    """The rows of a settlement that is written down at `now`."""
    return SettlementRecord(
        settlement.mail.id,
        now,
        {address: str(state) for address, state in settlement.done.items()},
        tuple(settlement.doubted),
        settlement.due_at,
        settlement.route,
        settlement.counted,
        settlement.warned,
        tuple(_events(settlement, now)),
    )


def mail_octets(record: MailRecord) -> bytes:
    """What stands in the log before the content. Raises ValueError or TypeError for what cannot be kept."""
    text = _FINITE.encode((record.row, record.recipients)).encode()
    return _HEAD.pack(_MAIL, len(text), record.size) + text


def settlement_octets(record: SettlementRecord) -> bytes:
    """A whole settlement for the log. Raises ValueError or TypeError for what cannot be kept."""
    r = record
    fields = (r.id, r.at, r.done, r.doubted, r.due_at, r.route, r.counted, r.warned, r.events)
    text = _ANY.encode(fields).encode()
    return _HEAD.pack(_SETTLEMENT, len(text), 0) + text


def pieces(payload: bytes) -> Iterator[Piece]:
    """The records of one batch. Raises ValueError or struct.error for what `*_octets` did not make."""
    at = 0
    while at < len(payload):
        kind, length, content = _HEAD.unpack_from(payload, at)
        at += _HEAD.size
        fields = json.loads(payload[at : at + length])
        at += length
        yield Piece(_mail(fields) if kind == _MAIL else _settlement(fields), at)
        at += content


def _mail(fields: list[Any]) -> MailRecord:
    row, recipients = fields
    return MailRecord(tuple(row), tuple(recipients))


def _settlement(fields: list[Any]) -> SettlementRecord:
    number, at, done, doubted, due_at, route, counted, warned, events = fields
    rows = tuple(tuple(event) for event in events)
    return SettlementRecord(number, at, done, tuple(doubted), due_at, route, counted, warned, rows)


def _events(settlement: Settlement, now: float) -> Iterator[EventRow]:
    for attempt in settlement.attempts:
        yield attempt.started_at, "", attempt.upstream, attempt.seconds, results_text(attempt.results)
    if settlement.note is not None:
        yield now, _readable(settlement.note), None, None, None


def _readable(text: str) -> str:
    """What a client or server said may hold any octet; this is kept for people only."""
    return text.encode("utf-8", "backslashreplace").decode()
