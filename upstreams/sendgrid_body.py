"""A mail as the JSON body of SendGrid's v3 mail/send (provider page sendgrid.md, section 2). Pure: no I/O, no clock.

Who gets the mail are exactly the recipients handed in; the header only says how they are shown. What the API cannot
carry raises `Unsayable`, by name; the few things it changes without harm are listed in docs/upstreams/sendgrid.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.addresses import Mailbox, addresses, write_address
from routing.encoded_words import decode, encode, text_of
from routing.headers import Field, unfold
from routing.mail import Outgoing, domain_of
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

_ADDRESS: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
    re.IGNORECASE,
)
_SAID_ELSEWHERE: Final = frozenset({
    "from", "to", "cc", "bcc", "subject", "reply-to",
    "mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id",
    "content-description", "content-length", "content-md5",
})  # fmt: skip
_NOT_CARRIED: Final = frozenset({
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


def plain_address(address: str) -> str | None:
    """The address as the API takes it (ASCII, domain as A-labels), or None when it cannot be said there."""
    written = text_of(write_address(address))
    return written if len(written) <= 320 and _ADDRESS.fullmatch(written) else None


def prepare(mail: Outgoing, tracking: bool) -> Prepared:
    """The request for `mail`. Every recipient must have a `plain_address`. Raises Unsayable."""
    whole = take_apart(mail.content)
    content = content_of(whole)
    people = _personalizations(mail, whole.fields)
    fields: dict[str, Any] = {
        "personalizations": people,
        "from": _sender(whole.fields),
        **_reply_to(whole.fields),
        "subject": decode(single_value(whole.fields, "Subject")) or "(no subject)",
        "content": list(_texts(content)),
        "headers": _headers(whole.fields),
        "categories": [category(mail.route)],
    }
    if not tracking:
        fields["tracking_settings"] = TRACKING_OFF
    body = _joined({name: value for name, value in fields.items() if value}, content.attachments)
    if len(body) > BODY_LIMIT:
        raise Unsayable(f"a request of {len(body) >> 20} MB (SendGrid's limit is 30 MB)")
    return Prepared(body, dict(_places(people)))


def category(route: str) -> str:
    """The route as a category: never a whole address, as categories are kept unredacted (provider page, section 3)."""
    return (domain_of(route) or route)[:255]


def _joined(fields: Mapping[str, Any], attachments: Iterable[Attachment]) -> bytes:
    """The JSON object. Attachments are put in as bytes: they are most of a large mail and need no escaping."""
    pieces = [_json(fields)[:-1]]
    for number, attachment in enumerate(attachments):
        encoded = attachment.base64()
        if not encoded:
            raise Unsayable("an empty attachment")
        pieces += [b',"attachments":[' if number == 0 else b",", _json(_described(attachment))[:-1]]
        pieces += [b',"content":"', encoded, b'"}']
    return b"".join([*pieces, b"]}" if len(pieces) > 1 else b"}"])


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


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


def _sender(fields: tuple[Field, ...]) -> dict[str, str]:
    senders = _mailboxes(fields, "from")
    if len(senders) != 1:
        raise Unsayable("no address in From" if not senders else f"{len(senders)} addresses in From")
    return _person(senders[0], "From")


def _reply_to(fields: tuple[Field, ...]) -> dict[str, Any]:
    seen: dict[str, dict[str, str]] = {}
    for mailbox in _mailboxes(fields, "reply-to"):
        person = _person(mailbox, "Reply-To")
        seen.setdefault(person["email"].lower(), person)
    people = list(seen.values())
    return {"reply_to": people[0]} if len(people) == 1 else {"reply_to_list": people}


def _mailboxes(fields: tuple[Field, ...], name: str) -> list[Mailbox]:
    return [mailbox for field in fields if field.name.lower() == name for mailbox in addresses(field.value)]


def _person(mailbox: Mailbox, where: str) -> dict[str, str]:
    address = plain_address(mailbox.address)
    if address is None:
        raise Unsayable(f"an address in {where} with signs that the API does not take")
    return _named(address, mailbox.name)


def _named(address: str, name: str) -> dict[str, str]:
    """SendGrid reads `,` and `;` in a name as the end of an address and would mail someone else."""
    harmless = " ".join(re.sub(r"[,;]", " ", name).split())
    return {"email": address, "name": harmless} if harmless else {"email": address}


def _personalizations(mail: Outgoing, fields: tuple[Field, ...]) -> list[dict[str, Any]]:
    """Who gets it. Those whom To and Cc name stay visible to one another, the others of the envelope are hidden. When
    no recipient is named, each gets a copy addressed to him alone.
    """
    wanted = {address.lower(): address for each in mail.recipients if (address := plain_address(each))}
    to = list(_shown(fields, "to", wanted))
    cc = list(_shown(fields, "cc", wanted))
    hidden = [{"email": address} for address in wanted.values()]
    marked = {"custom_args": {"relay_id": mail.id}}
    if not to and not cc:
        return [{"to": [person], **marked} for person in hidden]
    to, cc = (to, cc) if to else (cc, [])  # `to` must not be empty
    lists = {"to": to, "cc": cc, "bcc": hidden}
    return [{**{name: people for name, people in lists.items() if people}, **marked}]


def _shown(fields: tuple[Field, ...], name: str, wanted: dict[str, str]) -> Iterator[dict[str, str]]:
    """The recipients that a header field names, each taken out of `wanted`: nobody gets a second copy."""
    for mailbox in _mailboxes(fields, name):
        address = wanted.pop((plain_address(mailbox.address) or "").lower(), None)
        if address is not None:
            yield _named(address, mailbox.name)


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
        if key in _SAID_ELSEWHERE or key in _NOT_CARRIED:
            continue
        text = _header_text(field.value)
        if key in found and found[key][1] != text:
            raise Unsayable(f"several {field.name} fields")
        found[key] = (field.name, text)
    return dict(found.values())


def _header_text(value: bytes) -> str:
    raw = unfold(value).strip(b" \t\r\n")
    readable = raw if raw.isascii() else unfold(encode(text_of(raw)))
    return re.sub(r"[\x00-\x1f\x7f]+", " ", readable.decode("ascii"))
