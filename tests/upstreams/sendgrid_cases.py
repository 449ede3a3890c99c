"""The golden mails of tests/cases/sendgrid: NAME.eml (line ends are LF in the file) and what becomes of it, NAME.json.

`{"recipients": [...], "request": {...}}` for a mail that the API can carry, `{"recipients": [...], "refused": "..."}`
for one it cannot. After a wanted change, look at what `SENDGRID_CASES=write pytest ...` wrote before keeping it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.mail import Outgoing

FOLDER = Path(__file__).parents[1] / "cases" / "sendgrid"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    mail: Outgoing
    expected: dict[str, Any]

    @property
    def carried(self) -> bool:
        return "refused" not in self.expected

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.json"


def cases() -> Iterator[Case]:
    for file in sorted(FOLDER.glob("*.eml")):
        expected = json.loads(file.with_suffix(".json").read_text("utf-8"))
        content = file.read_bytes().replace(b"\n", b"\r\n")
        mail = Outgoing("01JQGOLDENCAS", "acme.nl", "anna@acme.nl", tuple(expected["recipients"]), content)
        yield Case(file.stem, mail, expected)
