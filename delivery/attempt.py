"""One attempt at one mail: rewrite, sign, send, and on to the next upstream for those it is allowed for.

Must never raise for anything the other side does, nor forget what was already sent when it is cancelled. It does not
decide when the mail comes back; `verdict` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final as Constant

from config.rules import Route
from delivery.accounts import Fare, Ledger
from delivery.choice import next_upstream
from delivery.lanes import standings
from delivery.plan import Plan
from delivery.verdict import Final
from delivery.ways import Way
from routing.events import emit
from routing.headers import without_bcc
from routing.mail import NULL_SENDER, Outgoing
from routing.outcome import BEFORE_MAIL, Outcome, Results, Stage, Word
from routing.redirect import tell_recipients
from routing.rewrite import rewrite
from spool.contract import Attempt, Leased, SpoolFull, SpoolUnavailable, id_text

_log = logging.getLogger("delivery.attempt")

_NOT_NOW: Constant = frozenset((Word.RETRY, Word.WAIT, Word.CONFIG))


class Errand:
    """A leased mail (`id` as people see it) and what has come of it so far. `attempts` are for the history, in order.

    `tried` is, by recipient, the outcome at each upstream that was asked, the last one last.
    """

    __slots__ = ("attempts", "fault", "holds", "id", "mail", "route", "tried", "untried", "ways")

    def __init__(self, mail: Leased, route: Route, ways: tuple[Way, ...]) -> None:
        self.mail = mail
        self.id = id_text(mail.id)
        self.route = route
        self.ways = ways
        self.attempts: list[Attempt] = []
        self.tried: dict[str, dict[str, Outcome]] = {pending.address: {} for pending in mail.recipients}
        self.fault: Outcome | None = None
        """Set when a bug of ours ended the attempt before anything was sent."""
        self.untried: Outcome | None = None
        """What is known to come of a send to an upstream that is not there, so that none was made."""
        self.holds = mail.sender != NULL_SENDER or set(route.settings.from_) == {"<>"}
        """Whether every `config` for this mail is the way's fault: a way for customers need not take a null sender."""

    def blames_way(self, outcome: Outcome) -> bool:
        """True for a `config` that puts the way on hold, and keeps the mail."""
        return outcome.word is Word.CONFIG and (self.holds or outcome.whoever_sends)

    def finals(self) -> dict[str, Final]:
        """The last outcome of every recipient that has one."""
        by_name = {way.name: way for way in self.ways}
        ended: dict[str, Final] = {}
        for address, outcomes in self.tried.items():
            if outcomes:
                name, outcome = next(reversed(outcomes.items()))
                way = by_name[name]
                trial = way.trial and outcome.word is Word.CONFIG  # nor does mail wait for what is wrong with a canary
                if trial or (outcome.only_here and self._another_way(outcomes)):
                    outcome = replace(outcome, word=Word.RETRY)
                config = self.blames_way(outcome)
                if not (config and way.gone):  # what was wrong with the old rules is tried by the new ones
                    ended[address] = Final(name, outcome, config and way.held is not None)
            elif self.fault is not None:
                ended[address] = Final(self.ways[0].name, self.fault)
        return ended

    def _another_way(self, outcomes: dict[str, Outcome]) -> bool:
        """A way is left that was only closed just now: a mail too large for the others waits for it."""
        return any(way.name not in outcomes and not way.gone for way in self.ways)


class Attempts:
    """Makes attempts by one plan. `on_hold`, `on_broken` and `on_leave` are called when a way closes, when an upstream
    is not there any more, and when a slot comes free.
    """

    __slots__ = ("_fallback_after", "_ledger", "_now", "_on_broken", "_on_hold", "_on_leave", "plan")

    def __init__(
        self,
        plan: Plan,
        fallback_after: float,
        now: Callable[[], float],
        ledger: Ledger,
        on_hold: Callable[[Way, Leased], None],
        on_broken: Callable[[Way], None],
        on_leave: Callable[[Way], None],
    ) -> None:
        self.plan = plan
        self._ledger = ledger
        self._on_broken = on_broken
        self._fallback_after = fallback_after
        self._now = now
        self._on_hold = on_hold
        self._on_leave = on_leave

    async def carry(self, errand: Errand, way: Way, fare: Fare) -> None:
        """Try `way`, which the caller has taken for `fare`, and those behind it. Both are given back here.

        The mail waits for a slot of the next upstream only after it left the one before: two routes with each other's
        upstreams as fallbacks cannot block each other. It does not wait for the pace of the next: it comes back.
        """
        sender, content = errand.mail.sender, b""
        while True:
            try:
                if not content:
                    sender, content = self._prepare(errand)
                await self._send(errand, way, fare, sender, self._signed(errand, way, content))
            finally:
                self._ledger.end(fare, counted=False)
                way.leave()
                self._on_leave(way)
            entered = None
            while entered is None:
                following = self._next(errand)
                if following is None:
                    return
                entered = await following.enter(len(self._going_to(errand, following)), self._now())
                if entered is None and not following.closed:
                    return
                way = following
            fare = entered

    def _prepare(self, errand: Errand) -> tuple[str, bytes]:
        """The envelope sender and the content as they leave, but for signatures: hidden recipients stay hidden."""
        sender, content = errand.mail.sender, errand.mail.content
        mailbox = errand.route.settings.sender
        if mailbox is not None and sender != NULL_SENDER:
            rewritten = rewrite(sender, content, mailbox)
            sender, content = rewritten.sender, rewritten.content
        return sender, without_bcc(content)

    def _signed(self, errand: Errand, way: Way, content: bytes) -> bytes:
        """The content as it leaves by `way`: signed last, and only where a signature of ours counts."""
        if errand.route.settings.redirect is not None:
            content = tell_recipients(content, self._going_to(errand, way))
        signer = self.plan.signers.get((errand.route.name, way.name))
        return signer.sign(content, self._now()) if signer else content

    async def _send(self, errand: Errand, way: Way, fare: Fare, sender: str, content: bytes) -> None:
        """One upstream, for every recipient that goes there now, in as many sends as it needs and its pace lets."""
        addresses = self._going_to(errand, way)
        trouble = way.endpoint.known(self._now())
        if trouble is not None:
            errand.untried = trouble
            for address in addresses:
                errand.tried[address][way.name] = trouble
            return
        results: Results = {}
        started = self._now()
        redirect = errand.route.settings.redirect
        try:
            while addresses:
                for part in _parts(addresses, way.widest if redirect is None else len(addresses)):
                    if fare.ended:
                        if way.turn(len(part), self._now()).at > self._now():
                            return
                        fare = way.fare(len(part), self._now())
                    answered = await self._send_to(part, redirect, errand, way, fare, sender, content)
                    if answered is None:
                        return
                    results.update(answered)
                    stop = _same_for_all(answered)
                    if stop is not None:
                        results.update({address: stop for address in addresses if address not in results})
                        break
                addresses = tuple(address for address in addresses if results[address].next_transaction)
        finally:
            if results:
                self._note(errand, way, started, results)

    def _note(self, errand: Errand, way: Way, started: float, results: Results) -> None:
        """Keep what came of it, and what it says of the way."""
        now = self._now()
        if errand.holds:
            results = way.streak.judged(errand.mail.id, results)
        errand.attempts.append(Attempt(way.name, started, max(0.0, now - started), results))
        for address, outcome in results.items():
            errand.tried[address][way.name] = outcome
        news = way.learn(errand.mail.id, results, now, any(map(errand.blames_way, results.values())))
        if news is not None and news.word is Word.WAIT:
            emit(_log, "asked_to_wait", logging.INFO, upstream=way.name, reply=news.reply, seconds=news.wait)
        elif news is not None:
            self._on_hold(way, errand.mail)
        if way.endpoint.broken:
            self._on_broken(way)

    async def _send_to(
        self,
        part: tuple[str, ...],
        redirect: str | None,
        errand: Errand,
        way: Way,
        fare: Fare,
        sender: str,
        content: bytes,
    ) -> Results | None:
        """One send to these recipients, or in their place to the one address of a redirection."""
        to = part if redirect is None else (redirect,)
        answered = await self._send_part(way, fare, Outgoing(errand.id, errand.route.name, sender, to, content))
        if answered is None or redirect is None:
            return answered
        return dict.fromkeys(part, answered[redirect])  # what became of the one mail became of it for everybody

    async def _send_part(self, way: Way, fare: Fare, mail: Outgoing) -> Results | None:
        """One send, counted. Without a note of it on disk it is not made; None when other relays used up its room."""
        if fare.meters:
            try:
                admitted = await self._ledger.write(fare)
            except (SpoolFull, SpoolUnavailable) as error:
                self._ledger.end(fare, counted=False)
                reply = f"not sent, for the spool cannot note it for the pace: {error}"
                return dict.fromkeys(mail.recipients, Outcome(Word.RETRY, reply, Stage.PREPARE))
            if not admitted:
                self._ledger.end(fare, counted=False)
                return None
        said = True
        try:
            answered = await self._send_once(way, mail)
            said = any([_may_count(outcome) for outcome in answered.values()])
            return answered
        finally:
            self._ledger.end(fare, counted=said)

    async def _send_once(self, way: Way, mail: Outgoing) -> Results:
        """Our own bug becomes a `retry`, loudly: mail is never lost by it."""
        try:
            answered = await way.gate.upstream.send(mail)
        except Exception as error:
            _log.exception("mail %s: sending by %s failed by a bug of ours", mail.id, way.name)
            return dict.fromkeys(mail.recipients, our_fault(error))
        if len(answered) == len(mail.recipients) and all([address in answered for address in mail.recipients]):
            return answered
        _log.error("mail %s: %s answered for other recipients than it was handed, a bug of ours", mail.id, way.name)
        missing = Outcome(Word.UNKNOWN, "the upstream's result does not name this recipient", Stage.PREPARE)
        return {address: answered.get(address, missing) for address in mail.recipients}

    def _going_to(self, errand: Errand, way: Way) -> tuple[str, ...]:
        if not any(errand.tried.values()):
            return tuple(errand.tried)
        return tuple(address for address, name in self._choices(errand) if name == way.name)

    def _next(self, errand: Errand) -> Way | None:
        """The next way that any recipient needs, in the order of `via:`."""
        if len(errand.ways) == 1:
            return None
        wanted = {name for _, name in self._choices(errand)}
        return next((way for way in errand.ways if way.name in wanted), None)

    def _choices(self, errand: Errand) -> Iterator[tuple[str, str | None]]:
        if len(errand.ways) == 1:
            return
        now = self._now()
        via, known = [way.name for way in errand.ways], standings(errand.ways, now)
        for address, outcomes in errand.tried.items():
            if outcomes:  # the others were cut off by a hold or a reload: they come back
                yield address, next_upstream(via, known, outcomes, now, self._fallback_after)


def _may_count(outcome: Outcome) -> bool:
    """False when nothing of a mail was said to the provider. A bug of ours may have come at any moment."""
    if outcome.word in (Word.SENT, Word.UNKNOWN):
        return True
    return outcome.stage not in BEFORE_MAIL and not (outcome.stage is Stage.PREPARE and outcome.word is not Word.RETRY)


def our_fault(error: Exception) -> Outcome:
    """The outcome of a bug: only the type is told, since the text may quote the mail."""
    return Outcome(Word.RETRY, f"the relay failed: {type(error).__name__}; its log says more", Stage.PREPARE)


def _parts(addresses: tuple[str, ...], limit: int) -> Sequence[tuple[str, ...]]:
    if len(addresses) <= limit:
        return (addresses,)
    return [addresses[start : start + max(1, limit)] for start in range(0, len(addresses), max(1, limit))]


def _same_for_all(results: Results) -> Outcome | None:
    """The outcome that asking for more recipients would meet as well: it was not about a recipient."""
    for outcome in results.values():
        if outcome.word not in _NOT_NOW or outcome.stage is Stage.RECIPIENT:
            return None
    return next(iter(results.values()), None)
