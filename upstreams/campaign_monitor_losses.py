"""What a mail would lose by Campaign Monitor, a sentence for each loss (docs/upstreams/campaign_monitor.md). Pure.

Names header fields, and must never quote what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from routing.headers import Field
from upstreams.api_message import FLOWED_LOST, mailboxes_of
from upstreams.campaign_monitor_body import letter_of
from upstreams.mime_content import Content, content_of
from upstreams.mime_parts import Unsayable, take_apart

_SAID_ELSEWHERE: Final = re.compile(r"(?:from|to|cc|bcc|subject|reply-to|mime-version|content-.*)", re.IGNORECASE)
_SIGNS: Final = re.compile(r'[,;:<>()\[\]"\\@]')


def losses_of(content: bytes) -> tuple[str, ...]:
    """One sentence for each thing that this mail (CRLF) loses; one alone when it is refused."""
    try:
        letter_of(content, None)
        whole = take_apart(content)
        return (*_of_header(whole.fields), *_of_content(content_of(whole)))
    except Unsayable as reason:
        return (f"Campaign Monitor's API cannot carry it, it would be refused: {reason}.",)


def _of_header(fields: tuple[Field, ...]) -> Iterator[str]:
    left_out = {field.name.lower(): field.name for field in fields if not _SAID_ELSEWHERE.fullmatch(field.name)}
    if left_out:
        yield f"These header fields are left out: {', '.join(left_out.values())}."
    people = [mailbox for name in ("from", "to", "cc") for mailbox in mailboxes_of(fields, name)]
    if any(_SIGNS.search(mailbox.name) for mailbox in people):
        yield "Punctuation in the names of people becomes spaces."
    if any(mailbox.name for mailbox in mailboxes_of(fields, "reply-to")):
        yield "The name in Reply-To is left out."


def _of_content(content: Content) -> Iterator[str]:
    if [text.media_type for text in content.texts] == ["text/html"]:
        yield "Campaign Monitor makes a plain version of the HTML and puts it beside it."
    if content.flows:
        yield FLOWED_LOST
    if any(attachment.inline for attachment in content.attachments):
        yield "Files that the mail shows in place become attachments."
