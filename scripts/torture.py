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

_BATCH = 25
"""Rounds with one relay and one spool; then they begin anew."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="as many rounds as this, however long they take")
    parser.add_argument("--minutes", type=float, help="as many rounds as go into this time; the default is 5 minutes")
    asked = parser.parse_args()
    rounds = asked.rounds or 1_000_000
    until = time.monotonic() + 60 * (asked.minutes or (1_000_000 if asked.rounds else 5))
    whole, number = Tally(), 0
    while whole.rounds.total() < rounds and (left := until - time.monotonic()) > 0:
        # Every second time without a kill: nothing at all may arrive twice.
        strikes = OTHERS if number % 2 else {**KILLS, **OTHERS}
        with tempfile.TemporaryDirectory() as folder:
            batch = min(_BATCH, rounds - whole.rounds.total())
            tally = asyncio.run(kill_rounds(Path(folder), batch, left, strikes))
        print(tally, *tally.faults(), sep="\n  ", flush=True)
        whole += tally
        number += 1
    print("in all:", whole, flush=True)
    return 1 if whole.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
