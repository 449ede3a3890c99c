"""A mail as the JSON body of SendGrid's v3 mail/send (provider page sendgrid.md, section 2). Pure: no I/O, no clock.

Who gets the mail are exactly the recipients handed in; the header only says how they are shown. What the API cannot
carry raises `Unsayable`, by name; the few things it changes without harm are listed in docs/upstreams/sendgrid.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.addresses import Mailbox
from routing.encoded_words import decode
from routing.headers import Field
from routing.mail import Outgoing, domain_of
from upstreams.api_message import TooLarge, files_member, header_text, json_object, replies_of, sender_of, shown_to
from upstreams.mime_content import Attachment, Content, Text, content_of
from upstreams.mime_parts import Unsayable, single_value, take_apart

RECIPIENTS_LIMIT: Final = 1000
BODY_LIMIT: Final = 30 << 20
"""Octets of a whole request. Below this SendGrid judges by itself."""

TRACKING_OFF: Final[Mapping[str, Any]] = {
    "click_tracking": {"enable": False, "enable_text": False},
    "open_tracking": {"enable": False},
    "subscription_tracking": {"enable": False},
    "ganalytics": {"enable": False},
}

_SAID_ELSEWHERE: Final = frozenset({
    "from", "to", "cc", "bcc", "subject", "reply-to",
    "mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id",
    "content-description", "content-length", "content-md5",
})  # fmt: skip
NOT_CARRIED: Final = frozenset({
    "received", "return-path", "delivered-to", "dkim-signature", "domainkey-signature", "authentication-results",
    "arc-seal", "arc-message-signature", "arc-authentication-results", "received-spf", "resent-bcc",
    "x-sg-id", "x-sg-eid", "x-smtpapi",
})  # fmt: skip
"""Forbidden by SendGrid, or true only of the message as it was before it is built anew."""

_METHODS: Final = frozenset({"publish", "request", "reply", "add", "cancel", "refresh", "counter", "declinecounter"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request's body, and which recipient stands at which place (`personalizations.0.to.2`) in it."""

    body: bytes
    places: Mapping[str, str]


def prepare(mail: Outgoing, tracking: bool) -> Prepared:
    """The request for `mail`. Every recipient must have a `plain_address`. Raises Unsayable."""
    whole = take_apart(mail.content)
    content = content_of(whole)
    people = _personalizations(mail, whole.fields)
    fields: dict[str, Any] = {
        "personalizations": people,
        "from": _person(sender_of(whole.fields)),
        **_reply_to(whole.fields),
        "subject": decode(single_value(whole.fields, "Subject")) or "(no subject)",
        "content": list(_texts(content)),
        "headers": _headers(whole.fields),
        "categories": [category(mail.route)],
    }
    if not tracking:
        fields["tracking_settings"] = TRACKING_OFF
    files = files_member("attachments", "content", _files(content.attachments))
    body = json_object({name: value for name, value in fields.items() if value}, files)
    if len(body) > BODY_LIMIT:
        raise TooLarge(f"a request of {len(body) >> 20} MB (SendGrid's limit is 30 MB)")
    return Prepared(body, dict(_places(people)))


def category(route: str) -> str:
    """The route as a category: never a whole address, as categories are kept unredacted (provider page, section 3)."""
    return (domain_of(route) or route)[:255]


def _files(attachments: Iterable[Attachment]) -> Iterator[tuple[dict[str, str], bytes]]:
    for attachment in attachments:
        encoded = attachment.base64()
        if not encoded:
            raise Unsayable("an empty attachment")
        yield _described(attachment), encoded


def _described(attachment: Attachment) -> dict[str, str]:
    described = {
        "filename": re.sub(r"[;\x00-\x1f\x7f]+", "_", attachment.filename),
        "type": attachment.media_type,
        "disposition": "inline" if attachment.inline else "attachment",
    }
    return described | ({"content_id": attachment.content_id} if attachment.content_id else {})


def _texts(content: Content) -> Iterator[dict[str, str]]:
    """text/plain, text/html, then the rest. An empty text becomes one space, which reads the same: the API wants a
    character. Whether a space passes is not documented; if not, SendGrid refuses the mail as we would have had to.
    """
    order = {"text/plain": 0, "text/html": 1}
    for text in sorted(content.texts, key=lambda each: order.get(each.media_type, 2)):
        yield {"type": _text_type(text), "value": text.value or " "}
    if not content.texts:
        yield {"type": "text/plain", "value": " "}


def _text_type(text: Text) -> str:
    """An invitation is one only with its method beside the type (RFC 6047 2.4)."""
    method = text.parameters.get("method", "")
    named = text.media_type == "text/calendar" and method.lower() in _METHODS
    return f"{text.media_type}; method={method.upper()}" if named else text.media_type


def _reply_to(fields: tuple[Field, ...]) -> dict[str, Any]:
    people = [_person(mailbox) for mailbox in replies_of(fields)]
    return {"reply_to": people[0]} if len(people) == 1 else {"reply_to_list": people}


def _person(mailbox: Mailbox) -> dict[str, str]:
    """SendGrid reads `,` and `;` in a name as the end of an address and would mail someone else."""
    harmless = " ".join(re.sub(r"[,;]", " ", mailbox.name).split())
    return {"email": mailbox.address, "name": harmless} if harmless else {"email": mailbox.address}


def _personalizations(mail: Outgoing, fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """Who gets it. Those whom To and Cc name stay visible to one another, the others of the envelope are hidden. When
    no recipient is named, each gets a copy addressed to him alone.
    """
    shown = shown_to(fields, mail.recipients)
    hidden = [{"email": address} for address in shown.hidden]
    marked = {"custom_args": {"relay_id": mail.id}}
    if not shown.to:
        return [{"to": [person], **marked} for person in hidden]
    lists = {"to": [_person(each) for each in shown.to], "cc": [_person(each) for each in shown.cc], "bcc": hidden}
    return [{**{name: people for name, people in lists.items() if people}, **marked}]


def _places(people: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for number, personalization in enumerate(people):
        for name in ("to", "cc", "bcc"):
            for index, person in enumerate(personalization.get(name, ())):
                yield f"personalizations.{number}.{name}.{index}", person["email"].lower()


def _headers(fields: tuple[Field, ...]) -> dict[str, str]:
    """All other header fields, on one line, encoded words as they are. One of a name: the API has no room for more."""
    found: dict[str, tuple[str, str]] = {}
    for field in fields:
        key = field.name.lower()
        if key in _SAID_ELSEWHERE or key in NOT_CARRIED:
            continue
        text = header_text(field.value)
        if key in found and found[key][1] != text:
            raise Unsayable(f"several {field.name} fields")
        found[key] = (field.name, text)
    return dict(found.values())
