"""What people order for waiting mail, as values that go over the control socket, and how an order is carried out.

The same code does it inside the running relay and, where none runs, on the spool alone. Must never guess: an order that
says nothing of which mail is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from delivery.holds import HeldWay, held_way
from ops.expiry import Expiry
from ops.rules_diff import Change
from routing.events import emit
from spool.contract import Spool, SpoolFull, SpoolUnavailable, Steps, id_text, unheard
from spool.holding import Hold, Key, Scope, sender_subject
from spool.view import Filter, GivenOrder

if TYPE_CHECKING:
    from delivery.scheduler import Scheduler
    from ops.reload import Rehearsed

_log = logging.getLogger("relay.orders")


class OrderRefused(Exception):
    """It cannot be done. The text says why, and what to do."""


class Action(StrEnum):
    """What is ordered. `HOLDS`, `DIFF` and `EXPIRY` only ask, `SHOW` lets readers of the spool see the newest mail."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    DROP = "drop"
    HOLDS = "holds"
    DIFF = "diff"
    EXPIRY = "expiry"
    SHOW = "show"


ASKING: Final = (Action.HOLDS, Action.DIFF, Action.EXPIRY, Action.SHOW)


@dataclass(frozen=True, slots=True)
class Order:
    """`which` names the mail: for a hold and a release ids, a route or a sender. `who` and `reason` are for people.
    With `progress` whoever gave it hears how far it is.
    """

    action: Action
    which: Filter = Filter()
    who: str = ""
    reason: str = ""
    progress: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the mails or subjects that were named, those it was `done` to and those `left` alone; `holds` and `ways` are
    what is on hold, by people and by delivery, and where nobody answers; `changes` what a reload would change,
    `refusal` why it would be refused, with all `problems` of the files; `expiries` what ends and when.
    """

    done: int = 0
    left: int = 0
    holds: tuple[Hold, ...] = ()
    ways: tuple[HeldWay, ...] = ()
    changes: tuple[Change, ...] = ()
    refusal: str | None = None
    problems: tuple[str, ...] = ()
    expiries: tuple[Expiry, ...] = ()


def order_text(order: Order) -> str:
    """One line of JSON."""
    return json.dumps(asdict(order))


def read_order(text: str | bytes) -> Order:
    """The order behind `order_text`. Raises OrderRefused."""
    try:
        found = json.loads(text)
        known = {field.name for field in fields(Filter)}
        which = {name: value for name, value in found["which"].items() if name in known}
        which["ids"] = tuple(int(number) for number in which.get("ids", ()))
        who, reason, progress = str(found["who"]), str(found["reason"]), found.get("progress") is True
        return Order(Action(found["action"]), Filter(**which), who, reason, progress)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OrderRefused("the order is not understood; is the command of the same version as the relay?") from error


def answer_text(answer: Answer) -> str:
    """One line of JSON."""
    return json.dumps(asdict(answer))


def read_answer(found: dict[str, Any]) -> Answer:
    """The answer behind `answer_text`."""
    holds = tuple(Hold(**{**hold, "scope": Scope(hold["scope"])}) for hold in found["holds"])
    ways = tuple(HeldWay(**{**way, "at_hand": tuple(way.get("at_hand", ()))}) for way in found["ways"])
    changes = tuple(Change(**{**each, "what": tuple(each["what"])}) for each in found.get("changes", ()))
    expiries = tuple(Expiry(**{**each, "routes": tuple(each["routes"])}) for each in found.get("expiries", ()))
    problems = tuple(str(each) for each in found.get("problems", ()))
    return Answer(found["done"], found["left"], holds, ways, changes, found.get("refusal"), problems, expiries)


def subjects(which: Filter) -> tuple[Key, ...]:
    """What a hold or a release is on. Raises OrderRefused for anything but ids, one route or one sender."""
    if which.recipient is not None or which.older_than is not None:
        raise OrderRefused("a hold is on mails by their ids, on a route or on a sender")
    named = [(Scope.MAIL, id_text(number)) for number in which.ids]
    named += [(Scope.ROUTE, which.route)] if which.route is not None else []
    if which.sender is not None:
        try:
            named.append((Scope.SENDER, sender_subject(which.sender)))
        except ValueError as error:
            raise OrderRefused(str(error)) from error
    if not named or (len(named) > 1 and len(named) != len(which.ids)):
        raise OrderRefused("name mails by their ids, or one route, or one sender")
    return tuple(named)


def subject_text(which: Filter) -> str:
    """Which mail an order is about, in words: `route acme.nl, to @example.org`, or ids."""
    named = [id_text(number) for number in which.ids[:10]]
    named += [f"and {len(which.ids) - 10} more"] if len(which.ids) > 10 else []
    named += [f"route {which.route}"] if which.route is not None else []
    named += [f"from {which.sender}"] if which.sender is not None else []
    named += [f"to {which.recipient}"] if which.recipient is not None else []
    if which.older_than is not None:
        named.append(f"before {datetime.fromtimestamp(which.older_than, UTC).isoformat(' ', 'seconds')}")
    return ", ".join(named)


class Hands:
    """Carries out orders. `scheduler` is None where no relay runs; `routes` gives the names that the rules have.
    `rehearse` tells what a reload would do, `expiries` what ends.
    """

    rehearse: Callable[[], Awaitable[Rehearsed]] | None = None
    expiries: Callable[[], tuple[Expiry, ...]] | None = None

    def __init__(
        self, spool: Spool, scheduler: Scheduler | None, routes: Callable[[], Collection[str]], now: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._scheduler = scheduler
        self._routes = routes
        self._now = now

    async def carry_out(self, order: Order, told: Steps = unheard) -> Answer:
        """`told` hears how many mails it is through with. Raises OrderRefused, SpoolFull and SpoolUnavailable."""
        if order.action not in ASKING and not order.which.says_something:
            raise OrderRefused("say which mail")
        match order.action:
            case Action.HOLD:
                answer = await self._hold(order, told)
            case Action.RELEASE:
                answer = await self._release(order, told)
            case Action.RETRY:
                note = f"to be tried now, says {order.who}"
                tally = await self._spool.hurry(order.which, note, self._now(), told)
                answer = Answer(tally.done, tally.left)
            case Action.DROP:
                note = _because(f"dropped by {order.who}", order)
                tally = await self._spool.drop(order.which, note, self._now(), told)
                answer = Answer(tally.done, tally.left)
            case Action.HOLDS:
                waits = self._scheduler.silent() + self._scheduler.paced() if self._scheduler else ()
                return Answer(holds=self._spool.held.all(), ways=await self._held_ways() + waits)
            case Action.DIFF:
                return await self._diff()
            case Action.EXPIRY:
                return Answer(expiries=self.expiries() if self.expiries else ())
            case Action.SHOW:
                await self._spool.shown()
                return Answer()
        which = {name: value for name, value in asdict(order.which).items() if value}
        which["ids"] = [id_text(number) for number in order.which.ids][:10] or None
        done = {"done": answer.done, "left": answer.left}
        emit(_log, f"order_{order.action}", **which, **done, who=order.who, why=order.reason or None)
        await self._record(order, answer)
        return answer

    async def _diff(self) -> Answer:
        if self.rehearse is None:
            raise OrderRefused("no relay runs here whose rules could be compared")
        told = await self.rehearse()
        return Answer(changes=told.changes, refusal=told.problem, problems=tuple(map(str, told.problems)))

    async def _record(self, order: Order, answer: Answer) -> None:
        """What was done stays done where it cannot be written down: the log has it."""
        given = GivenOrder(
            self._now(), order.who, order.action, subject_text(order.which), order.reason, answer.done, answer.left
        )
        try:
            await self._spool.record(given)
        except (SpoolFull, SpoolUnavailable) as error:
            emit(_log, "order_not_recorded", logging.ERROR, error=str(error))

    async def _hold(self, order: Order, told: Steps) -> Answer:
        keys = subjects(order.which)
        await self._check_route(order.which.route)
        done = 0
        for key in keys:
            hold = Hold(*key, self._now(), order.who, order.reason)
            done += await self._spool.hold(hold, _because(f"on hold by {order.who}", order), told)
            if self._scheduler:
                self._scheduler.recall(hold)
        return Answer(done, len(keys) - done)

    async def _release(self, order: Order, told: Steps) -> Answer:
        keys = subjects(order.which)
        note = f"released by {order.who}"
        found = [await self._spool.release(key, self._now(), note, told) for key in keys]
        ended = [hold for hold in found if hold is not None]
        ways = () if order.which.route is None else await self._open_ways(order.which.route, note)
        if not ended and not ways:
            await self._check_route(order.which.route)
        left = 0 if ways else len(keys) - len(ended)  # a route is one key, whoever held it
        return Answer(len(ended) + len(ways), left, tuple(ended), ways)

    async def _check_route(self, name: str | None) -> None:
        if name is not None and name not in self._routes() and name not in await self._spool.backlog():
            raise OrderRefused(f"there is no route {name}; a route's name is its first `from`")

    async def _held_ways(self) -> tuple[HeldWay, ...]:
        """What delivery holds: as the relay here knows it, or as all of them do."""
        if self._scheduler:
            return self._scheduler.held()
        cluster = self._spool.cluster
        return tuple(held_way(one.closed) for one in (await cluster.look()).closed) if cluster else ()

    async def _open_ways(self, route: str, why: str) -> tuple[HeldWay, ...]:
        """Open the ways of a route, of all relays on the spool."""
        ways = {(way.upstream, way.only): way for way in await self._held_ways() if way.route == route}
        if self._scheduler:
            self._scheduler.release(route, why)
        if self._spool.cluster:
            opened = [held_way(closed) for closed in await self._spool.cluster.open_route(route)]
            # What holds for the relay here alone stands in the database by its name, and is told once.
            mine = {(way.upstream, way.since) for way in ways.values()}
            ways |= {(way.upstream, way.only): way for way in opened if (way.upstream, way.since) not in mine}
        return tuple(ways.values())


def _because(text: str, order: Order) -> str:
    return f"{text}: {order.reason}" if order.reason else text
