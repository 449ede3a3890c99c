"""Which events of the log are told to people, when, and in which words. Decides only; alert_sending.py sends.

Must never tell the same trouble again and again, nor more than so many an hour.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from config.relay_settings import Alerts

_HOUR: Final = 3600.0
_BRIEF: Final = 300.0
"""Seconds that an upstream may be unreachable before anybody is told: a restart of theirs is no news."""


@dataclass(frozen=True, slots=True)
class Sort:
    """An event that is told: `words` is the sentence, `about` the fields that make it the same trouble as before,
    `ends` the event that says it is over. `patience` is in seconds; so is `together`: what relays on one spool find out
    within that time of one another is told by one of them. Without it the trouble is each relay's own.
    """

    words: str
    about: tuple[str, ...]
    ends: str | None = None
    patience: float = 0.0
    together: float = 0.0


_SOON: Final = 900.0
_DAY: Final = 86400.0
SELF_TEST: Final = "selftest.invalid"
"""How `doctor` says HELO when it tries whether a stranger gets in: that it is refused is no news."""
_NO_ROUTE: Final = 550
"""The code of a refusal that new rules mend, and not another mail."""
SORTS: Final[Mapping[str, Sort]] = MappingProxyType(
    {
        "held": Sort(
            "Route {route} is on hold, {upstream} does not work: {reply}",
            ("route", "upstream"),
            "released",
            together=_SOON,
        ),
        "unreachable": Sort("Nobody answers at {upstream}: {reply}", ("upstream",), "reached", _BRIEF, _SOON),
        "quota_near": Sort(
            "{account} has sent {recipients} of {per_day} recipients a day", ("account",), together=_SOON
        ),
        "expiry_near": Sort("{what} of {where} ends in {days} days", ("what", "where", "days")),
        "reload_refused": Sort("New rules were refused: {why}", (), "reloaded"),
        "refused": Sort("Mail is refused for good: {reply}", (), "reloaded", together=_SOON),
        "worker_died": Sort("Worker {worker} died and is started again: {why}", ("worker",)),
        "spool.trouble": Sort("The spool cannot write: {error}", (), "spool.recovered"),
        "spool.buffering": Sort(
            "The database takes no mail, so it is kept on this machine and not sent: {why}", (), "spool.buffer_drained"
        ),
        "spool.damaged": Sort("The spool takes no new mail: {error}", ()),
        "spool.intake_log_failed": Sort("The disk of the spool has errors: {error}", ()),
        "spool.mail_unreadable": Sort("Mail {mail} cannot be read back: {error}", ("mail",)),
        "doctor_problem": Sort(
            "{route}: {check} {where}: {what}", ("route", "check", "where"), "doctor_mended", together=_DAY
        ),
    }
)


ONCE: Final = ("spool.trouble",)
"""What all workers of a relay find out at the same moment: the first tells it for all."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What is told: `text` is one sentence, `fields` those of the event; `left_out` alerts before it were too many."""

    event: str
    text: str
    fields: Mapping[str, Any]
    at: float
    left_out: int = 0


def shared_mark(alert: Alert) -> tuple[str, float] | None:
    """What makes it the same trouble as another relay's on the same spool, and for how many seconds; None: it is not.
    What the doctor found must be the same to the word: each machine looks from its own address.
    """
    sort = SORTS[alert.event]
    if not sort.together:
        return None
    words = str(alert.fields.get("what")) if alert.event == "doctor_problem" else ""
    return " | ".join(("alert", *_key(alert.event, sort, alert.fields), words)), sort.together


class Desk:
    """Decides what is told. Times are unix seconds, handed in; one in the future, for the clock was set back, is over.
    Pure.
    """

    def __init__(self, settings: Alerts) -> None:
        self._repeat = settings.repeat
        self._per_hour = settings.per_hour
        self._told: dict[tuple[str, ...], float] = {}
        self._brief: dict[tuple[str, ...], tuple[float, Alert]] = {}
        self._sent: deque[float] = deque()
        self._left_out = 0

    def hear(self, event: str, fields: Mapping[str, Any], now: float) -> Alert | None:
        """An event of the log; what is to be told now because of it."""
        for name, other in SORTS.items():
            if other.ends == event:
                self._told.pop(_key(name, other, fields), None)
                self._brief.pop(_key(name, other, fields), None)
        sort = SORTS.get(event)
        if sort is None:
            return None
        key, alert = _key(event, sort, fields), Alert(event, _words(sort, fields), dict(fields), now)
        if sort.patience:
            self._brief.setdefault(key, (now + sort.patience, alert))
            return None
        return self._allow(key, alert, now)

    def due(self, now: float) -> list[Alert]:
        """Troubles that have lasted long enough."""
        ready = [key for key, (at, alert) in self._brief.items() if not alert.at <= now < at]
        allowed = [self._allow(key, self._brief.pop(key)[1], now) for key in ready]
        return [alert for alert in allowed if alert is not None]

    def _allow(self, key: tuple[str, ...], alert: Alert, now: float) -> Alert | None:
        self._told = {known: at for known, at in self._told.items() if 0 <= now - at < self._repeat}
        if key in self._told:
            return None
        while self._sent and not 0 <= now - self._sent[0] < _HOUR:
            self._sent.popleft()
        self._told[key] = now
        if len(self._sent) >= self._per_hour:
            self._left_out += 1
            return None
        self._sent.append(now)
        left_out, self._left_out = self._left_out, 0
        return Alert(alert.event, alert.text, alert.fields, now, left_out)


class Ear(logging.Handler):
    """Hears the log and hands on what `SORTS` knows, whatever thread it comes from."""

    def __init__(self, hand_on: Callable[[str, Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._hand_on = hand_on
        self._names = {*SORTS, *[sort.ends for sort in SORTS.values() if sort.ends]}

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", None)
        if fields is None or record.msg not in self._names:
            return
        if record.msg == "held" and record.levelno < logging.ERROR:
            return  # it is not over yet, and was told the first time
        if record.msg == "refused" and (fields.get("code") != _NO_ROUTE or fields.get("helo") == SELF_TEST):
            return
        self._hand_on(str(record.msg), fields)


def _key(event: str, sort: Sort, fields: Mapping[str, Any]) -> tuple[str, ...]:
    return event, *[str(fields.get(name)) for name in sort.about]


class _Known(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "?"


def _words(sort: Sort, fields: Mapping[str, Any]) -> str:
    told = sort.words.format_map(_Known({name: _one_line(value) for name, value in fields.items()}))
    return f"{told} -> {_one_line(fields['hint'])}" if fields.get("hint") else told


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
