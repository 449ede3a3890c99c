"""A mail over the size of one request, as Graph's JSON: a draft and its files (microsoft-graph.md 1 and 4). Pure.

Must never name anybody whom the header handed in does not name. What a draft cannot hold raises `Unsayable`, by name,
or is in the table of losses (graph_losses.py); nothing is dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from routing.addresses import Mailbox, write_address
from routing.encoded_words import decode, text_of
from routing.headers import Field
from upstreams.api_message import header_text, json_object, mailboxes_of
from upstreams.mime_content import Attachment, Content, content_of, octets_of
from upstreams.mime_parts import Unsayable, single_value, take_apart

UPLOAD_SIZE: Final = 3_000_000
"""Octets of a file from which on it is uploaded: "3 MB" on the page."""

HEADERS_LIMIT: Final = 5
"""Graph refuses a draft with more header fields of ours (InvalidInternetMessageHeaderCollection)."""

LIST_UNSUBSCRIBE: Final = "String 0x1045"
"""The property of a message that Exchange writes as List-Unsubscribe (microsoft-graph.md 3)."""

IMPORTANCES: Final = frozenset({"low", "normal", "high"})
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")


@dataclass(frozen=True, slots=True)
class DraftFile:
    """A file of the mail; `size` is in octets, decoded."""

    size: int
    attachment: Attachment

    def described(self) -> bytes:
        """The file as a fileAttachment in JSON, content and all."""
        described = {"@odata.type": "#microsoft.graph.fileAttachment", **_named(self.attachment)}
        described["contentType"] = self.attachment.media_type
        return json_object(described, b',"contentBytes":"%b"' % self.attachment.base64())

    def announced(self) -> bytes:
        """What an upload session wants to know of it."""
        item = {"attachmentType": "file", "size": self.size, **_named(self.attachment)}
        item["contentType"] = self.attachment.media_type
        return json_object({"AttachmentItem": item})

    def octets(self) -> bytes:
        """The file itself."""
        return octets_of(self.attachment.part)


@dataclass(frozen=True, slots=True)
class Draft:
    """`body` makes the draft, with the files that fit; `posts` are added one by one, `uploads` in pieces."""

    body: bytes = field(repr=False)
    posts: tuple[DraftFile, ...]
    uploads: tuple[DraftFile, ...]


def draft_of(content: bytes, limit: int) -> Draft:
    """The draft of a mail that `graph_message` made. `limit` is in octets, of one request. Raises Unsayable."""
    mail = take_apart(content)
    parts = content_of(mail)
    fields = {name: value for name, value in _message(mail.fields, parts) if value not in ("", [])}
    files = [DraftFile(len(octets_of(each.part)), each) for each in parts.attachments]
    if any(file.size == 0 for file in files):
        raise Unsayable("an empty file")
    room = limit - len(json_object(fields)) - len(',"attachments":[]')
    if room < 0:
        raise Unsayable("a text larger than one request")
    small = [file for file in files if file.size < UPLOAD_SIZE]
    inside: list[bytes] = []
    posts: list[DraftFile] = []
    for file in small:
        # About 4/3 of the size in base64; the exact length is known only once it is written.
        written = file.described() if file.size * 4 // 3 < room else b""
        if written and len(written) < room:
            inside.append(written)
            room -= len(written) + 1
        else:
            posts.append(file)
    more = b',"attachments":[%b]' % b",".join(inside) if inside else b""
    return Draft(json_object(fields, more), tuple(posts), tuple(file for file in files if file.size >= UPLOAD_SIZE))


def carried_headers(fields: Iterable[Field]) -> tuple[list[Field], list[Field]]:
    """The X- fields that a draft can hold, in the mail's order, and those that are one too many or say nothing."""
    named = [field for field in fields if field.name.lower().startswith("x-")]
    said = [field for field in named if header_text(field.value)]
    kept = said[:HEADERS_LIMIT]
    return kept, [field for field in named if field not in kept]


def message_id(fields: tuple[Field, ...]) -> str:
    """The mail's Message-ID where Graph can keep it, else "". Raises Unsayable when there are several."""
    written = text_of(single_value(fields, "Message-ID"))
    return written if _MESSAGE_ID.fullmatch(written) else ""


def importance(fields: tuple[Field, ...]) -> str:
    """`low`, `normal` or `high`; "" when the mail says none of these."""
    written = text_of(single_value(fields, "Importance")).lower()
    return written if written in IMPORTANCES else ""


def _message(fields: tuple[Field, ...], content: Content) -> Iterator[tuple[str, Any]]:
    """The members of Graph's message, in its words; those that are empty are left out by the caller."""
    senders = mailboxes_of(fields, "from")
    if len(senders) > 1:
        raise Unsayable(f"{len(senders)} addresses in From")
    yield "subject", decode(single_value(fields, "Subject"))
    yield "body", _text(content)
    yield "from", _recipient(senders[0]) if senders else ""
    yield "toRecipients", [_recipient(box) for box in mailboxes_of(fields, "to")]
    yield "ccRecipients", [_recipient(box) for box in mailboxes_of(fields, "cc")]
    yield "bccRecipients", [_recipient(box) for box in mailboxes_of(fields, "bcc")]
    yield "replyTo", [_recipient(box) for box in mailboxes_of(fields, "reply-to")]
    yield "internetMessageId", message_id(fields)
    yield "importance", importance(fields)
    kept, _ = carried_headers(fields)
    yield "internetMessageHeaders", [{"name": each.name, "value": header_text(each.value)} for each in kept]
    unsubscribe = header_text(single_value(fields, "List-Unsubscribe"))
    yield "singleValueExtendedProperties", [{"id": LIST_UNSUBSCRIBE, "value": unsubscribe}] if unsubscribe else []


def _text(content: Content) -> dict[str, str]:
    """HTML where there is one, else the plain text: a draft holds one version."""
    versions = {text.media_type: text.value for text in content.texts}
    other = [media_type for media_type in versions if media_type not in ("text/plain", "text/html")]
    if other:
        raise Unsayable(f"{other[0]} as a version of the text")
    if "text/html" in versions:
        return {"contentType": "HTML", "content": versions["text/html"]}
    return {"contentType": "Text", "content": versions.get("text/plain", "")}


def _recipient(box: Mailbox) -> dict[str, dict[str, str]]:
    address = {"address": text_of(write_address(box.address))}
    return {"emailAddress": address | ({"name": box.name} if box.name else {})}


def _named(attachment: Attachment) -> dict[str, Any]:
    named: dict[str, Any] = {
        "name": re.sub(r"[\x00-\x1f\x7f]+", "_", attachment.filename),
        "isInline": attachment.in_text,  # what is inline and not in the text would be shown nowhere
    }
    return named | ({"contentId": attachment.content_id} if attachment.content_id else {})
