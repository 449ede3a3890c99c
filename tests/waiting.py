"""Waiting in tests for what is to come: as long as a busy machine needs, and no longer.

A test must never count rounds or milliseconds until something "has to" have happened. What must not happen is another
matter: that is given a short time, in which the machine being slow can only make it less likely.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Callable
from typing import Any

LONG = 60.0
"""Seconds after which something will not come any more. Whatever is quick costs nothing of them."""


async def until(
    condition: Callable[[], Any], what: str = "what was waited for", *, seconds: float = LONG, every: float = 0.02
) -> Any:
    """Wait until it gives something true, and return that. It may be a coroutine function; `every` is in seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(every)


async def answers(port: int) -> bool:
    """Whether somebody listens on this machine."""
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False
