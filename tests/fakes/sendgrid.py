"""A look-alike of SendGrid's v3 API: checks a request by the documented rules and records who would get which mail.

It refuses what the API description lets through too: an address twice, HTML before text, an empty `to` (provider page
sendgrid.md, section 2). It must never accept what SendGrid is known to refuse.

    async with FakeSendGrid() as sendgrid:
        ...                                    # base_url=sendgrid.url, api_key=sendgrid.key
        sendgrid.delivered                     # one Delivery for each recipient
        sendgrid.script(Response(429))         # the next answer, instead of the usual
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.http_look_alike import HttpLookAlike
from tests.fakes.http_server import Request, Response

LIMIT = 30 << 20
_ADDRESS = re.compile(r"[^\s@<>(),:;\"\[\]\\]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_FORBIDDEN = {
    "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding", "to", "from",
    "subject", "reply-to", "cc", "bcc",
}  # fmt: skip
_FIELDS = {
    "personalizations", "from", "reply_to", "reply_to_list", "subject", "content", "attachments", "headers",
    "categories", "tracking_settings", "mail_settings",
}  # fmt: skip
_ONCE = (
    "Each email address in the personalization block should be unique between to, cc, and bcc. "
    "We found the first duplicate instance of [{}] in the {} field."
)
_ORDER = (
    "Following RFC 1341, section 7.2, if either text/html or text/plain are to be sent in your email: text/plain "
    "needs to be first, followed by text/html, followed by any other content."
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient's copy: `shown` is what its To and Cc say, `mail` the whole request as JSON."""

    recipient: str
    shown: tuple[tuple[str, str], ...]
    mail: dict[str, Any]
    custom_args: dict[str, str]
    message_id: str


class Wrong(Exception):
    """A rule is broken: message and field as SendGrid would give them."""


class FakeSendGrid(HttpLookAlike):
    """The server. `key` is the only key it knows; `scopes` what that key may do; `verified` the domains of From;
    `bad` are addresses it takes for none.
    """

    def __init__(
        self,
        *,
        key: str = "SG.look-alike.key",
        scopes: tuple[str, ...] = ("mail.send",),
        verified: tuple[str, ...] = (),
        bad: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.key, self.scopes, self.verified, self.bad = key, scopes, verified, bad
        self.delivered: list[Delivery] = []
        self.refused: list[str] = []

    @property
    def recipients(self) -> list[str]:
        return [delivery.recipient for delivery in self.delivered]

    def usual(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "The provided authorization grant is invalid, expired, or revoked")
        match request.method, request.target:
            case "GET", "/v3/scopes":
                return Response(200, {"Content-Type": "application/json"}, json.dumps({"scopes": self.scopes}).encode())
            case "POST", "/v3/mail/send":
                return self._mail(request)
            case _, "/v3/scopes" | "/v3/mail/send":
                return error(405, "method not allowed")
        return error(404, "not found")

    def _mail(self, request: Request) -> Response:
        if "mail.send" not in self.scopes:
            return error(403, "access forbidden")
        if len(request.body) > LIMIT:
            return error(413, "content too large")
        try:
            mail = checked(request)
            _all_good(mail, self.bad)
        except Wrong as wrong:
            self.refused.append(str(wrong.args[0]))
            return error(400, *wrong.args)
        if self.verified and mail["from"]["email"].rpartition("@")[2] not in self.verified:
            return error(403, "The from address does not match a verified Sender Identity.", "from")
        if mail.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"):
            return Response(200)
        message_id = f"look-alike-{len(self.requests):04}"
        self.delivered += deliveries(mail, message_id)
        return Response(202, {"X-Message-Id": message_id})


def error(status: int, message: str, field: str | None = None, **headers: str) -> Response:
    """An answer with one error, in SendGrid's shape."""
    body = {"errors": [{"message": message, "field": field, "help": None}]}
    return Response(status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode())


def deliveries(mail: dict[str, Any], message_id: str) -> Iterator[Delivery]:
    for each in mail["personalizations"]:
        shown = tuple((name, person["email"]) for name in ("to", "cc") for person in each.get(name, ()))
        for name in ("to", "cc", "bcc"):
            for person in each.get(name, ()):
                yield Delivery(person["email"], shown, mail, each.get("custom_args", {}), message_id)


def checked(request: Request) -> dict[str, Any]:
    """The mail, when every rule is kept. Raises Wrong(message, field)."""
    if request.headers.get("content-type") != "application/json":
        raise Wrong("Content-Type must be application/json", None)
    try:
        mail = json.loads(request.body, object_pairs_hook=_no_key_twice)
    except ValueError as broken:
        raise Wrong(f"Bad Request: {broken}", None) from None
    if unknown := set(mail) - _FIELDS:
        raise Wrong(f"look-alike: no such field {sorted(unknown)}", None)
    _people(mail)
    _person(mail.get("from"), "from")
    _replies(mail)
    if not isinstance(mail.get("subject"), str) or not mail["subject"]:
        raise Wrong("The subject is required.", "subject")
    _content(mail.get("content"))
    for number, attachment in enumerate(mail.get("attachments", ())):
        _attachment(attachment, f"attachments.{number}")
    _headers(mail.get("headers", {}))
    _categories(mail.get("categories", []))
    return mail


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key twice in one object")
    return dict(pairs)


def _people(mail: dict[str, Any]) -> None:
    people = mail.get("personalizations")
    if not isinstance(people, list) or not people:
        raise Wrong("You must have at least one personalization.", "personalizations")
    seen: set[str] = set()
    for number, each in enumerate(people):
        path = f"personalizations.{number}"
        if not each.get("to"):
            raise Wrong("The to array is required for all personalization objects.", f"{path}.to")
        if set(each) - {"to", "cc", "bcc", "custom_args"}:
            raise Wrong("look-alike: no such field", path)
        for name in ("to", "cc", "bcc"):
            if each.get(name) == []:
                raise Wrong(f"The {name} array, when used, must at least have an email", f"{path}.{name}")
            for index, person in enumerate(each.get(name, ())):
                _person(person, f"{path}.{name}.{index}")
                address = person["email"].lower()
                if address in seen:
                    raise Wrong(_ONCE.format(person["email"], f"{path}.{name}"), path)
                seen.add(address)
        _custom_args(each.get("custom_args", {}), path)
    if len(seen) > 1000 or len(people) > 1000:
        raise Wrong("There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations")


def _all_good(mail: dict[str, Any], bad: tuple[str, ...]) -> None:
    for index, personalization in enumerate(mail["personalizations"]):
        for name in ("to", "cc", "bcc"):
            for place, person in enumerate(personalization.get(name, ())):
                if person["email"] in bad:
                    field = f"personalizations.{index}.{name}.{place}.email"
                    raise Wrong("Does not contain a valid address.", field)


def _custom_args(arguments: Any, path: str) -> None:
    if not all(isinstance(value, str) for value in arguments.values()) or len(json.dumps(arguments)) > 10_000:
        raise Wrong("custom args must be strings, at most 10,000 bytes", f"{path}.custom_args")


def _person(person: Any, field: str) -> None:
    address = person.get("email") if isinstance(person, dict) else None
    if not isinstance(address, str) or not address.isascii() or not _ADDRESS.fullmatch(address):
        raise Wrong("Does not contain a valid address.", f"{field}.email")
    name = person.get("name", "name")
    if set(person) - {"email", "name"} or not isinstance(name, str) or re.search(r"[;,\r\n]", name):
        raise Wrong("The name cannot contain ';', ',' or CRLF.", f"{field}.name")


def _replies(mail: dict[str, Any]) -> None:
    several = mail.get("reply_to_list", [])
    if several and "reply_to" in mail:
        raise Wrong("reply_to and reply_to_list cannot be used together", "reply_to_list")
    for number, person in enumerate(several):
        _person(person, f"reply_to_list.{number}")
    if len({person["email"].lower() for person in several}) != len(several):
        raise Wrong("reply_to_list must be unique", "reply_to_list")
    if "reply_to" in mail:
        _person(mail["reply_to"], "reply_to")


def _content(content: Any) -> None:
    if not isinstance(content, list) or not content:
        raise Wrong("Unless a valid template_id is provided, the content parameter is required.", "content")
    for number, text in enumerate(content):
        if not isinstance(text.get("value"), str) or not text["value"]:
            raise Wrong("The content value must be a string at least one character in length.", f"content.{number}")
        if not re.fullmatch(r"text/[a-z0-9.+-]+(; method=[A-Z]+)?", text.get("type", "")):
            raise Wrong("The content type is not valid.", f"content.{number}.type")
    types = [text["type"].partition(";")[0] for text in content]
    order = [{"text/plain": 0, "text/html": 1}.get(name, 2) for name in types]
    if order != sorted(order) or any(types.count(name) > 1 for name in types):
        raise Wrong(_ORDER, "content")


def _attachment(attachment: dict[str, Any], field: str) -> None:
    for name in ("type", "filename"):
        if not attachment.get(name) or re.search(r"[;\r\n]", attachment[name]):
            raise Wrong(f"The {name} cannot be empty or contain ';' or CRLF.", f"{field}.{name}")
    if attachment.get("disposition") not in ("inline", "attachment"):
        raise Wrong("The disposition must be inline or attachment.", f"{field}.disposition")
    if set(attachment) - {"content", "type", "filename", "disposition", "content_id"}:
        raise Wrong("look-alike: no such field", field)
    if re.search(r"[<>\s]", attachment.get("content_id", "")):
        raise Wrong("The content_id cannot contain brackets or spaces.", f"{field}.content_id")
    try:
        octets = base64.b64decode(attachment.get("content", ""), validate=True)
    except (binascii.Error, ValueError):
        octets = b""
    if not octets:
        raise Wrong("The attachment content must be base64 encoded.", f"{field}.content")


def _headers(headers: dict[str, Any]) -> None:
    for name, value in headers.items():
        if name.lower() in _FORBIDDEN:
            raise Wrong("Header can not be one of the reserved keys.", f"headers.{name}")
        if not isinstance(value, str) or not value.isascii() or re.search(r"[\x00-\x1f]", value):
            raise Wrong("Header values must be strings without control characters.", f"headers.{name}")
    if len({name.lower() for name in headers}) != len(headers):
        raise Wrong("look-alike: a header twice", "headers")


def _categories(categories: list[str]) -> None:
    if len(categories) > 10 or len(set(categories)) != len(categories) or any(len(each) > 255 for each in categories):
        raise Wrong("At most 10 unique categories of 255 characters.", "categories")
