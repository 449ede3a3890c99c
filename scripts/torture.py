"""Signals at random moments under load, for minutes: nothing that got its 250 may be lost.

Exit 0 when every mail arrived, duplicates only behind a SIGKILL, and every stop ended with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.journeys.kill_rounds import SIGNALS, Tally, kill_rounds

_ROUNDS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="default: 5")
    until = time.monotonic() + parser.parse_args().minutes * 60
    good = True
    kinds = ((signal.SIGTERM, signal.SIGHUP, signal.SIGSTOP), SIGNALS)
    number = 0
    while (left := until - time.monotonic()) > 0:
        kind = kinds[number % 2]
        with tempfile.TemporaryDirectory() as folder:
            tally = asyncio.run(kill_rounds(Path(folder), _ROUNDS, left, kind))
        print(tally, flush=True)
        good = good and sound(tally, killed=signal.SIGKILL in kind)
        number += 1
    return 0 if good else 1


def sound(tally: Tally, *, killed: bool) -> bool:
    """Nothing lost, nothing made up, nothing twice without a kill."""
    return not (tally.lost or tally.invented or tally.exit_codes - {0} or (tally.duplicates and not killed))


if __name__ == "__main__":
    sys.exit(main())
