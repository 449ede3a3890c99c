"""One relay per spool file: a lock beside it, held as long as the process lives, also through kill -9's aftermath.

It must never wait: a second relay is told who holds the spool.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from spool.contract import SpoolInUse, SpoolUnusable


class Ownership:
    """Holds `<spool>.lock`. The file stays; the lock on it goes with the process."""

    def __init__(self, path: Path) -> None:
        """Raises SpoolInUse when another process holds it, SpoolUnusable when it cannot be made."""
        lock = path.with_name(path.name + ".lock")
        try:
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise SpoolUnusable(f"the spool's folder {path.parent} does not exist; create it for the relay") from error
        except OSError as error:
            raise SpoolUnusable(f"{lock} cannot be written ({error.strerror}); give the folder to the relay") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise SpoolInUse(
                f"the spool {path} is in use by another relay (process {holder or 'unknown'}); stop that one first"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
