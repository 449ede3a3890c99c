"""Where a relay keeps what is its own on this machine: the socket for orders, and what it remembers between starts.

Beside the spool's file. A database may be everybody's, so there it is the state folder of the unit, under names that
hang on the config's path: no two relays of one machine may ever meet in the same file.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from spool.opening import is_shared
from spool.schema import path_of

STATE: Final = "/var/lib/callpro-relay"
"""The state folder of our unit. systemd tells the relay, but not the commands beside it."""


def state_folder() -> Path:
    """The first of those that systemd names."""
    return Path(os.environ.get("STATE_DIRECTORY", STATE).partition(":")[0])


def buffer_file(buffer: str, worker: int = 1) -> Path:
    """The file behind `spool.buffer`: `sqlite` is one in the state folder, `sqlite:////path` is that file. Of several
    workers the second has `buffer.worker-2.db` beside it, and so on. A relay that meets another one there does not
    start.
    """
    first = state_folder() / "buffer.db" if buffer == "sqlite" else path_of(buffer)
    return first if worker == 1 else first.with_name(f"{first.stem}.worker-{worker}{first.suffix}")


def buffer_files(buffer: str) -> dict[int, Path]:
    """Those that are there, by worker, also of workers that the config has no more. Raises OSError."""
    first = buffer_file(buffer)
    named = re.compile(re.escape(first.stem) + r"\.worker-([1-9][0-9]*)" + re.escape(first.suffix))
    beside = first.parent.iterdir() if first.parent.is_dir() else ()
    others = {int(found[1]): path for path in beside if (found := named.fullmatch(path.name))}
    return dict(sorted({**others, **({1: first} if first.exists() else {})}.items()))


def own_file(url: str, config: Path, suffix: str) -> Path:
    """The file with this suffix of the relay with that spool and that relay.yaml, the same for it and for commands.

    `config` is taken as it was written, made whole but with its links left alone: a folder of rules may be changed by
    turning a link to another one.
    """
    if is_shared(url):
        mark = hashlib.sha256(os.fsencode(config.absolute())).hexdigest()[:8]
        return state_folder() / f"relay-{mark}{suffix}"
    file = path_of(url)
    return file.with_name(file.name + suffix)


def where_nobody_answers(path: Path, url: str) -> str:
    """Words for people: no relay answers at the socket `path`."""
    elsewhere = "; one whose unit has another StateDirectory is asked with STATE_DIRECTORY set to it"
    return f"no relay of this config answers at {path}" + (elsewhere if is_shared(url) else "")
