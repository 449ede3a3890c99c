"""What the log says of deliveries: one line per result of an attempt. No content, no secret."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final as Constant

from delivery.attempt import Errand
from delivery.verdict import Final, Verdict
from delivery.ways import Way
from routing.events import emit
from routing.mail import NULL_SENDER
from routing.outcome import Outcome, Word
from spool.contract import Arrival, Leased, Settled, id_text

_log = logging.getLogger("delivery")

_EVENTS: Constant = {
    Settled.DELIVERED: ("delivered", logging.INFO),
    Settled.FAILED: ("failed", logging.WARNING),
    Settled.EXPIRED: ("expired", logging.WARNING),
    None: ("deferred", logging.INFO),
}


def tell(errand: Errand, finals: Mapping[str, Final], verdict: Verdict, now: float) -> None:
    """One line for all recipients of a mail that came to the same. Held recipients have the line of the hold."""
    if len(finals) == 1:
        ((address, final),) = finals.items()
        _tell_one(errand, final, verdict.done.get(address), [address], verdict.due_at, now)
        return
    groups: dict[tuple[Settled | None, Final], list[str]] = {}
    for address, final in finals.items():
        groups.setdefault((verdict.done.get(address), final), []).append(address)
    for (ended, final), addresses in groups.items():
        _tell_one(errand, final, ended, addresses, verdict.due_at, now)


def _tell_one(
    errand: Errand, final: Final, ended: Settled | None, addresses: list[str], due_at: float | None, now: float
) -> None:
    outcome = final.outcome
    if final.held or (ended is None and outcome is errand.untried and errand.mail.attempts):
        return  # the hold has its line; and that nobody answers was told, once for the upstream and once for the mail
    emit(
        _log,
        _EVENTS[ended][0],
        _level(ended, outcome, errand.mail.sender),
        mail=errand.id,
        route=errand.route.name,
        upstream=final.upstream,
        redirected_to=errand.route.settings.redirect,
        sender=errand.mail.sender or "<>",
        recipients=addresses,
        reply=outcome.reply,
        code=outcome.code,
        upstream_id=outcome.upstream_id,
        **_hint(outcome),
        attempts=errand.mail.attempts + 1,
        seconds=sum([attempt.seconds for attempt in errand.attempts]),
        next=None if ended or due_at is None else max(0.0, due_at - now),
    )


def _hint(outcome: Outcome) -> dict[str, str]:
    return {} if outcome.hint is None else {"hint": str(outcome.hint), "who": outcome.hint.who}


def _level(ended: Settled | None, outcome: Outcome, sender: str) -> int:
    if ended is None:
        return logging.WARNING if outcome.word is Word.CONFIG else logging.INFO
    if ended is not Settled.DELIVERED and sender == NULL_SENDER:
        return logging.ERROR  # nobody else hears of it: there is no report on a report
    return _EVENTS[ended][1]


def tell_held(way: Way, mail: Leased, next_probe: float) -> None:
    """A way closed. The first time is for ops to act on; the next ones only say that it is not over."""
    if way.held is None:
        return
    outcome = way.held.outcome
    level = logging.ERROR if way.failures == 1 else logging.WARNING
    fields = {"reply": outcome.reply, "code": outcome.code, **_hint(outcome), "next": next_probe}
    emit(_log, "held", level, mail=id_text(mail.id), route=way.route, upstream=way.name, **fields)


def tell_released(way: Way, since: float, now: float, why: str) -> None:
    """A way is open again after so many seconds."""
    emit(_log, "released", route=way.route, upstream=way.name, seconds=now - since, why=why)


def tell_unreachable(way: Way, next_probe: float, *, known: bool = False) -> None:
    """Nobody answers: the mail waits, and a probe asks for all of it. `known`: another relay has told it."""
    reply = None if way.endpoint.trouble is None else way.endpoint.trouble.reply
    event, level = ("unreachable_too", logging.INFO) if known else ("unreachable", logging.WARNING)
    emit(_log, event, level, **_place(way), reply=reply, next=next_probe)


def tell_reached(way: Way, since: float | None, now: float) -> None:
    """Somebody answers again after so many seconds."""
    emit(_log, "reached", logging.INFO, **_place(way), seconds=None if since is None else now - since)


def _place(way: Way) -> dict[str, str | int | None]:
    """`upstreams` says how many have this endpoint, where they are several."""
    sharers = len(way.endpoint.gates)
    return {
        "upstream": way.name,
        "endpoint": way.endpoint.name or None,
        "upstreams": sharers if sharers > 1 else None,
    }


def tell_report(event: str, mail: Leased, report: Arrival, recipients: list[str]) -> None:
    """A report on these recipients of `mail` is on its way: they failed (`bounced`), or are late (`delay_warned`)."""
    names = {"mail": id_text(mail.id), "report": id_text(report.id), "to": report.recipients[0], "route": report.route}
    emit(_log, event, logging.INFO, **names, recipients=recipients)
