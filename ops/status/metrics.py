"""The relay's numbers for Prometheus, pulled from the rooms when a scrape comes.

Labels hold names from the rules and words of our own, and nothing that a mail or a client brings: their number is
bounded by the rules. `docs/monitoring.md` lists them.
"""

from __future__ import annotations

import os
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from delivery.lanes import RouteNumbers
from ops.expiry import Expiry
from ops.nodes import kinds, late
from ops.status.facts import Facts
from routing.counting import Spread
from spool.contract import Backlog, Buffered
from spool.view import NodeLine

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
GONE: Final = "none"
"""The label of what was counted for routes that the rules do not have any more."""
_STATUS: Final = re.compile(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}")
_PREFIX: Final = "callpro_relay_"
_Row = tuple[tuple[str, ...], float]
"""The values of the labels, and the number."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What has to be waited for: the backlog (None when the spool does not tell), what ends when, and the relays on a
    shared spool (none when it does not tell).
    """

    backlog: Mapping[str, Backlog] | None
    expiries: tuple[Expiry, ...] = ()
    nodes: Sequence[NodeLine] = ()


class _Collected:
    """A collector of what was gathered beforehand."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def gather(facts: Facts, ready: bool, loop_lag: float) -> list[Metric]:
    """On the loop: the numbers of this process as they are now, as values of their own."""
    return [*_relay(facts, ready, loop_lag), *_intake(facts), *_delivery(facts), *_provider(facts), *process()]


def gather_shared(facts: Facts, shared: Shared) -> list[Metric]:
    """Those that all processes of this relay would tell the same."""
    return [*_files(facts, shared), *_nodes(shared.nodes), *_queue(facts, shared)]


def render(families: list[Metric]) -> bytes:
    """What a scrape is answered; for any thread."""
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return bytes(generate_latest(registry))


def _gauge(name: str, words: str, labels: tuple[str, ...], rows: Iterable[_Row]) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, words, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _counter(name: str, words: str, labels: tuple[str, ...], rows: Iterable[_Row]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, words, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _histogram(name: str, words: str, label: str, rows: Iterable[tuple[str, Spread]]) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, words, labels=(label,))
    for value, spread in rows:
        buckets, count = [], 0
        for limit, times in zip((*map(str, spread.limits), "+Inf"), spread.counts, strict=True):
            count += times
            buckets.append((limit, count))
        family.add_metric((value,), buckets, spread.total)
    return family


def _one(number: float) -> list[_Row]:
    return [((), float(number))]


def process() -> Iterator[Metric]:
    """The usual names. The library's own collector wants /proc/stat, which our systemd unit hides."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    yield CounterMetricFamily("process_cpu_seconds", "Processor time.", value=used.ru_utime + used.ru_stime)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    yield GaugeMetricFamily("process_resident_memory_bytes", "Memory.", value=pages * resource.getpagesize())
    yield GaugeMetricFamily("process_open_fds", "Open files and sockets.", value=len(os.listdir("/proc/self/fd")))


def _relay(facts: Facts, ready: bool, loop_lag: float) -> Iterator[Metric]:
    version = metadata.version("callpro-relay")
    yield _gauge("info", "The relay that runs.", ("version",), [((version,), 1.0)])
    yield _gauge("start_time_seconds", "When it was started (unix seconds).", (), _one(facts.started_at))
    yield _gauge("worker_up", "Of several workers: 1 while one answers.", ("worker",), ())
    yield _gauge("ready", "1 while it takes mail, as /readyz tells.", (), _one(ready))
    yield _gauge("loop_lag_seconds", "How late the event loop was at most in the last minute.", (), _one(loop_lag))
    yield _gauge(
        "reload_ok", "0 while the last reload was refused and older rules count.", (), _one(not facts.reload.problem)
    )
    yield _gauge(
        "reload_time_seconds", "When rules were last loaded or refused (unix seconds).", (), _one(facts.reload.at)
    )
    yield _gauge(
        "spool_damaged", "1 once damage was met in the spool's file.", (), _one("damaged" in facts.spool.troubles)
    )
    words = "1 while the log in front of the spool cannot be written."
    yield _gauge("intake_log_failed", words, (), _one("intake_log" in facts.spool.troubles))
    buffered = facts.spool.buffered or Buffered(0)
    words = "1 while new mail goes into the local buffer, for the database takes none."
    yield _gauge("buffering", words, (), _one(buffered.since is not None))
    yield _gauge(
        "buffer_mails", "Mails in the local buffer; none of them is sent from there.", (), _one(buffered.mails)
    )


def _files(facts: Facts, shared: Shared) -> Iterator[Metric]:
    ends = {(one.what, one.key): one.ends_at for one in shared.expiries if one.ends_at is not None}
    words = "When a certificate, secret or key ends (unix seconds)."
    yield _gauge("expires_timestamp_seconds", words, ("what", "name"), list(ends.items()))
    yield _gauge("spool_bytes", "Content that waits.", (), _one(facts.spool.octets))
    yield _gauge("spool_limit_bytes", "limits.spool_size.", (), _one(facts.relay.limits.spool_size))


def _nodes(lines: Sequence[NodeLine]) -> Iterator[Metric]:
    """Where relays share a spool; each tells the same, as it stands in the database."""
    alive = [line for line in lines if line.alive]
    for name, words, number in (
        ("nodes", "Relays on the shared spool that are alive.", len(alive)),
        ("nodes_late", "Those of them whose sign of life is late.", sum(late(line) for line in alive)),
        ("node_rules", "Different rules that they go by; should be 1.", len(kinds(alive, lambda line: line.rules))),
        ("node_versions", "Different versions of them; should be 1.", len(kinds(alive, lambda line: line.version))),
        (
            "node_clock_skew_seconds",
            "How far a clock of theirs is off at most, by the database's.",
            max((abs(line.skew) for line in alive), default=0.0),
        ),
    ):
        yield _gauge(name, words, (), _one(number) if lines else ())


def _intake(facts: Facts) -> Iterator[Metric]:
    numbers = facts.intake.numbers
    yield _gauge("intake_connections", "Connections of clients now.", (), _one(numbers.open))
    yield _counter("intake_connections", "Connections of clients.", (), _one(numbers.connections))
    yield _counter("intake_turned_away", "Connections refused at the greeting.", (), _one(numbers.turned_away))
    yield _counter("intake_abandoned", "Transactions whose client went away.", (), _one(numbers.abandoned))
    yield _counter("accepted_mails", "Mails that got a 250.", ("route",), _by_route(facts, numbers.routes))
    yield _counter("accepted_recipients", "Their recipients.", (), _one(numbers.recipients))
    yield _counter("accepted_bytes", "Their content.", (), _one(numbers.octets))
    refused: Counter[str] = Counter()
    for status, count in numbers.refused.items():
        refused[status if _STATUS.fullmatch(status) else "other"] += count
    statuses = [((status,), count) for status, count in refused.items()]
    yield _counter(
        "refused_replies", "Negative replies to clients, by our enhanced status code.", ("status",), statuses
    )
    repairs = [((name,), count) for name, count in numbers.repairs.items()]
    yield _counter("repairs", "Repairs of legacy mail, by name.", ("repair",), repairs)
    yield _counter("intake_bugs", "Mails that met a bug of ours at intake.", (), _one(numbers.bugs))


def _delivery(facts: Facts) -> Iterator[Metric]:
    lanes, plan = facts.scheduler.routes(), facts.plan()
    for name, words in (
        ("delivered", "Recipients delivered."),
        ("failed", "Recipients refused for good, expired or dropped by delivery."),
        ("deferred", "Recipients to be tried again, each time."),
    ):
        counts = {route: getattr(numbers, name) for route, numbers in lanes.items()}
        yield _counter(f"{name}_recipients", words, ("route",), _by_route(facts, counts))
    flying = {route: float(numbers.in_flight) for route, numbers in lanes.items()}
    yield _gauge("in_flight_mails", "Mails under way now.", ("route",), _by_route(facts, flying))
    took = [(route, numbers.took) for route, numbers in lanes.items() if route in plan.routes]
    yield _histogram("delivery_seconds", "From the 250 to the delivery, by recipient.", "route", took)
    yield _gauge(
        "way_held",
        "1 while delivery keeps a route's mail from an upstream that does not work.",
        ("route", "upstream"),
        _held(facts, lanes),
    )
    asked = {name: numbers for name, numbers in facts.scheduler.upstreams().items() if name in plan.upstreams}
    yield _histogram(
        "attempt_seconds", "How long an attempt takes.", "upstream", [(name, one.took) for name, one in asked.items()]
    )
    outcomes = [((name, str(word)), count) for name, one in asked.items() for word, count in one.outcomes.items()]
    yield _counter("attempt_outcomes", "What came of recipients at attempts.", ("upstream", "outcome"), outcomes)
    away = facts.scheduler.unreachable()
    down = [((name,), float(name in away)) for name in plan.upstreams]
    yield _gauge("upstream_unreachable", "1 while nobody answers at an upstream.", ("upstream",), down)
    limited = [meter for meter in facts.scheduler.meters() if meter.rate.per_day]
    used = [((meter.name,), float(meter.used_today(facts.clock()))) for meter in limited]
    yield _gauge(
        "quota_used_recipients", "Recipients of the last 24 hours, where a day has a limit.", ("account",), used
    )
    limits = [((meter.name,), float(meter.rate.per_day or 0)) for meter in limited]
    yield _gauge("quota_limit_recipients", "That limit.", ("account",), limits)


def _held(facts: Facts, lanes: Mapping[str, RouteNumbers]) -> Iterator[_Row]:
    for name, route in facts.plan().routes.items():
        closed = {held.upstream for held in lanes[name].held} if name in lanes else set()
        for upstream in route.settings.upstreams:
            yield (name, upstream), float(upstream in closed)


def _queue(facts: Facts, shared: Shared) -> Iterator[Metric]:
    holds = Counter(str(hold.scope) for hold in facts.spool.held.all())
    scopes = [((scope,), float(holds[scope])) for scope in ("mail", "route", "sender")]
    yield _gauge("holds", "What people have on hold.", ("scope",), scopes)
    if shared.backlog is None:
        return
    now = facts.clock()
    waiting = {route: float(backlog.waiting) for route, backlog in shared.backlog.items()}
    yield _gauge("queue_mails", "Mails that wait, under way not counted.", ("route",), _by_route(facts, waiting))
    ages = {route: max(0.0, now - backlog.oldest) for route, backlog in shared.backlog.items()}
    yield _gauge("queue_oldest_seconds", "How long the oldest of them waits.", ("route",), _by_route(facts, ages, max))


def _provider(facts: Facts) -> Iterator[Metric]:
    if facts.webhooks is None:
        return
    told: Counter[tuple[str, str]] = Counter()
    for (route, word), count in facts.webhooks.told.items():
        told[route if route in facts.plan().routes else GONE, str(word)] += count
    yield _counter("provider_events", "What providers told of mails.", ("route", "event"), list(told.items()))
    refused = list(facts.webhooks.refused.items())
    yield _counter("webhooks_refused", "Requests that were not taken.", ("upstream", "why"), refused)


def _by_route(facts: Facts, numbers: Mapping[str, float], join: Callable[[list[float]], float] = sum) -> list[_Row]:
    """A row for every route of the rules, and one for all others together if there are any."""
    routes = facts.plan().routes
    rows: list[_Row] = [((route,), float(numbers.get(route, 0))) for route in routes]
    others = [number for route, number in numbers.items() if route not in routes]
    return [*rows, ((GONE,), float(join(others)))] if others else rows
