"""A folder on this machine: nobody answers, so there is no step at which somebody could fall silent or hang up."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from routing.outcome import Word
from tests.conformance.case import Case, Documented, Place, Setting
from upstreams.base import Host, Upstream
from upstreams.maildir import KIND, MaildirSettings


class MaildirPlace(Place):
    """`box` is the Maildir."""

    def __init__(self, box: Path, upstream: Upstream) -> None:
        self.box, self.upstream = box, upstream

    def script(self, step: str, said: Any) -> None:
        """The folder is in a state in which the system answers so."""
        match said:
            case "Not a directory":
                self.box.write_text("a file in the way")
            case "Too many levels of symbolic links":
                self.box.symlink_to(self.box)

    def delivered(self) -> list[str]:
        files = sorted(self.box.glob("new/*"), key=lambda file: int(re.search(r"Q(\d+)", file.name)[1]))
        lines = [line for file in files for line in file.read_bytes().split(b"\r\n")]
        return [line.decode().partition(": ")[2] for line in lines if line.startswith(b"X-Envelope-To: ")]


@asynccontextmanager
async def place(setting: Setting) -> AsyncIterator[Place]:
    box = setting.folder / "box"
    upstream = KIND.build("here", MaildirSettings(path=box), Host("relay.example"))
    try:
        yield MaildirPlace(box, upstream)
    finally:
        await upstream.close()


CASES = (
    Case(
        name="maildir",
        open=place,
        limit=1000,
        replies=(
            Documented("Not a directory", "write", Word.CONFIG),
            Documented("Too many levels of symbolic links", "write", Word.CONFIG),
        ),
        steps=(),
        echoes={},
        refuses=False,
        remote=False,
    ),
)
