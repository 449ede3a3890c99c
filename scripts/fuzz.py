"""The long form of tests/fuzz: mutates the corpus for as long as it is told, and keeps whatever breaks a promise.

With atheris installed (`.venv/bin/pip install atheris`) one target is led by coverage: `--atheris TARGET`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS, TOKENS

CORPUS = Path(__file__).parents[1] / "tests" / "cases" / "fuzz"
SEEDS = Path(__file__).parents[1] / "tests" / "cases" / "mails"
_LARGEST = 20_000


def corpus(name: str) -> list[bytes]:
    """What is kept for a target, and the golden mails where a target takes mails."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    if name in ("repairs", "rewriting"):
        kept += [path.read_bytes() for path in sorted(SEEDS.glob("*.eml"))]
    return kept


def mutated(octets: bytes, name: str, others: list[bytes], random: Random) -> bytes:
    """Up to eight changes: pieces put in, cut out, doubled, flipped, or taken from another."""
    made = bytearray(octets)
    for _ in range(random.randint(1, 8)):
        at = random.randint(0, len(made))
        match random.randrange(6):
            case 0 | 1:
                made[at:at] = random.choice(TOKENS[name])
            case 2:
                del made[at : at + random.randint(1, 30)]
            case 3:
                made[at:at] = made[at : at + random.randint(1, 60)] * random.randint(1, 4)
            case 4 if made:
                made[at % len(made)] = random.choice(
                    (0, 9, 10, 13, 32, 34, 46, 60, 92, 128, 233, random.randrange(256))
                )
            case _:
                other = random.choice(others)
                start = random.randint(0, len(other))
                made[at:at] = other[start : start + random.randint(1, 200)]
    return bytes(made[:_LARGEST])


def keep(name: str, octets: bytes) -> Path:
    """Write a finding where the tests will replay it."""
    path = CORPUS / name / hashlib.sha256(octets).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(octets)
    return path


def fuzz(name: str, seconds: float, random: Random) -> int:
    """The number of findings, at most ten, after which a target is left."""
    seeds, found, tried, end = corpus(name) or [b""], 0, 0, time.monotonic() + seconds
    while time.monotonic() < end and found < 10:
        octets = mutated(random.choice(seeds), name, seeds, random)
        tried += 1
        try:
            TARGETS[name](octets)
        except Exception:
            found += 1
            print(f"{name}: {keep(name, octets)}")
            traceback.print_exc(limit=-2)
        else:
            if random.random() < 0.02:
                seeds.append(octets)
    print(f"{name}: {tried} tries, {found} findings", flush=True)
    return found


def led_by_coverage(name: str) -> None:
    """Run atheris on one target until it finds something or is stopped."""
    import atheris

    with tempfile.TemporaryDirectory() as folder:  # what is only interesting goes here, a finding to the corpus
        atheris.instrument_all()
        found = f"-artifact_prefix={CORPUS / name}/"
        atheris.Setup([sys.argv[0], folder, str(CORPUS / name), found, "-max_len=4000"], TARGETS[name])
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together; default 1")
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run")
    parser.add_argument("--atheris", choices=TARGETS, help="lead this one by coverage instead")
    parser.add_argument("targets", nargs="*", help="default: every target", metavar="TARGET")
    asked = parser.parse_args()
    if asked.atheris:
        led_by_coverage(asked.atheris)
        return 0
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    seed = asked.seed if asked.seed is not None else time.time_ns() % 1_000_000
    names = asked.targets or list(TARGETS)
    print(f"seed {seed}", flush=True)
    return 1 if sum(fuzz(name, asked.minutes * 60 / len(names), Random(f"{seed}{name}")) for name in names) else 0


if __name__ == "__main__":
    sys.exit(main())
