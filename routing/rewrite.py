"""Sending from another mailbox: MAIL FROM, From and Sender changed together, so that DMARC aligns (RFC 9989).

Must never leave two From fields, put an address into a display name, or send a bounce of a bounce.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config.rules import Sender
from routing.addresses import Mailbox, addresses, ascii_domain, clean_address, write_mailbox
from routing.headers import mailboxes, remove, set_field, split, values
from routing.mail import NULL_SENDER

_ADDRESS_IN_NAME: Final = re.compile(r"[\"'(<\[]*\S+[@\uff20\ufe6b]\S+")
_EMPTY_BRACKETS: Final = re.compile(r"[(<\[]\s*[)>\]]")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The mail as it leaves. `changes` names what changed, `MAIL FROM` or a field, in the order of the work."""

    sender: str
    content: bytes
    changes: tuple[str, ...]


def rewrite(envelope_sender: str, content: bytes, sender: Sender) -> Rewritten:
    """The mail as if `sender` had sent it. A null envelope sender stays null; doing it twice changes nothing more."""
    block, rest = split(content)
    ours = clean_address(sender.address)
    originals = mailboxes(block, "From") or _envelope_mailbox(envelope_sender)
    replaced = [mailbox for mailbox in originals if not _same(mailbox.address, ours)]
    first = originals[0].name if originals else ""
    steps: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        ("From", lambda old: _from(old, Mailbox(_friendly(sender.name or first), ours))),
        ("Sender", lambda old: remove(old, "Sender")),
        ("Reply-To", lambda old: _reply_to(old, sender.reply_to, replaced)),
        ("X-Original-From", lambda old: _original_from(old, replaced) if sender.original_from else old),
    )
    block, changes = _apply(block, steps)
    if changes and (unsigned := remove(block, "DKIM-Signature")) is not block:
        block, changes = unsigned, [*changes, "DKIM-Signature"]
    leaves_as = NULL_SENDER if envelope_sender == NULL_SENDER else ours
    if leaves_as != envelope_sender:
        changes = ["MAIL FROM", *changes]
    return Rewritten(
        leaves_as, block + rest if block != content[: len(content) - len(rest)] else content, tuple(changes)
    )


def _apply(block: bytes, steps: tuple[tuple[str, Callable[[bytes], bytes]], ...]) -> tuple[bytes, list[str]]:
    changes: list[str] = []
    for name, step in steps:
        changed = step(block)
        if changed != block:
            changes.append(name)
        block = changed
    return block, changes


def _envelope_mailbox(envelope_sender: str) -> tuple[Mailbox, ...]:
    return (Mailbox("", envelope_sender),) if "@" in envelope_sender else ()


def _from(block: bytes, mailbox: Mailbox) -> bytes:
    """Exactly one From. Bytes that say the same already stay as they are, folding and all."""
    found = values(block, "From")
    if len(found) == 1 and addresses(found[0]) == (mailbox,):
        return block
    return set_field(block, "From", write_mailbox(mailbox))


def _reply_to(block: bytes, policy: str, replaced: list[Mailbox]) -> bytes:
    if policy == "none":
        return remove(block, "Reply-To")
    if policy != "original":
        return _fixed(block, policy)
    if not replaced or mailboxes(block, "Reply-To"):
        return block
    return set_field(block, "Reply-To", _listed(replaced))


def _original_from(block: bytes, replaced: list[Mailbox]) -> bytes:
    """What was replaced now, in place of any such field that came in."""
    return set_field(block, "X-Original-From", _listed(replaced)) if replaced else block


def _listed(found: list[Mailbox]) -> bytes:
    return b", ".join(write_mailbox(mailbox) for mailbox in dict.fromkeys(found))


def _fixed(block: bytes, address: str) -> bytes:
    wanted = addresses(address.encode("utf-8", "replace"))[:1] or (Mailbox("", clean_address(address)),)
    found = values(block, "Reply-To")
    if len(found) == 1 and addresses(found[0]) == wanted:
        return block
    return set_field(block, "Reply-To", write_mailbox(wanted[0]))


def _friendly(name: str) -> str:
    """The name without any address in it: another domain's address beside ours looks like phishing."""
    without = " ".join(_EMPTY_BRACKETS.sub(" ", _ADDRESS_IN_NAME.sub(" ", name)).split())
    return without if without == name else without.strip(" ,;:|/-")


def _same(one: str, other: str) -> bool:
    """The same mailbox, letter case aside (in local parts too, as receivers do) and in any spelling of the domain."""
    return _canonical(one) == _canonical(other)


def _canonical(address: str) -> tuple[str, bytes]:
    local, _, domain = address.rpartition("@")
    return local.lower(), ascii_domain(domain.lower())
