"""What APIs that take fields instead of a message share: who is shown to whom, who sends, JSON with files in it. Pure.

Must never name anybody but the recipients handed in, nor show a recipient that To and Cc do not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.addresses import Mailbox, addresses, clean_address, write_address
from routing.encoded_words import encode, text_of
from routing.headers import Field, unfold
from routing.outcome import NO_FORM, TOO_LARGE, Hint, Outcome, Results, Stage, Word
from upstreams.mime_parts import Unsayable

_ADDRESS: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
    re.IGNORECASE,
)

FLOWED_LOST: Final = "The plain text keeps its short lines: the API cannot say that they flow (RFC 3676)."


@dataclass(frozen=True, slots=True)
class Shown:
    """The recipients, each once and as `plain_address` writes it: in To, in Cc (with their names), or hidden."""

    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    hidden: tuple[str, ...]


def plain_address(address: str) -> str | None:
    """The address as an API takes it (ASCII, domain as A-labels), or None when it cannot be said there.

    A quoted local part is such: a list of addresses may be cut apart at the comma in it. So is one with signs that no
    address has: without them it could be somebody else's.
    """
    written = text_of(write_address(address))
    sayable = clean_address(address) == address and len(written) <= 320 and _ADDRESS.fullmatch(written)
    return written if sayable else None


class TooLarge(Unsayable):
    """The request would be over the provider's limit: another upstream may still take the mail."""


def cannot_carry(provider: str, reason: Unsayable, hint: Hint) -> Outcome:
    """The refusal of a mail that the API has no words for: the next upstream of the route may have them."""
    text = f"{provider}'s API cannot carry this mail: {reason}"
    status = TOO_LARGE if isinstance(reason, TooLarge) else NO_FORM
    return Outcome(Word.REJECT, text, Stage.PREPARE, enhanced=status, hint=hint)


def unsayable_addresses(recipients: Iterable[str], provider: str, hint: Hint) -> Results:
    """The refusal of every recipient that has no `plain_address`."""
    text = f"{provider}'s API cannot carry this address"
    refused = Outcome(Word.REJECT, text, Stage.PREPARE, enhanced=NO_FORM, hint=hint)
    return {each: refused for each in recipients if plain_address(each) is None}


def shown_to(fields: tuple[Field, ...], recipients: Iterable[str]) -> Shown:
    """Where each of the recipients stands. Those whom only Cc names move to To: APIs want somebody there."""
    wanted = {address.lower(): address for each in recipients if (address := plain_address(each))}
    to, cc = _named(fields, "to", wanted), _named(fields, "cc", wanted)
    return Shown(to, cc, tuple(wanted.values())) if to else Shown(cc, (), tuple(wanted.values()))


def _named(fields: tuple[Field, ...], name: str, wanted: dict[str, str]) -> tuple[Mailbox, ...]:
    """The recipients that a header field names, each taken out of `wanted`: nobody gets a second copy."""
    found: list[Mailbox] = []
    for mailbox in mailboxes_of(fields, name):
        address = wanted.pop((plain_address(mailbox.address) or "").lower(), None)
        if address is not None:
            found.append(Mailbox(mailbox.name, address))
    return tuple(found)


def sender_of(fields: tuple[Field, ...]) -> Mailbox:
    """The one mailbox of From. Raises Unsayable when there is none, or more than one."""
    senders = mailboxes_of(fields, "from")
    if len(senders) != 1:
        raise Unsayable("no address in From" if not senders else f"{len(senders)} addresses in From")
    return _plain(senders[0], "From")


def replies_of(fields: tuple[Field, ...]) -> tuple[Mailbox, ...]:
    """The mailboxes of Reply-To, each address once. Raises Unsayable for an address that cannot be said."""
    seen: dict[str, Mailbox] = {}
    for mailbox in mailboxes_of(fields, "reply-to"):
        plain = _plain(mailbox, "Reply-To")
        seen.setdefault(plain.address.lower(), plain)
    return tuple(seen.values())


def header_text(value: bytes) -> str:
    """A field's value on one line in ASCII; encoded words stay as they are."""
    raw = unfold(value).strip(b" \t\r\n")
    readable = raw if raw.isascii() else unfold(encode(text_of(raw)))
    return re.sub(r"[\x00-\x1f\x7f]+", " ", readable.decode("ascii")).strip()


def _plain(mailbox: Mailbox, where: str) -> Mailbox:
    address = plain_address(mailbox.address)
    if address is None:
        raise Unsayable(f"an address in {where} with signs that the API does not take")
    return Mailbox(mailbox.name, address)


def mailboxes_of(fields: tuple[Field, ...], name: str) -> list[Mailbox]:
    """The mailboxes of every field of that (lower-case) name, in order."""
    return [mailbox for field in fields if field.name.lower() == name for mailbox in addresses(field.value)]


def json_object(fields: Mapping[str, Any], more: bytes = b"") -> bytes:
    """The fields as a JSON object in ASCII; `more` is members made by `files_member`."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii")[:-1] + more + b"}"


def files_member(name: str, content: str, files: Iterable[tuple[Mapping[str, str], bytes]]) -> bytes:
    """`,"NAME":[...]`, each file (its description, its base64) as an object with the base64 as CONTENT; b"" without
    files. They are most of a large mail and need no escaping, so they are put in as bytes.
    """
    pieces: list[bytes] = []
    for described, base64 in files:
        encoded = b',"%b":"%b"' % (content.encode("ascii"), base64)
        pieces += [b"," if pieces else b',"%b":[' % name.encode("ascii"), json_object(described, encoded)]
    return b"".join([*pieces, b"]"]) if pieces else b""
