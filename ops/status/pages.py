"""What each page shows: read from the spool and a snapshot, handed to a template. For the page's own thread.

Everything that goes through a template is escaped and stripped of what is not visible, wherever it came from: addresses
and replies are written by strangers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import inf
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from config.credentials import Secret
from config.fields import Settings
from config.rules import Rate, Route
from config.shapes import shapes_of
from delivery.accounts import Meters
from delivery.forecast import Forecast, forecast
from ops.expiry import step_of
from ops.nodes import late, warnings_of
from ops.queue_view import age_text, plain, size_text
from ops.status.charts import PERIODS, Period, chart, edges, spark
from ops.status.looks import clock_text, hint_text, mail_row, said, timeline
from ops.status.sessions import Session
from ops.status.snapshot import Snapshot
from ops.status.words import Language, Say, say_in, who_text
from routing.counting import OTHERS
from spool.contract import SPENT_SLOT, Buffered, id_text
from spool.holding import Scope
from spool.view import Filter, Load, SpoolView, Volume

_LIST: Final = 50
_FEW: Final = 5
_LARGEST: Final = 100
_DAY: Final = 86400.0
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks: in which language, at which path, as whom (None: without a token), and whether they could log in.
    `shared`: the spool is several relays'.
    """

    language: Language
    path: str
    session: Session | None
    possible: bool
    told: str = ""
    shared: bool = False


def _visible(value: Any) -> Any:
    """No control, no invisible letter and no change of direction reaches the page."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("ops.status"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"age": age_text, "clock": clock_text, "size": size_text, "id": id_text}
    return made


def render(name: str, reader: Reader, now: float, **values: Any) -> bytes:
    """A page as HTML."""
    say = say_in(reader.language)
    frame = {"reader": reader, "t": say, "lang": reader.language, "now": now, "can_act": reader.session is not None}
    return _templates().get_template(f"{name}.html").render(**frame, **values).encode("utf-8", "backslashreplace")


def asset(name: str) -> bytes:
    return (resources.files("ops.status") / "assets" / name).read_bytes()


def overview(view: SpoolView, snapshot: Snapshot, reader: Reader) -> bytes:
    now, say = snapshot.now, say_in(reader.language)
    day = view.volumes(edges("day", now))
    hour = view.volumes((now - 3600.0, now + 1.0))
    rows = _bars(edges("day", now), day)
    backlog = snapshot.backlog or {}
    values: Values = {
        "snapshot": snapshot,
        "attention": _attention(snapshot, reader),
        "waiting": sum(one.waiting for one in backlog.values()),
        "oldest": min((one.oldest for one in backlog.values()), default=None),
        "accepted": sum(one.recipients for one in hour),
        "delivered": sum(one.delivered for one in hour),
        "failed": sum(one.failed for one in day),
        "queue": _queue(view, snapshot),
        "chart": chart("day", edges("day", now)[:-1], rows),
        "old": [mail_row(line, now, reader.language, say, snapshot.ways) for line in view.list(Filter(), _FEW)],
        "slow": view.slowest(now - _DAY, _FEW),
        "orders": view.orders(_FEW),
        "buffer": buffer_text(snapshot.buffered, now, say),
        "amiss": warnings_of(view.nodes()),
        "ending": [one for one in snapshot.expiries() if step_of(one, now) is not None],
    }
    return render("overview", reader, now, **values)


def buffer_text(buffered: Buffered | None, now: float, say: Say) -> str:
    """A sentence about the local buffer; "" when it is empty and the database takes mail."""
    if buffered is None:
        return ""
    if buffered.since is not None:
        words = "The database takes no mail since {time}. New mail is kept on this machine ({count}); nothing is sent."
        return f"{say(words, time=age_text(now - buffered.since), count=buffered.mails)} ({buffered.why})"
    words = "{count} mails are on their way from this machine's buffer to the database."
    return say(words, count=buffered.mails) if buffered.mails else ""


def _attention(snapshot: Snapshot, reader: Reader) -> Values:
    say, now = say_in(reader.language), snapshot.now
    closed = [
        {
            "route": one.way.route,
            "upstream": one.way.upstream,
            "only": one.way.only,
            "since": age_text(now - one.way.since),
            "next": age_text(one.way.next_probe - now),
            "lines": one.way.reply.splitlines(),
            "mend": hint_text(one.why.hint, reader.language) if one.why else one.way.hint or "",
            "mender": who_text(one.why.hint.who, say) if one.why and one.why.hint else "",
        }
        for one in snapshot.closed
    ]
    away = [
        (name, age_text(now - silence.since), silence.outcome and said("", silence.outcome, reader.language, say))
        for name, silence in snapshot.unreachable.items()
    ]
    return {"closed": closed, "holds": snapshot.holds, "away": away}


def _queue(view: SpoolView, snapshot: Snapshot) -> Values:
    """Each route with mail, and when it will be empty; the limits of a day."""
    backlog = snapshot.backlog or {}
    plan = snapshot.plan
    meters = Meters(plan.rules, plan.routes.values())
    meters.restore(view.spent(snapshot.now - _DAY - 2 * SPENT_SLOT), snapshot.now)
    loads = {name: Load(one.waiting, one.waiting) for name, one in backlog.items()}
    found: Forecast = forecast(meters, plan.routes, loads, snapshot.now)
    ahead = {queue.route: queue for queue in found.queues}
    held = {hold.subject for hold in snapshot.holds if hold.scope is Scope.ROUTE}
    held |= {one.way.route for one in snapshot.closed if not one.way.only}
    names = sorted({*backlog, *snapshot.in_flight}, key=lambda name: backlog[name].oldest if name in backlog else 0.0)
    routes = [
        {
            "name": name,
            "known": name in plan.routes,
            "waiting": backlog[name].waiting if name in backlog else 0,
            "oldest": backlog[name].oldest if name in backlog else None,
            "in_flight": snapshot.in_flight.get(name, 0),
            "ahead": ahead.get(name),
            "held": name in held or (name in backlog and backlog[name].next_due == inf),
            "next_due": backlog[name].next_due if name in backlog and backlog[name].next_due < inf else None,
        }
        for name in names
    ]
    return {"routes": routes, "quotas": found.quotas}


def volumes(view: SpoolView, snapshot: Snapshot, reader: Reader, period: Period, route: str) -> bytes:
    now = snapshot.now
    marks = edges(period, now)
    rows = [row for row in view.volumes(marks) if not route or row.route == route]
    groups: dict[tuple[str, str], list[Volume]] = {}
    for row in rows:
        groups.setdefault((row.route, row.customer), []).append(row)
    largest = sorted(((_total(own), own) for own in groups.values()), key=lambda pair: -pair[0].recipients)[:_LARGEST]
    table = [(total, spark(_bars(marks, own))) for total, own in largest]
    values: Values = {
        "chart": chart(period, marks[:-1], _bars(marks, rows)),
        "table": table,
        "hidden": len(groups) - len(table),
        "total": _total(rows),
        "period": period,
        "periods": PERIODS,
        "route": route,
        "others": OTHERS,
    }
    return render("volumes", reader, now, **values)


def _total(rows: Sequence[Volume]) -> Volume:
    """All of them as one, with the names of the first."""
    columns = zip(*[(row.mails, row.recipients, row.delivered, row.failed) for row in rows], strict=True)
    return Volume(0.0, rows[0].route, rows[0].customer, *map(sum, columns)) if rows else Volume(0.0, "", "")


def _bars(marks: Sequence[float], rows: Sequence[Volume]) -> list[tuple[int, int, int]]:
    """(accepted, delivered, failed) recipients for each stretch."""
    found = {start: [0, 0, 0] for start in marks[:-1]}
    for row in rows:
        bar = found[row.at]
        bar[0] += row.recipients
        bar[1] += row.delivered
        bar[2] += row.failed
    return [(accepted, delivered, failed) for accepted, delivered, failed in found.values()]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A list of mail: `title` is in the reader's language; `newest` first or the oldest, which can go on from the id
    `after`; `more` is the address of what follows, but for that id.
    """

    which: Filter
    title: str
    newest: bool
    after: int = 0
    more: str = ""


def mails(view: SpoolView, snapshot: Snapshot, reader: Reader, wanted: Wanted) -> bytes:
    """A list of mail."""
    say, which = say_in(reader.language), wanted.which
    lines = view.list(which, _LIST, wanted.after, newest_first=wanted.newest)
    full = len(lines) == _LIST
    values: Values = {
        "rows": [mail_row(line, snapshot.now, reader.language, say, snapshot.ways) for line in lines],
        "wanted": wanted,
        "full": full,
        "more": f"{wanted.more}after={id_text(lines[-1].id)}" if full and not wanted.newest else "",
        "which": which,
        "held": any(hold.scope is Scope.ROUTE and hold.subject == which.route for hold in snapshot.holds),
    }
    return render("mails", reader, snapshot.now, **values)


def mail(view: SpoolView, snapshot: Snapshot, reader: Reader, number: int) -> bytes | None:
    """One mail and its story; None when it is not known."""
    story = view.show(number)
    if story is None:
        return None
    say = say_in(reader.language)
    values: Values = {
        "story": story,
        "row": mail_row(story.mail, snapshot.now, reader.language, say, snapshot.ways),
        "moments": timeline(story, reader.language, say),
    }
    return render("mail", reader, snapshot.now, **values)


def orders(view: SpoolView, snapshot: Snapshot, reader: Reader) -> bytes:
    return render("orders", reader, snapshot.now, orders=view.orders(200))


def calendar(_view: SpoolView, snapshot: Snapshot, reader: Reader) -> bytes:
    """What ends and when; what is near its end is marked."""
    found = [(one, step_of(one, snapshot.now)) for one in snapshot.expiries()]
    return render("calendar", reader, snapshot.now, found=found)


def nodes(view: SpoolView, snapshot: Snapshot, reader: Reader, own: str) -> bytes:
    """The relays that share the spool, and what each has under way. `own` is the name of this one."""
    lines, taken = view.nodes(), view.taken()
    values: Values = {
        "lines": lines,
        "taken": taken,
        "own": own,
        "amiss": warnings_of(lines),
        "late": {line.number for line in lines if late(line)},
        "mails": {line.number: sum(one.mails for one in taken if one.node == line.number) for line in lines},
        "names": {line.number: line.name for line in lines},
    }
    return render("nodes", reader, snapshot.now, **values)


def rules(_view: SpoolView, snapshot: Snapshot, reader: Reader) -> bytes:
    plan = snapshot.plan
    routes = [(route, _route_words(route)) for route in plan.routes.values()]
    upstreams = [(rule, [*settings_words(rule.settings), *_pace_words(rule.pace)]) for rule in plan.rules.values()]
    return render("rules", reader, snapshot.now, routes=routes, upstreams=upstreams, reload=snapshot.reload)


def _route_words(route: Route) -> list[tuple[str, str]]:
    hidden = ("from", "via")
    return [(key, text) for key, text in settings_words(route.settings) if key not in hidden]


def _pace_words(pace: Rate) -> list[tuple[str, str]]:
    return [(f"pace.{key}", text) for key, text in settings_words(pace)]


def settings_words(settings: Settings) -> list[tuple[str, str]]:
    """What ops wrote, key by key, where it is not the default. A secret is shown as its reference, a literal not."""
    found = []
    for shape in shapes_of(type(settings)):
        value = getattr(settings, shape.name)
        if value != shape.default and value is not None:
            found += _words(shape.key, value)
    return found


def _words(key: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, Secret):
        return [(key, "(literal)" if value.literal else value.reference)]
    if isinstance(value, Settings):
        return [(f"{key}.{inner}", text) for inner, text in settings_words(value)]
    if isinstance(value, tuple):
        if any(isinstance(one, Settings | Secret) for one in value):
            return [pair for number, one in enumerate(value) for pair in _words(f"{key}[{number}]", one)]
        return [(key, ", ".join(map(str, value)))]
    return [(key, str(value))]
