"""A look-alike of Campaign Monitor's classic transactional send: checks the JSON, records who would get and see what.

It reads addresses with Python's email package, as one that must not trust our writing. It must never accept what is
known to be refused: over 25 recipients, no To, no consent said (campaign-monitor.md, section 1).

    async with FakeCampaignMonitor() as monitor:
        ...                                    # base_url=monitor.base_url, client_id=monitor.client_id
        monitor.delivered                      # one Delivery for each recipient
        monitor.script(Response(429))          # the next answer, instead of the usual
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.http_look_alike import HttpLookAlike
from tests.fakes.http_server import Request, Response

_ADDRESS = re.compile(r"[^\s@<>(),:;\"\[\]\\]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_TYPES: dict[str, type | tuple[type, ...]] = {
    "Subject": str, "From": str, "ReplyTo": str, "To": (list, str), "CC": list, "BCC": list, "HTML": str, "Text": str,
    "Attachments": list, "TrackOpens": bool, "TrackClicks": bool, "InlineCSS": bool, "Group": str,
    "ConsentToTrack": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient's copy: `shown` is everybody its To and Cc name, `mail` the whole request."""

    recipient: str
    shown: tuple[str, ...]
    mail: dict[str, Any]
    message_id: str


class Wrong(Exception):
    """A rule is broken: status, code and message of the answer."""


class FakeCampaignMonitor(HttpLookAlike):
    """The server. `bad` are addresses it refuses a request for; `status` what it says of single recipients;
    `authenticated` the domains a From may have (all when empty).
    """

    def __init__(
        self,
        *,
        key: str = "look-alike-key",
        client_id: str = "4a397ccaaa55eb4e6aa1221e1e2d7122",
        bad: tuple[str, ...] = (),
        status: dict[str, str] | None = None,
        authenticated: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.key, self.client_id, self.bad = key, client_id, bad
        self.status, self.authenticated = status or {}, authenticated
        self.delivered: list[Delivery] = []
        self.refused: list[str] = []

    @property
    def base_url(self) -> str:
        return f"{self.url}/api/v3.3"

    @property
    def recipients(self) -> list[str]:
        return [delivery.recipient for delivery in self.delivered]

    def usual(self, request: Request) -> Response:
        if _user(request) != self.key:
            return error(401, 50, "Must supply a valid HTTP Basic Authorization header")
        target = urlsplit(request.target)
        if parse_qs(target.query).get("clientID") != [self.client_id]:
            return error(400, 900, "look-alike: a clientID is needed")
        match request.method, target.path:
            case "GET", "/api/v3.3/transactional/messages":
                return Response(200, {"Content-Type": "application/json"}, b"[]")
            case "POST", "/api/v3.3/transactional/classicEmail/send":
                return self._mail(request)
        return error(404, 404, "look-alike: no such resource")

    def _mail(self, request: Request) -> Response:
        try:
            mail = checked(request)
            self._people(mail)
        except Wrong as wrong:
            self.refused.append(str(wrong.args[2]))
            return error(*wrong.args)
        number = len(self.requests)
        entries = []
        for index, (name, address) in enumerate(people(mail, "To", "CC", "BCC")):
            status, message_id = self.status.get(address, "Received"), f"look-alike-{number}-{index}"
            shown = f'"{name}" <{address}>' if name else address
            entries.append({"Status": status, "Recipient": shown, "MessageID": message_id})
            if status == "Received":
                seen = tuple(each for _, each in people(mail, "To", "CC"))
                self.delivered.append(Delivery(address, seen, mail, message_id))
        return Response(202, {"Content-Type": "application/json"}, json.dumps(entries).encode())

    def _people(self, mail: dict[str, Any]) -> None:
        for _, address in people(mail, "To", "CC", "BCC"):
            if address in self.bad:
                raise Wrong(400, 1, f"Invalid Email Address {address}")
        domain = one(mail["From"], "From")[1].rpartition("@")[2]
        if self.authenticated and domain not in self.authenticated:
            raise Wrong(400, 994, "Your sending domain must match your authenticated domain.")


def _user(request: Request) -> str:
    """The user name of Basic authentication; any password will do."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    return base64.b64decode(encoded).decode().rpartition(":")[0] if scheme == "Basic" else ""


def error(status: int, code: int, message: str, **headers: str) -> Response:
    """An answer with one error, in Campaign Monitor's shape."""
    said = json.dumps({"Code": code, "Message": message}).encode()
    return Response(status, {"Content-Type": "application/json", **headers}, said)


def people(mail: dict[str, Any], *names: str) -> Iterator[tuple[str, str]]:
    """Name and address of everybody in those fields, in order."""
    for name in names:
        listed = mail.get(name) or []
        for text in [listed] if isinstance(listed, str) else listed:
            yield one(text, name)


def one(text: Any, where: str) -> tuple[str, str]:
    """The one mailbox of a text. Raises Wrong when it is not exactly one."""
    if not isinstance(text, str) or re.search(r"[\x00-\x1f\x7f]", text):
        raise Wrong(400, 1, f"look-alike: {where} holds no text on one line")
    found = getaddresses([text])
    if len(found) != 1 or not found[0][1].isascii() or not _ADDRESS.fullmatch(found[0][1]):
        raise Wrong(400, 1, f"look-alike: {where} holds no single address")
    return found[0]


def checked(request: Request) -> dict[str, Any]:
    """The mail, when every rule is kept. Raises Wrong."""
    if request.headers.get("content-type") != "application/json; charset=utf-8":
        raise Wrong(400, 2, "look-alike: not JSON")
    mail = json.loads(request.body, object_pairs_hook=_no_key_twice)
    for name, value in mail.items():
        if name not in _TYPES or not isinstance(value, _TYPES[name]) or (value in ("", []) and name != "Subject"):
            raise Wrong(400, 3, f"look-alike: {name} is no field, of another type, or empty")
    if not mail.get("Subject") or not (mail.get("HTML") or mail.get("Text")):
        raise Wrong(400, 3, "look-alike: Subject, and HTML or Text, are required")
    if mail.get("ConsentToTrack") not in ("Yes", "No", "Unchanged"):
        raise Wrong(400, 3, "look-alike: ConsentToTrack is required")
    one(mail.get("From"), "From")
    if "ReplyTo" in mail:
        one(mail["ReplyTo"], "ReplyTo")
    everybody = [address.lower() for _, address in people(mail, "To", "CC", "BCC")]
    if not mail.get("To") or len(everybody) > 25 or len(set(everybody)) != len(everybody):
        raise Wrong(400, 4, "look-alike: a To, at most 25 recipients, and nobody twice")
    for attachment in mail.get("Attachments", ()):
        _attachment(attachment)
    return dict(mail)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key.lower() for key, _ in pairs}) != len(pairs):
        raise Wrong(400, 2, "look-alike: a key twice in one object")
    return dict(pairs)


def _attachment(attachment: dict[str, Any]) -> None:
    if set(attachment) != {"Content", "Name", "Type"} or not attachment["Name"]:
        raise Wrong(400, 5, "look-alike: an attachment is Content, Name and Type")
    if re.search(r"[\x00-\x1f]", attachment["Name"]) or not re.fullmatch(r"[^\s/;]+/[^\s/;]+", attachment["Type"]):
        raise Wrong(400, 5, "look-alike: Name or Type of an attachment")
    try:
        base64.b64decode(attachment["Content"], validate=True)
    except (binascii.Error, ValueError):
        raise Wrong(400, 5, "look-alike: an attachment is not base64") from None
