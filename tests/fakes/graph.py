"""A look-alike of Microsoft Graph's sendMail in MIME mode: it checks each request and delivers as Exchange would.

It reads the mail with Python's email package, an independent reader, and delivers to everybody whom the header names.

    async with FakeGraph(entra, mailboxes={"info@initech.nl"}) as graph:
        graph.base_url                                  # for the settings
        graph.inboxes["jan@example.nl"]                 # mails as delivered: without Bcc
        graph.script.append(error(403, "ErrorAccessDenied", "..."))   # instead of the next answer to sendMail
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
import uuid
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from urllib.parse import unquote

from tests.fakes.entra import FakeEntra
from tests.fakes.http_server import Fault, HttpServer, Request, Response

LIMIT = 4 << 20
RECIPIENT_FIELDS = ("To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc")


def error(status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> Response:
    """An answer in the shape of Graph's errors."""
    inner = {"date": "2026-11-22T07:28:05", "request-id": str(uuid.uuid4())}
    said = {"error": {"code": code, "message": message, "innerError": inner}}
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(said).encode())


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail that was answered with 202: who sent it, whom it reached, and the MIME as it was posted."""

    mailbox: str
    recipients: frozenset[str]
    content: bytes
    client_request_id: str
    request_id: str


class FakeGraph:
    """Graph of one tenant. `mailboxes` are the addresses that exist (lower case); From must be the one that sends.

    `parallel` requests at one time for each mailbox are served, more are answered 429. `open` is awaited in each
    request: a cleared Event holds them. `most` is the highest number of requests seen at one time.
    """

    def __init__(
        self, entra: FakeEntra, mailboxes: set[str], *, tls: ssl.SSLContext | None = None, parallel: int = 4
    ) -> None:
        self.mailboxes = mailboxes
        self.script: deque[Response | Fault] = deque()
        self.sent: list[Sent] = []
        self.doubtful: list[Sent] = []
        """Delivered, but the scripted fault kept the answer back."""
        self.inboxes: defaultdict[str, list[bytes]] = defaultdict(list)
        self.calls = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        self.server = HttpServer(self._answer, tls)
        self._entra = entra
        self._parallel = parallel
        self._under_way: Counter[str] = Counter()

    async def __aenter__(self) -> FakeGraph:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.server.__aexit__(*problem)

    @property
    def base_url(self) -> str:
        return f"{self.server.url}/v1.0"

    async def _answer(self, request: Request) -> Response | Fault:
        match = re.fullmatch(r"/v1\.0/users/([^/?]+)/sendMail", request.target)
        if not match:
            return error(404 if request.target != "/v1.0" else 200, "ResourceNotFound")
        if request.method != "POST":
            return error(405, "Request_BadRequest")
        mailbox = unquote(match[1]).lower()
        self.calls += 1
        self._under_way[mailbox] += 1
        self.most = max(self.most, self._under_way[mailbox])
        try:
            if self._under_way[mailbox] > self._parallel:
                text = "Application is over its MailboxConcurrency limit."
                return error(429, "ApplicationThrottled", text, {"Retry-After": "10"})
            await self.open.wait()
            return self._scripted(mailbox, request)
        finally:
            self._under_way[mailbox] -= 1

    def _scripted(self, mailbox: str, request: Request) -> Response | Fault:
        scripted = self.script.popleft() if self.script else None
        if isinstance(scripted, Response):
            return scripted
        answer = self._refusal(mailbox, request) or self._deliver(mailbox, request)
        if scripted is not None and answer.status == 202:
            self.doubtful.append(self.sent.pop())
        return scripted or answer

    def _refusal(self, mailbox: str, request: Request) -> Response | None:
        """What Graph says against the request; None when it will send."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self._entra.knows(token, f"{self.server.url}/.default"):
            return error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        if request.headers.get("content-type") != "text/plain":
            return error(400, "BadRequest", "Content-Type must be text/plain for MIME.")
        if len(request.body) > LIMIT:
            return error(413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.")
        if mailbox not in self.mailboxes:
            return error(404, "ErrorInvalidUser", "The requested user is invalid.")
        try:
            mail = _parsed(base64.b64decode(request.body, validate=True))
        except binascii.Error:
            return error(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
        sender = mail["From"]
        if sender is not None and [box.addr_spec.lower() for box in sender.addresses] != [mailbox]:
            return error(403, "ErrorSendAsDenied", "The user account does not have the right to send mail on behalf.")
        try:
            named = named_in(mail)
        except ValueError:
            named = frozenset()
        if not named:
            return error(400, "ErrorInvalidRecipients", "At least one recipient is not valid.")
        return None

    def _deliver(self, mailbox: str, request: Request) -> Response:
        content = base64.b64decode(request.body)
        mail = _parsed(content)
        named = named_in(mail)
        for address in named:
            self.inboxes[address].append(_without_bcc(content))
        request_id = str(uuid.uuid4())
        self.sent.append(Sent(mailbox, named, content, request.headers.get("client-request-id", ""), request_id))
        return Response(202, {"request-id": request_id})


def _parsed(content: bytes) -> EmailMessage:
    mail = message_from_bytes(content, policy=policy.SMTP)
    assert isinstance(mail, EmailMessage)
    return mail


def _without_bcc(content: bytes) -> bytes:
    head, gap, body = content.partition(b"\r\n\r\n")
    return re.sub(rb"(?im)^bcc:.*\r\n(?:[ \t].*\r\n)*", b"", head + b"\r\n") + gap[2:] + body


def named_in(mail: EmailMessage) -> frozenset[str]:
    """Everybody whom the header names, lower case. Raises ValueError when an entry is no address."""
    found = set()
    for name in RECIPIENT_FIELDS:
        for field in mail.get_all(name, []):
            for box in field.addresses:
                if not box.username or not box.domain:
                    raise ValueError(f"{name} holds {str(box)!r}")
                found.add(box.addr_spec.lower())
    return frozenset(found)
