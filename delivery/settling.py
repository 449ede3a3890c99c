"""Writing down what an attempt came to: the report of failures first, then the settlement, then the log line.

In this order a crash in between costs at most a second report or warning, never a failure that nobody hears of.
"""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from config import names
from config.relay_settings import Delivery
from delivery.attempt import Errand
from delivery.backoff import retry_wait
from delivery.bounce import Reporter, delay_report, report, reportable
from delivery.clock import Clock
from delivery.delay import late, warn_at
from delivery.plan import Plan
from delivery.story import tell, tell_report
from delivery.verdict import Verdict, judge
from routing.events import emit
from routing.mail import NULL_SENDER, domain_of
from routing.outcome import Outcome, Word
from spool.contract import Arrival, Leased, Settled, Settlement, Spool, SpoolFull, SpoolUnavailable, id_text

_log = logging.getLogger("delivery")


@dataclass(frozen=True, slots=True)
class Written:
    """A settlement on its way to disk: `kept` ends when it is there."""

    verdict: Verdict
    kept: Future[None]


class Settling:
    """Concludes attempts against one spool."""

    def __init__(self, spool: Spool, settings: Delivery, clock: Clock, random: Random) -> None:
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._random = random

    async def conclude(self, errand: Errand, plan: Plan) -> Written:
        """Settle a mail after its attempt, with a report when recipients are given up."""
        mail, now = errand.mail, self._clock.now()
        finals = errand.finals()
        alive_since = max([mail.received_at, mail.released_at, *[way.released_at for way in errand.ways]])
        warning_at = warn_at(mail, self._settings, alive_since)
        verdict = judge(
            mail,
            finals,
            errand.route.settings,
            self._settings,
            now=now,
            alive_since=alive_since,
            random=self._random,
            warn_at=warning_at,
        )
        note = errand.fault.reply if errand.fault else None
        if errand.untried and not errand.attempts:
            note = f"not tried: the upstream could not be reached before ({errand.untried.reply}), and is probed"
        if verdict.failures and reportable(mail):
            verdict, note = await self._reported(errand, verdict, plan, now)
        behind = late(mail, finals, verdict) if now >= warning_at else {}
        warning = await self._warned(errand, behind, plan, now, alive_since) if behind else None
        notes = [text for text in (_redirected(errand), note, warning) if text]
        written = Written(verdict, self._settle(errand, verdict, "; ".join(notes) or None, warned=warning is not None))
        tell(errand, finals, verdict, now)
        return written

    def give_back(self, mail: Leased, due_at: float, *, route: str | None = None, note: str | None = None) -> Written:
        """Return a mail that was not tried: for another route, or to wait for its own."""
        settlement = Settlement(mail=mail, due_at=due_at, route=route, note=note, counted=False)
        return Written(Verdict({}, (), frozenset(), due_at, False), self._spool.settle(settlement))

    def salvage(self, errand: Errand) -> Written:
        """Settle what is certain when `conclude` failed by a bug of ours: who has the mail must not get it again. The
        others come back, later each time.
        """
        delivered = {
            address: Settled.DELIVERED
            for address, outcomes in errand.tried.items()
            if any(outcome.word is Word.SENT for outcome in outcomes.values())
        }
        wait = retry_wait(errand.mail.attempts, self._settings.retry, self._random)
        due_at = self._clock.now() + wait if len(delivered) < len(errand.tried) else None
        verdict = Verdict(delivered, (), frozenset(), due_at, counted=True)
        return Written(verdict, self._settle(errand, verdict, "settling failed by a bug of ours", warned=False))

    def _settle(self, errand: Errand, verdict: Verdict, note: str | None, *, warned: bool) -> Future[None]:
        return self._spool.settle(
            Settlement(
                mail=errand.mail,
                done=verdict.done,
                attempts=tuple(errand.attempts),
                doubted=verdict.doubted,
                due_at=verdict.due_at,
                note=note,
                counted=verdict.counted,
                warned=warned,
            )
        )

    async def _reported(self, errand: Errand, verdict: Verdict, plan: Plan, now: float) -> tuple[Verdict, str]:
        """The verdict once the report is kept; when it cannot be, the failed recipients come back instead."""
        content = partial(report, errand.mail, verdict.failures, now=now)
        arrival = _report_on(errand, content, plan, self._spool.next_id(), now)
        why = await self._refused(errand, arrival, "the report of the failure", logging.ERROR)
        if why is not None:
            wait = retry_wait(errand.mail.attempts, self._settings.retry, self._random)
            return verdict.unreported(now + wait), why
        tell_report("bounced", errand.mail, arrival, [failure.address for failure in verdict.failures])
        return verdict, f"reported to {arrival.recipients[0]} by mail {id_text(arrival.id)}"

    async def _warned(
        self, errand: Errand, behind: Mapping[str, Outcome], plan: Plan, now: float, alive_since: float
    ) -> str | None:
        """What to note once the warning is kept; None when it cannot be, so that the next attempt makes it."""
        until = alive_since + self._settings.expire
        content = partial(delay_report, errand.mail, behind, now=now, until=until)
        arrival = _report_on(errand, content, plan, self._spool.next_id(), now)
        if await self._refused(errand, arrival, "the warning of the delay", logging.WARNING) is not None:
            return None
        tell_report("delay_warned", errand.mail, arrival, list(behind))
        return f"late: {arrival.recipients[0]} was told so by mail {id_text(arrival.id)}"

    async def _refused(self, errand: Errand, arrival: Arrival, what: str, level: int) -> str | None:
        """Why a report could not be kept; None once it is on disk."""
        try:
            await self._spool.put(arrival)
        except (SpoolFull, SpoolUnavailable) as error:
            why = f"{what} could not be kept: {error}"
            emit(_log, "report_refused", level, mail=id_text(errand.mail.id), why=why)
            return why
        return None


def _redirected(errand: Errand) -> str | None:
    """What the timeline must say beside an attempt, whose results stand under the true recipients."""
    redirect = errand.route.settings.redirect
    return f"redirected to {redirect}, and to no recipient" if redirect and errand.attempts else None


def _report_on(
    errand: Errand, content: Callable[[Reporter, str], bytes], plan: Plan, number: int, now: float
) -> Arrival:
    """The report as a new mail: by the route of `<>`, or the way of the mail it is about."""
    null_route = plan.table.match(NULL_SENDER)
    domain = plan.host.hostname if null_route else _sending_domain(errand)
    by = Reporter(plan.host.hostname, domain, id_text(number))
    to = errand.route.settings.bounces or errand.mail.sender
    return Arrival(
        id=number,
        sender=NULL_SENDER,
        recipients=(to,),
        content=content(by, to),
        route=null_route.name if null_route else errand.route.name,
        received_at=now,
        peer="relay",
        helo=plan.host.hostname,
    )


def _sending_domain(errand: Errand) -> str:
    """A domain that the mail's own way lets us send from, in ASCII: an upstream may refuse every other From."""
    mailbox = errand.route.settings.sender
    return names.normal(domain_of(mailbox.address if mailbox else errand.mail.sender))
