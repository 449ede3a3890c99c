"""A node of an earlier version, told by lines of JSON what to do. Started with that version's code on PYTHONPATH; what
it uses must have been there at format 1.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from routing.outcome import Outcome, Stage, Word
from spool import postgres_schema
from spool.contract import Arrival, Attempt, Settled, Settlement, Toll
from spool.holding import Hold, Scope
from spool.postgres import PostgresSpool
from spool.postgres_view import PostgresView
from spool.view import Filter, GivenOrder, Spent, Volume


async def put(spool: PostgresSpool, route: str, count: int) -> list[int]:
    """New mails; their numbers."""
    numbers = []
    for _ in range(count):
        number, content = spool.next_id(), b"Message-ID: <1@acme.nl>\r\n\r\nDag\r\n"
        mail = Arrival(number, f"info@{route}", ("jan@example.nl",), content, route, time.time(), "127.0.0.1", "old")
        await spool.put(mail)
        numbers.append(number)
    return numbers


async def work(spool: PostgresSpool, route: str, sent: bool) -> list[int]:
    """Everything of the route that is due is delivered, or put off by an hour; the numbers."""
    done = []
    word, code = (Word.SENT, 250) if sent else (Word.RETRY, 451)
    for mail in await spool.lease(route, 1000, time.time()):
        results = {one.address: Outcome(word, f"{code} x", Stage.CONTENT, code) for one in mail.recipients}
        ended = dict.fromkeys(results, Settled.DELIVERED) if sent else {}
        attempts = (Attempt("up", time.time(), 0.1, results),)
        due = None if sent else time.time() + 3600
        await spool.settle(Settlement(mail, done=ended, attempts=attempts, due_at=due))
        done.append(mail.id)
    return done


async def everything_else(spool: PostgresSpool, url: str) -> int:
    """The rest of what a relay asks of its spool; how many mails are told of."""
    (number,) = await put(spool, "held.nl", 1)
    now = time.time()
    await spool.hold(Hold(Scope.ROUTE, "held.nl", now, "jan", "x"), None)
    assert await spool.lease("held.nl", 9, now) == []
    await spool.release((Scope.ROUTE, "held.nl"), now)
    tickets = await spool.admit([Toll("up", (9, 99, 999, 9999), 1)])
    assert isinstance(tickets, tuple)
    spool.passed(tickets, counted=True)
    await spool.spend([Spent("up", now, 1, 1)])
    await spool.tally([Volume(now, "held.nl", "held.nl", 1, 1, 0, 0)])
    await spool.record(GivenOrder(now, "jan", "hold", "route held.nl", "", 1, 0))
    await spool.hurry(Filter(route="held.nl"), None, now)
    await spool.wake("held.nl", now)
    await spool.probe()
    await spool.backlog()
    await spool.drop(Filter(ids=(number,)), "dropped", now)
    await spool.prune(now - 86400)
    view = PostgresView(url)
    try:
        assert view.show(number)
        assert view.orders(9)
        assert len(view.nodes()) >= 1
        assert view.spent(0)
        view.volumes((0.0, now + 10))
        view.slowest(0.0, 9)
        view.loads()
        list(view.failures(0.0))
        return view.count(Filter(settled=None))
    finally:
        view.close()


async def main(url: str) -> None:
    spool = await PostgresSpool.open(url, size_limit=1 << 30, lease=20.0)
    loop = asyncio.get_running_loop()
    answer({"version": postgres_schema.VERSION, "code": postgres_schema.__file__})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match json.loads(line):
            case ["put", route, count]:
                answer(await put(spool, route, count))
            case ["work", route, sent]:
                answer(await work(spool, route, sent))
            case ["everything else"]:
                answer(await everything_else(spool, url))
    await spool.close()


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
