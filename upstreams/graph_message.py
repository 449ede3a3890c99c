"""The mail as Graph must be handed it: its To, Cc and Bcc name the envelope's recipients and nobody else.

Graph has no envelope, it mails whoever the header names (microsoft-graph.md 2). So this file must never leave an
address in the header that is not a recipient of this attempt, nor a line that two readers could read differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from routing.addresses import Mailbox, addresses, write_address, write_mailbox
from routing.headers import Field, field_line, fields, split

_VISIBLE: Final = frozenset({"to", "cc"})
_REMOVED: Final = frozenset({"bcc", "resent-to", "resent-cc", "resent-bcc", "dkim-signature"})
_LONE_BREAK: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
_EMPTY_FOLD: Final = re.compile(rb"(?:\r\n[ \t]+)+(?=\r\n)")
_SAYABLE: Final = re.compile(
    rb"""(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*|"[ !#-\[\]-~]+")"""
    rb"@[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
)


@dataclass(frozen=True, slots=True)
class GraphMessage:
    """`content` is what to send. `left_out` counts the mailboxes of To and Cc that are not recipients now and were
    taken out, so that Graph cannot mail them.
    """

    content: bytes
    left_out: int


def can_be_named(recipient: str) -> bool:
    """False for an address that a header cannot say in ASCII: Graph would refuse the mail for all its recipients."""
    return _SAYABLE.fullmatch(write_address(recipient)) is not None and _same(recipient)


def graph_message(content: bytes, recipients: tuple[str, ...]) -> GraphMessage:
    """`content` with a header that names exactly `recipients` (each of which `can_be_named`).

    To and Cc keep their mailboxes that are recipients, with their names; who is in neither goes into one Bcc field,
    which Exchange takes out when it delivers. DKIM-Signature goes too: Exchange rebuilds the mail and its tenant signs.
    Fields are otherwise left as they are; lines that are no field are dropped, because readers disagree on them.
    """
    block, rest = split(content)
    block = _EMPTY_FOLD.sub(b"", _LONE_BREAK.sub(b" ", block))
    wanted = {key(recipient): write_address(recipient) for recipient in recipients}
    missing = dict(wanted)
    kept: list[bytes] = []
    left_out = 0
    for field in fields(block):
        name = field.name.lower()
        if name in _VISIBLE:
            named = addresses(field.value)
            kept.append(_field_of(field.name, [box for box in named if missing.pop(key(box.address), None)]))
            left_out += sum(key(box.address) not in wanted for box in named)
        elif name and name not in _REMOVED:
            kept.append(_whole_line(block, field))
    if missing:
        kept.insert(0, field_line("Bcc", b", ".join(missing.values())))
    return GraphMessage(b"".join(kept) + (rest or b"\r\n"), left_out)


def key(address: str) -> bytes:
    """What makes two addresses one recipient: case does not count, and both forms of a domain are equal."""
    return write_address(address).lower()


def _field_of(name: str, boxes: list[Mailbox]) -> bytes:
    """The field written anew, so that whatever a lenient reader could take for one more address is gone."""
    return field_line(name, b", ".join(map(write_mailbox, boxes))) if boxes else b""


def _whole_line(block: bytes, field: Field) -> bytes:
    line = block[field.start : field.end]
    return line if line.endswith(b"\r\n") else line + b"\r\n"


def _same(recipient: str) -> bool:
    """True when writing the address changed nothing but the form of its domain."""
    return write_address(recipient).rpartition(b"@")[0] == recipient.rpartition("@")[0].encode("utf-8", "replace")
