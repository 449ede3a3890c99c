"""How `queue holds` looks: what people hold, and what delivery holds because a way does not work. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from delivery.holds import HeldWay
from ops.queue_view import age_text, plain
from spool.holding import Hold, Scope


def holds_text(holds: Iterable[Hold], ways: Iterable[HeldWay], now: float) -> str:
    """Two or three lines a hold: on what, since when and why, and how it ends; then where nobody answers, and which
    pace has no room. Empty when nothing keeps mail here.
    """
    known = tuple(ways)
    lines = [line for hold in holds for line in _by_people(hold, now)]
    lines += [line for way in known if way.on_hold for line in _by_delivery(way, now)]
    lines += _silent((way for way in known if way.silent), now)
    lines += [line for way in known if way.paced for line in _paced(way, now)]
    return "".join(f"{line}\n" for line in lines)


def release_command(hold: Hold) -> str:
    """What to type to end a hold."""
    option = {Scope.MAIL: "", Scope.ROUTE: "--route ", Scope.SENDER: "--sender "}[hold.scope]
    return f"callpro-relay queue release {option}{plain(shlex.quote(hold.subject))}"


def hold_reason(hold: Hold) -> str:
    """Who, and why."""
    return plain(f"{hold.who}: {hold.reason}" if hold.reason else hold.who)


def _by_people(hold: Hold, now: float) -> Iterator[str]:
    yield f"{hold.scope} {plain(hold.subject)}  on hold for {age_text(now - hold.since)} by {hold_reason(hold)}"
    yield f"    end it: {release_command(hold)}"


def _by_delivery(way: HeldWay, now: float) -> Iterator[str]:
    since = age_text(now - way.since)
    where = f" on {plain(way.only)} alone" if way.only else ""
    yield f"route {plain(way.route)} by {plain(way.upstream)}  on hold{where} for {since}, it does not work:"
    yield _why(way)
    release = f"callpro-relay queue release --route {plain(shlex.quote(way.route))}"
    yield f"    next probe in {age_text(way.next_probe - now)}; try with mail now: {release}"


def _silent(ways: Iterable[HeldWay], now: float) -> Iterator[str]:
    """An upstream once, however many routes have it."""
    routes: dict[str, list[HeldWay]] = {}
    for way in ways:
        routes.setdefault(way.upstream, []).append(way)
    for upstream, those in routes.items():
        first = those[0]
        yield f"{plain(upstream)}  nobody answers for {age_text(now - first.since)}; {_names(those)} waits:"
        yield _why(first)
        yield f"    next probe in {age_text(first.next_probe - now)}; its mail leaves when somebody answers"


def _paced(way: HeldWay, now: float) -> Iterator[str]:
    yield f"route {plain(way.route)} by {plain(way.upstream)}  waits, as {plain(way.reply)}"
    yield f"    next mail in {age_text(way.next_probe - now)}, by itself; more: callpro-relay queue forecast"


def _names(ways: list[HeldWay]) -> str:
    more = f" and {len(ways) - 1} more" if len(ways) > 1 else ""
    return f"mail of {plain(ways[0].route)}{more}"


def _why(way: HeldWay) -> str:
    return f"    {plain(' / '.join(way.reply.splitlines()))}{f' -> {plain(way.hint)}' if way.hint else ''}"
