"""A mail as the JSON of Campaign Monitor's classic transactional send (campaign-monitor.md, section 1). Pure.

Who gets the mail are exactly the recipients handed in; the header only says how they are shown. What would look other
than CallPro made it raises `Unsayable`, by name; what else is lost is listed in docs/upstreams/campaign_monitor.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from routing.addresses import Mailbox
from routing.encoded_words import decode
from routing.headers import Field
from upstreams.api_message import Shown, TooLarge, files_member, json_object, replies_of, sender_of, shown_to
from upstreams.mime_content import Attachment, Content, content_of
from upstreams.mime_parts import Unsayable, single_value, take_apart

RECIPIENTS_LIMIT: Final = 25
"""Over To, CC and BCC together."""
BODY_LIMIT: Final = 10 << 20
"""Octets of a request. The provider's own limit is not documented."""

_UNTRACKED: Final[Mapping[str, Any]] = {
    "TrackOpens": False,
    "TrackClicks": False,
    "InlineCSS": False,
    "ConsentToTrack": "No",
}
_TEXTS: Final = {"text/plain": "Text", "text/html": "HTML"}
_NOT_IN_NAME: Final = re.compile(r'[,;:<>()\[\]"\\@\s]+')


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail taken apart once, for as many requests as it needs."""

    header: tuple[Field, ...] = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    files: bytes = field(repr=False)

    def shown(self, recipients: Iterable[str]) -> Shown:
        """Which of the recipients see which others."""
        return shown_to(self.header, recipients)

    def request(self, recipients: Iterable[str]) -> bytes:
        """The body of one request. Somebody must stand in To, so of recipients whom the mail does not name there must
        be just one: he does.
        """
        shown = self.shown(recipients)
        people = {
            "To": [_written(each) for each in shown.to] or [*shown.hidden],
            "CC": [_written(each) for each in shown.cc],
            "BCC": [*shown.hidden] if shown.to else [],
        }
        return json_object({**self.fields, **{name: found for name, found in people.items() if found}}, self.files)


def letter_of(content: bytes, group: str | None) -> Letter:
    """The mail, ready for its requests. Raises Unsayable."""
    whole = take_apart(content)
    found = content_of(whole)
    fields: dict[str, Any] = {
        "Subject": decode(single_value(whole.fields, "Subject")) or "(no subject)",
        "From": _written(sender_of(whole.fields)),
        **_reply_to(whole.fields),
        **_texts(found),
        **_UNTRACKED,
    }
    if group:
        fields["Group"] = group
    _refuse_pictures_in_text(found)
    files = files_member("Attachments", "Content", ((_described(each), each.base64()) for each in found.attachments))
    length = len(json_object(fields, files))
    if length > BODY_LIMIT:
        raise TooLarge(f"a request of {length >> 20} MB (no more than {BODY_LIMIT >> 20} MB is asked of it)")
    return Letter(whole.fields, fields, files)


def _texts(content: Content) -> dict[str, str]:
    """Text and HTML. A mail without either has one space of text: it reads the same."""
    texts: dict[str, str] = {}
    for text in content.texts:
        if text.media_type not in _TEXTS:
            raise Unsayable(f"{text.media_type} as a version of the text")
        texts[_TEXTS[text.media_type]] = text.value or " "
    return texts or {"Text": " "}


def _refuse_pictures_in_text(content: Content) -> None:
    """A file has no Content-ID there: a picture that the HTML shows in place would be a hole and a file below."""
    if any(each.in_text for each in content.attachments):
        raise Unsayable("a picture inside the text (Content-ID)")


def _reply_to(fields: tuple[Field, ...]) -> dict[str, str]:
    replies = replies_of(fields)
    if len(replies) > 1:
        raise Unsayable(f"{len(replies)} addresses in Reply-To")
    return {"ReplyTo": replies[0].address} if replies else {}


def _described(attachment: Attachment) -> dict[str, str]:
    return {"Name": re.sub(r"[\x00-\x1f\x7f]+", "_", attachment.filename), "Type": attachment.media_type}


def _written(mailbox: Mailbox) -> str:
    """`Name <address>`. How quotes are read there is not documented, so a name loses the signs that would need them:
    none of them may make another recipient.
    """
    name = "" if mailbox.name.lower() == mailbox.address.lower() else _NOT_IN_NAME.sub(" ", mailbox.name).strip()
    return f"{name} <{mailbox.address}>" if name else mailbox.address
