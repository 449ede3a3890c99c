"""A view made of rows: what a mail, its story and its failures are is the same for both engines, which bring the rows.

No SQL and no engine here. Must never read content.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from routing.outcome import Outcome
from spool.contract import id_text
from spool.holding import Hold, Scope, keys_of
from spool.records import last_outcomes, read_results
from spool.view import FailureLine, Filter, Load, MailLine, RecipientLine, SpoolView, Story, TimelineEntry

Row = tuple[Any, ...]
Lines = list[MailLine]


@dataclass(frozen=True, slots=True)
class Statements:
    """An engine's questions. `events`, `people` and `about` take a mail's number, `hold` a scope and a subject;
    `failures` takes `since` by name, `bad_news` by place.
    """

    events: str
    people: str
    about: str
    hold: str
    holds: str
    loads: str
    failures: str
    bad_news: str


class RowsView(SpoolView):
    """Each question is asked within `_reading`, which is one moment of the spool."""

    _sql: Statements

    @abstractmethod
    def _reading(self) -> AbstractContextManager[None]:
        """One moment of the spool for all that is read in it. Raises SpoolUnusable."""

    @abstractmethod
    def _rows(self, statement: str, values: Any = ()) -> Sequence[Row]:
        """All rows at once."""

    @abstractmethod
    def _stream(self, name: str, statement: str, values: Any) -> Iterable[Row]:
        """Many rows, one after the other; two streams that are read together have two names."""

    @abstractmethod
    def _listed(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        """See `SpoolView.list`."""

    @abstractmethod
    def _to_domain(self, which: Filter, limit: int, after: int, newest_first: bool) -> Lines:
        """The same, where most mail may be asked for: it is taken in its order until there is enough."""

    def list(self, which: Filter, limit: int, after: int = 0, *, newest_first: bool = False) -> Sequence[MailLine]:
        """See `SpoolView.list`. Raises SpoolUnusable."""
        with self._reading():
            walk = self._to_domain if which.asks_for_a_domain_alone else self._listed
            return walk(which, limit, after, newest_first)

    def loads(self) -> dict[str, Load]:
        """See `SpoolView.loads`: one walk over what waits. Raises SpoolUnusable."""
        with self._reading():
            return {route: Load(mails, recipients) for route, mails, recipients in self._rows(self._sql.loads)}

    def show(self, number: int) -> Story | None:
        """See `SpoolView.show`. Raises SpoolUnusable."""
        with self._reading():
            found = self._listed(Filter(settled=None, ids=(number,)), 1, 0, False)
            return self._story(found[0]) if found else None

    def holds(self) -> Sequence[Hold]:
        """See `SpoolView.holds`. Raises SpoolUnusable."""
        with self._reading():
            return [_hold(row) for row in self._rows(self._sql.holds)]

    def failures(self, since: float) -> Iterator[FailureLine]:
        """See `SpoolView.failures`. Raises SpoolUnusable."""
        with self._reading():
            yield from merge(self._failures(since), self._bad_news(since), key=attrgetter("mail"))

    def _failures(self, since: float) -> Iterator[FailureLine]:
        rows = self._stream("failures", self._sql.failures, {"since": since})
        for number, failures in groupby(rows, itemgetter(0)):
            told = self._told(number)
            for row in failures:
                line = _failure(row, told)
                if line.at >= since:
                    yield line

    def _bad_news(self, since: float) -> Iterator[FailureLine]:
        rows = self._stream("bad_news", self._sql.bad_news, (since,))
        for number, at, route, sender, recipient, told, upstream, words in rows:
            yield FailureLine(number, at, route, sender, recipient, told, told_by=upstream, words=words)

    def _line(self, row: Row) -> MailLine:
        number, route, sender, received_at, attempts, size, due_at, leased = row
        last = last_outcomes(event[4] for event in self._rows(self._sql.events, (number,)) if event[4])
        people = tuple(
            RecipientLine(address, state, last.get(address))
            for address, state in self._rows(self._sql.people, (number,))
        )
        hold = None if due_at is None else self._hold_on(number, route, sender)
        return MailLine(number, route, sender, people, received_at, due_at, attempts, size, bool(leased), hold)

    def _hold_on(self, number: int, route: str, sender: str) -> Hold | None:
        for key in keys_of(id_text(number), route, sender):
            if rows := self._rows(self._sql.hold, key):
                return _hold(rows[0])
        return None

    def _told(self, number: int) -> dict[str, tuple[float, Outcome]]:
        """The newest outcome of each recipient of a mail, and when it came."""
        newest: dict[str, tuple[float, Outcome]] = {}
        for event in self._rows(self._sql.events, (number,)):
            for address, outcome in read_results(event[4]) if event[4] else ():
                newest[address] = event[0] + (event[3] or 0.0), outcome
        return newest

    def _story(self, line: MailLine) -> Story:
        message_id, peer, helo, repairs = self._rows(self._sql.about, (line.id,))[0]
        entries = [TimelineEntry(line.received_at, "received", f"from {peer} ({helo}), {line.size} octets")]
        if repairs:
            entries.append(TimelineEntry(line.received_at, "repaired", ", ".join(repairs.split("\n"))))
        for at, text, upstream, seconds, results, told, recipient in self._rows(self._sql.events, (line.id,)):
            outcomes = tuple(read_results(results)) if results else ()
            event = told or ("note" if upstream is None else "attempt")
            entries.append(TimelineEntry(at, event, text, upstream, seconds, outcomes, recipient))
        return Story(line, message_id, peer, helo, tuple(entries))


def _hold(row: Row) -> Hold:
    return Hold(Scope(row[0]), *row[1:])


def _failure(row: Row, told: Mapping[str, tuple[float, Outcome]]) -> FailureLine:
    """A mail is settled with its last recipient: this one may have failed days before, at its own last attempt."""
    number, settled_at, route, sender, address, how = row
    at, last = told.get(address, (settled_at or 0.0, None))
    return FailureLine(number, settled_at or at if how == "dropped" else at, route, sender, address, how, last)
