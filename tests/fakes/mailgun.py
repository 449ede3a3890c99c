"""A look-alike of Mailgun's messages.mime: checks the form by the documented rules, records who would get which mail.

It reads the form by itself and obeys what Mailgun obeys: an X-Mailgun-Drop-Message in the mail swallows it, variables
show in the mail unless suppressed. It must never accept what Mailgun is known to refuse (mailgun.md, section 2).

    async with FakeMailgun() as mailgun:
        ...                                    # base_url=mailgun.url, domain=mailgun.domain, api_key=mailgun.key
        mailgun.delivered                      # one Delivery for each recipient
        mailgun.script(Response(429))          # the next answer, instead of the usual
"""

from __future__ import annotations

import json
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from tests.fakes.http_look_alike import HttpLookAlike
from tests.fakes.http_server import Request, Response

MESSAGE_LIMIT = 25 << 20
_ADDRESS = re.compile(r"[^\s@<>(),:;\"\[\]\\]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_DISPOSITION = re.compile(rb'form-data; name="([^"]+)"(?:; filename="([^"]+)")?')
_YES_NO = {"yes", "no", "true", "false"}
_OPTIONS = {"o:tracking": _YES_NO | {"htmlonly"}, "o:dkim": _YES_NO, "o:require-tls": _YES_NO, "o:testmode": {"yes"}}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient's copy: the message as it was handed in, and the fields that Mailgun puts on top."""

    recipient: str
    message: bytes
    added: Mapping[str, str]
    variables: Mapping[str, str]
    options: Mapping[str, str]
    message_id: str


@dataclass(frozen=True, slots=True)
class FormPart:
    name: str
    filename: str
    content_type: str
    content: bytes


class Wrong(Exception):
    """A rule is broken: status and text as Mailgun would give them."""


class FakeMailgun(HttpLookAlike):
    """The server. `bad` are addresses it takes for none; `trouble` what it says of a domain that may not send."""

    def __init__(
        self,
        *,
        key: str = "look-alike-key",
        domain: str = "mg.callcenter.nl",
        bad: tuple[str, ...] = (),
        trouble: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self.http.success = 200
        self.key, self.domain, self.bad, self.trouble = key, domain, bad, trouble
        self.delivered: list[Delivery] = []
        self.swallowed: list[bytes] = []
        self.refused: list[str] = []

    @property
    def recipients(self) -> list[str]:
        return [delivery.recipient for delivery in self.delivered]

    def usual(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Basic " + b64encode(f"api:{self.key}".encode()).decode():
            return Response(401, {"Content-Type": "text/plain"}, b"Forbidden")
        if request.target != f"/v3/{self.domain}/messages.mime":
            return said(404, "Domain not found")
        if request.method != "POST":
            return said(405, "method not allowed")
        try:
            return self._accept(form_parts(request))
        except Wrong as wrong:
            self.refused.append(str(wrong.args[1]))
            return said(*wrong.args)

    def _accept(self, parts: list[FormPart]) -> Response:
        recipients, message, options = self._checked(parts)
        message_id = f"<look-alike.{len(self.requests)}@{self.domain}>"
        variables = {name[2:]: value for name, value in options.items() if name.startswith("v:")}
        added = {"X-Mailgun-Sid": "look-alike"}
        if variables and "X-Mailgun-Variables" not in options.get("o:suppress-headers", "").split(","):
            added["X-Mailgun-Variables"] = json.dumps(variables)
        header = message.partition(b"\r\n\r\n")[0]
        if options.get("o:testmode") or re.search(rb"^\s*x-mailgun-drop-message", header, re.IGNORECASE | re.MULTILINE):
            self.swallowed.append(message)
        else:
            for recipient in dict.fromkeys(recipients):
                self.delivered.append(Delivery(recipient, message, added, variables, options, message_id))
        return said(200, "Queued. Thank you.", id=message_id)

    def _checked(self, parts: list[FormPart]) -> tuple[list[str], bytes, dict[str, str]]:
        recipients = [part.content.decode("ascii", "replace") for part in parts if part.name == "to"]
        messages = [part for part in parts if part.name == "message"]
        options = _options([part for part in parts if part.name not in ("to", "message")])
        if not recipients:
            raise Wrong(400, "to parameter is missing")
        if len(messages) != 1 or not messages[0].filename:
            raise Wrong(400, "'message' parameter is not a file")
        if messages[0].content_type not in ("message/rfc822", "application/octet-stream"):
            raise Wrong(400, "look-alike: the message is of another type")
        if len(recipients) > 1000:
            raise Wrong(400, "look-alike: more than 1,000 recipients")
        if any(not _ADDRESS.fullmatch(each) or each in self.bad for each in recipients):
            raise Wrong(400, "to parameter is not a valid address. please check documentation")
        if len(messages[0].content) > MESSAGE_LIMIT:
            raise Wrong(413, "look-alike: the message is larger than 25 MB")
        if not re.search(rb"^from:", messages[0].content.partition(b"\r\n\r\n")[0], re.IGNORECASE | re.MULTILINE):
            raise Wrong(400, "from parameter is missing")
        if self.trouble:
            raise Wrong(400, f"Domain {self.domain} is not allowed to send: {self.trouble}")
        return recipients, messages[0].content, options


def _options(parts: list[FormPart]) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in parts:
        value = part.content.decode("utf-8")
        known = part.name in _OPTIONS or part.name == "o:suppress-headers" or part.name.startswith("v:")
        if not known or part.name in options or value not in _OPTIONS.get(part.name, {value}):
            raise Wrong(400, f"look-alike: {part.name} is not known, comes twice or has a value that it does not take")
        options[part.name] = value
    if sum(len(name) + len(value) for name, value in options.items()) > 16 * 1024:
        raise Wrong(400, "Send options (parameters starting with o:, h:, or v:) are limited to 16KB total")
    return options


def said(status: int, message: str, **more: str) -> Response:
    """An answer in Mailgun's shape."""
    return Response(status, {"Content-Type": "application/json"}, json.dumps({**more, "message": message}).encode())


def form_parts(request: Request) -> list[FormPart]:
    """The parts of a multipart/form-data body (RFC 7578), which must be framed to the letter. Raises Wrong."""
    named = re.fullmatch(
        r"multipart/form-data; boundary=([A-Za-z0-9'()+_,./:=?-]{1,70})", request.headers["content-type"]
    )
    if named is None:
        raise Wrong(400, "look-alike: no multipart/form-data")
    delimiter = b"\r\n--" + named[1].encode()
    first, *pieces = (b"\r\n" + request.body).split(delimiter)
    if first or not pieces or pieces.pop() != b"--\r\n":
        raise Wrong(400, "look-alike: the form is not framed well")
    return [_form_part(piece) for piece in pieces]


def _form_part(piece: bytes) -> FormPart:
    head, gap, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
    named = _DISPOSITION.fullmatch(lines.get(b"Content-Disposition", b""))
    if not piece.startswith(b"\r\n") or not gap or named is None:
        raise Wrong(400, "look-alike: a part without its name")
    return FormPart(
        named[1].decode(), (named[2] or b"").decode(), lines.get(b"Content-Type", b"text/plain").decode(), content
    )
