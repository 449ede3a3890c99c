"""The spool against a dictionary: whatever is done in whatever order, both tell the same."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spool.contract import Backlog, Leased, Settled, Settlement
from spool.sqlite import SqliteSpool
from tests.spool.engines import Clock, arrival

ROUTES = st.sampled_from(["a.nl", "b.nl"])


@dataclass
class Model:
    """What a mail should be."""

    home: str
    route: str
    content: bytes
    received_at: float
    due_at: float
    pending: dict[str, int]
    attempts: int = 0
    leased: Leased | None = field(default=None)


class SpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.mails: dict[int, Model] = {}
        self.spool = self.open()

    def open(self) -> SqliteSpool:
        path = str(Path(self.folder.name) / "spool.db")
        return self.loop.run_until_complete(SqliteSpool.open(path, size_limit=1 << 30, memory=1500, clock=self.clock))

    def do(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        self.do(self.spool.close())
        self.loop.close()
        self.folder.cleanup()

    def due(self, route: str) -> list[int]:
        free = [n for n, m in self.mails.items() if m.route == route and not m.leased and m.due_at <= self.clock.now]
        return sorted(free, key=lambda number: (self.mails[number].due_at, number))

    @rule(route=ROUTES, size=st.integers(0, 900), recipients=st.integers(1, 3))
    def put(self, route, size, recipients):
        self.clock.now += 1
        addresses = tuple(f"r{number}@x.nl" for number in range(recipients))
        mail = arrival(
            self.spool, self.clock, route=route, sender=f"s@{route}", content=b"x" * size, recipients=addresses
        )
        self.do(self.spool.put(mail))
        self.mails[mail.id] = Model(
            route, route, mail.content, self.clock.now, self.clock.now, dict.fromkeys(addresses, 0)
        )

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(route=ROUTES, limit=st.integers(1, 4))
    def lease(self, route, limit):
        expected = self.due(route)[:limit]
        leased = self.do(self.spool.lease(route, limit, self.clock.now))
        assert [mail.id for mail in leased] == expected
        for mail in leased:
            model = self.mails[mail.id]
            assert (mail.route, mail.content, mail.received_at) == (route, model.content, model.received_at)
            assert {r.address: r.doubts for r in mail.recipients} == model.pending
            assert mail.attempts == model.attempts
            model.leased = mail

    @precondition(lambda self: any(mail.leased for mail in self.mails.values()))
    @rule(data=st.data(), delay=st.integers(0, 60), counted=st.booleans(), route=st.none() | ROUTES)
    def settle(self, data, delay, counted, route):
        number = data.draw(st.sampled_from([n for n, mail in self.mails.items() if mail.leased]))
        model = self.mails[number]
        ended = data.draw(st.sets(st.sampled_from(sorted(model.pending))))
        doubted = data.draw(st.sets(st.sampled_from(sorted(model.pending)))) - ended
        due_at = None if len(ended) == len(model.pending) else self.clock.now + delay
        done = dict.fromkeys(ended, Settled.DELIVERED)
        settled = self.spool.settle(
            Settlement(model.leased, done, (), frozenset(doubted), due_at, None, route, counted)
        )
        self.spool._writer.flush()
        self.do(settled)
        if due_at is None:
            del self.mails[number]
            return
        model.pending = {a: doubts + (a in doubted) for a, doubts in model.pending.items() if a not in ended}
        model.attempts += counted
        model.due_at, model.route, model.leased = due_at, route or model.route, None

    @rule(route=ROUTES)
    def wake(self, route):
        self.do(self.spool.wake(route, self.clock.now))
        for mail in self.mails.values():
            if mail.route == route and not mail.leased:
                mail.due_at = min(mail.due_at, self.clock.now)

    @rule(old=ROUTES, new=ROUTES)
    def reroute(self, old, new):
        senders = {f"s@{route}": route for route in ("a.nl", "b.nl")}
        self.do(self.spool.reroute(lambda sender: new if senders[sender] == old else None))
        for mail in self.mails.values():
            if mail.home == old:
                mail.route = new

    @rule()
    def reopen(self):
        self.do(self.spool.close())
        self.spool = self.open()
        for mail in self.mails.values():
            mail.leased = None

    @invariant()
    def both_tell_the_same(self):
        backlog = {}
        for route in ("a.nl", "b.nl"):
            free = [mail for mail in self.mails.values() if mail.route == route and not mail.leased]
            due = min((mail.due_at for mail in free), default=None)
            assert self.do(self.spool.next_due(route)) == due
            if free:
                backlog[route] = Backlog(len(free), min(mail.received_at for mail in free), due)
        assert self.do(self.spool.backlog()) == backlog
        assert self.spool._shelves.octets == sum(len(mail.content) for mail in self.mails.values())


SpoolMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSpool = SpoolMachine.TestCase
