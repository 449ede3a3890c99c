"""The relay under load from many clients, struck at random moments: `--rounds N`, or for `--minutes N`.

Killed, killed while it starts, killed between new rules and orders, stopped, told to reload, halted. Exit 0 when every
mail that got its 250 arrived, nothing arrived twice that was not under way at a kill, every stop ended with 0 and the
spool opened clean each time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.kill_rounds import KILLS, OTHERS, Tally, kill_rounds

_KILLS, _REST = 25, 10
"""Rounds with one relay and one spool: those with kills, and those in which nothing at all may arrive twice."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="so many kills, however long it takes; other strikes come on top")
    parser.add_argument("--minutes", type=float, help="as many rounds as go into this time; the default is 5 minutes")
    asked = parser.parse_args()
    kills = asked.rounds or 1_000_000
    until = time.monotonic() + 60 * (asked.minutes or (1_000_000 if asked.rounds else 5))
    whole = Tally()
    while kills > 0 and time.monotonic() < until:
        for strikes, rounds in ((KILLS, min(_KILLS, kills)), (OTHERS, _REST)):
            with tempfile.TemporaryDirectory() as folder:
                tally = asyncio.run(kill_rounds(Path(folder), rounds, until - time.monotonic(), strikes))
            print(tally, *tally.faults(), sep="\n  ", flush=True)
            whole += tally
        kills -= _KILLS
    print("in all:", whole, flush=True)
    return 1 if whole.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
