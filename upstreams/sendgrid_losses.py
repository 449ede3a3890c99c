"""What a mail loses on its way through SendGrid, as sentences about the mail at hand. Pure.

Must never quote a mail: header fields are named, their contents are not. From sendgrid.md 2 and 3.
"""

from __future__ import annotations

from typing import Final

from routing.headers import fields
from routing.mail import Outgoing
from upstreams.mime_parts import Unsayable
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
    return (_RETURN_PATH, built, *((f"Not carried: {', '.join(gone)}.",) if gone else ()))
