"""What a mail loses on its way through SendGrid, as sentences about the mail at hand. Pure.

Must never quote a mail: header fields are named, their contents are not. From sendgrid.md 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from routing.headers import fields
from routing.mail import Outgoing
from upstreams.api_message import FLOWED_LOST, mailboxes_of
from upstreams.mime_content import content_of
from upstreams.mime_parts import Unsayable, take_apart
from upstreams.sendgrid_body import NOT_CARRIED, prepare

_RETURN_PATH: Final = "Return-Path becomes an address of SendGrid's: bounces go there."
_ANYBODY: Final = "somebody@example.org"


def by_smtp(content: bytes) -> tuple[str, ...]:
    """What a mail loses that goes as it is."""
    if any(field.name.lower() == "x-smtpapi" for field in fields(content)):
        return (_RETURN_PATH, "X-SMTPAPI is taken out: it could add recipients.")
    return (_RETURN_PATH,)


def by_api(content: bytes) -> tuple[str, ...]:
    """What a mail loses that is taken apart for the API, or why it is refused."""
    try:
        prepare(Outgoing("", "", "", (_ANYBODY,), content), tracking=True)
    except Unsayable as reason:
        return (f"SendGrid's API cannot carry this mail: {reason}. It is refused; `method: smtp` carries it.",)
    gone = dict.fromkeys(field.name for field in fields(content) if field.name.lower() in NOT_CARRIED)
    built = "SendGrid builds the mail anew from text, HTML, pictures and files; all text becomes UTF-8."
    return (_RETURN_PATH, built, *((f"Not carried: {', '.join(gone)}.",) if gone else ()), *_small_changes(content))


def _small_changes(content: bytes) -> Iterator[str]:
    whole = take_apart(content)
    people = [mailbox for name in ("from", "reply-to", "to", "cc") for mailbox in mailboxes_of(whole.fields, name)]
    if any("," in mailbox.name or ";" in mailbox.name for mailbox in people):
        yield "`,` and `;` in the names of people become spaces."
    if content_of(whole).flows:
        yield FLOWED_LOST
