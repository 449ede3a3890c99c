"""kill -9 in the middle of the work, again and again: what was promised is there, and nothing is delivered twice
except what was under way at that moment."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from spool.contract import Settled, Settlement
from spool.sqlite import SqliteSpool

ROOT = Path(__file__).parents[2]
ROUNDS = 5


def run_and_kill(url: str, ledger: Path, seconds: float) -> None:
    starts = ledger.read_text().count("start") if ledger.exists() else 0
    child = subprocess.Popen([sys.executable, "-m", "tests.spool.crash_child", url, str(ledger)], cwd=ROOT)
    try:
        while not ledger.exists() or ledger.read_text().count("start") == starts:
            assert child.poll() is None, "the child did not start"
            time.sleep(0.01)
        time.sleep(seconds)
        assert child.poll() is None, "the child ended by itself"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def read(ledger: Path) -> list[tuple[str, int]]:
    """(word, number) in the order in which it happened; a line that the kill cut off is not a promise."""
    lines = (line for line in ledger.read_text().splitlines(keepends=True) if line.endswith("\n"))
    return [(word, int(number)) for word, number in map(str.split, lines)]


def numbers(said: list[tuple[str, int]], word: str) -> set[int]:
    return {number for what, number in said if what == word}


async def drain(url: str) -> dict[int, bytes]:
    """Everything that waits, settled now."""
    spool = await SqliteSpool.open(url, size_limit=1 << 30)
    found = {}
    while mails := await spool.lease("acme.nl", 100, time.time() + 3600):
        assert all([r.address for r in mail.recipients] == ["b@x.nl", "c@x.nl"] for mail in mails)
        found.update({mail.id: mail.content for mail in mails})
        dropped = dict.fromkeys(("b@x.nl", "c@x.nl"), Settled.DROPPED)
        await asyncio.gather(*(spool.settle(Settlement(mail, dropped)) for mail in mails))
    assert await spool.backlog() == {}
    await spool.close()
    return found


def test_nothing_promised_is_lost_by_kill_9(tmp_path):
    url, ledger = f"sqlite:///{tmp_path / 'spool.db'}", tmp_path / "ledger"
    chance = random.Random(7)
    for _ in range(ROUNDS):
        run_and_kill(url, ledger, 0.2 + chance.random() * 0.5)
    said, left = read(ledger), asyncio.run(drain(url))
    put, tried, done = (numbers(said, word) for word in ("put", "try", "done"))
    assert len(put) > 50
    assert len(done) > 10
    lost = put - tried - left.keys()
    assert not lost, "an acknowledged mail is gone before anybody tried to deliver it"
    again = done & left.keys()
    assert not again, "a mail recorded as delivered came back"
    assert all(content.startswith(b"%d\r\n" % number) for number, content in left.items())
    finished: set[int] = set()
    for word, number in said:
        assert word != "try" or number not in finished, "a mail was handed out after its settlement was on disk"
        if word == "done":
            finished.add(number)
