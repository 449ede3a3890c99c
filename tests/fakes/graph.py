"""A look-alike of Microsoft Graph: sendMail in MIME mode, and drafts with uploads (graph_drafts.py).

It checks each request and delivers as Exchange would.

It reads the mail with Python's email package, an independent reader, and delivers to everybody whom the header names.

    async with FakeGraph(entra, mailboxes={"info@initech.nl"}) as graph:
        graph.base_url                                  # for the settings
        graph.inboxes["jan@example.nl"]                 # mails as delivered: without Bcc
        graph.script.append(error(403, "ErrorAccessDenied", "..."))   # instead of the next answer to sendMail
    graph.steps["chunk"].append(Fault.CUT)   # the same for create, attach, session, chunk, send, delete
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
from tests.fakes.graph_drafts import Drafts, FakeDraft, Wrong, recipients_of, written
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
    """A mail that was answered with 202: who sent it, whom it reached, and the MIME as it was posted (of a `draft`: as
    it was delivered).
    """

    mailbox: str
    recipients: frozenset[str]
    content: bytes
    client_request_id: str
    request_id: str
    draft: FakeDraft | None = None


class FakeGraph:
    """Graph of one tenant. `mailboxes` are the addresses that exist (lower case); From must be the one that sends.

    `parallel` requests at one time for each mailbox are served, more are answered 429. `open` is awaited in each
    request: a cleared Event holds them. `most` is the highest number of requests seen at one time. Without `writes` the
    app lacks Mail.ReadWrite.
    """

    def __init__(
        self,
        entra: FakeEntra,
        mailboxes: set[str],
        *,
        tls: ssl.SSLContext | None = None,
        parallel: int = 4,
        writes: bool = True,
    ) -> None:
        self.mailboxes = mailboxes
        self.writes = writes
        self.scope: set[str] | None = None
        """The mailboxes that the app may send as; None: all."""
        self.script: deque[Response | Fault] = deque()
        self.steps: defaultdict[str, deque[Response | Fault]] = defaultdict(deque)
        self.done: list[str] = []
        """The steps with drafts that were carried out, in order."""
        self.sent: list[Sent] = []
        self.doubtful: list[Sent] = []
        """Delivered, but the scripted fault kept the answer back."""
        self.inboxes: defaultdict[str, list[bytes]] = defaultdict(list)
        self.calls = 0
        self.most = 0
        self.open = asyncio.Event()
        self.open.set()
        self.server = HttpServer(self._answer, tls)
        self.drafts = Drafts(tls, self._next_step)
        self._entra = entra
        self.parallel = parallel
        self._under_way: Counter[str] = Counter()

    async def __aenter__(self) -> FakeGraph:
        await self.server.__aenter__()
        await self.drafts.uploads.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.drafts.uploads.__aexit__(*problem)
        await self.server.__aexit__(*problem)

    @property
    def base_url(self) -> str:
        return f"{self.server.url}/v1.0"

    async def _answer(self, request: Request) -> Response | Fault:
        match = re.fullmatch(r"/v1\.0/users/([^/?]+)/(sendMail|messages(?:/[^?]*)?)", request.target)
        if not match:
            return error(404 if request.target != "/v1.0" else 200, "ResourceNotFound")
        mailbox = unquote(match[1]).lower()
        self.calls += 1
        self._under_way[mailbox] += 1
        self.most = max(self.most, self._under_way[mailbox])
        try:
            if self._under_way[mailbox] > self.parallel:
                text = "Application is over its MailboxConcurrency limit."
                return error(429, "ApplicationThrottled", text, {"Retry-After": "10"})
            await self.open.wait()
            if match[2] == "sendMail":
                return self._scripted(mailbox, request)
            return self._with_draft(mailbox, match[2].split("/")[1:], request)
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

    def _next_step(self, step: str) -> Response | Fault | None:
        return self.steps[step].popleft() if self.steps[step] else None

    def _with_draft(self, mailbox: str, path: list[str], request: Request) -> Response | Fault:
        """One request about drafts. A scripted Response comes instead of the work, a Fault after it."""
        step = {
            ("POST", ()): "create",
            ("DELETE", ()): "delete",
            ("POST", ("attachments",)): "attach",
            ("POST", ("attachments", "createUploadSession")): "session",
            ("POST", ("send",)): "send",
        }.get((request.method, tuple(path[1:])))
        if step is None or (step == "create") == bool(path):
            return error(405, "Request_BadRequest")
        scripted = self._next_step(step)
        if isinstance(scripted, Response):
            return scripted
        try:
            answer = self._unauthorised(request) or self._step(step, mailbox, path, request)
        except Wrong as wrong:
            return error(wrong.status, wrong.code, wrong.text)
        if scripted is not None and step == "send" and answer.status == 202:
            self.doubtful.append(self.sent.pop())
        return scripted or answer

    def _step(self, step: str, mailbox: str, path: list[str], request: Request) -> Response:
        if mailbox not in self.mailboxes:
            raise Wrong(404, "ErrorInvalidUser")
        if not self.writes and step != "send":
            raise Wrong(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
        draft = self.drafts.open.get(unquote(path[0])) if path else None
        if path and unquote(path[0]) in self.drafts.sent:
            self.drafts.problems.append(f"{step} of a mail that was sent: its id is immutable, so the copy is meant")
        if path and (draft is None or draft.mailbox != mailbox):
            raise Wrong(404, "ErrorItemNotFound")
        self.done.append(step)
        if draft is None:
            return self.drafts.create(mailbox, request)
        match step:
            case "attach":
                return self.drafts.attach(draft, request)
            case "session":
                return self.drafts.session(draft, request)
            case "delete":
                self.drafts.deleted.append(self.drafts.open.pop(draft.id))
                return Response(204)
        return self._send_draft(draft, request)

    def _send_draft(self, draft: FakeDraft, request: Request) -> Response:
        if request.body or request.headers.get("content-length") != "0":
            raise Wrong(400, "BadRequest", "send takes no body")
        sender = draft.message.get("from")
        if sender is not None and sender["emailAddress"]["address"].lower() != draft.mailbox:
            raise Wrong(403, "ErrorSendAsDenied")
        named = recipients_of(draft.message)
        if not named:
            raise Wrong(400, "ErrorInvalidRecipients")
        self.drafts.sent.add(draft.id)
        del self.drafts.open[draft.id]
        content, request_id = written(draft), str(uuid.uuid4())
        for address in named:
            self.inboxes[address].append(content)
        known = request.headers.get("client-request-id", "")
        self.sent.append(Sent(draft.mailbox, named, content, known, request_id, draft))
        return Response(202, {"request-id": request_id})

    def _unauthorised(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self._entra.knows(token, f"{self.server.url}/.default"):
            return error(401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid.")
        return None

    def _refusal(self, mailbox: str, request: Request) -> Response | None:
        """What Graph says against the request; None when it will send."""
        if request.method != "POST":
            return error(405, "Request_BadRequest")
        if refused := self._unauthorised(request):
            return refused
        if request.headers.get("content-type") != "text/plain":
            return error(400, "BadRequest", "Content-Type must be text/plain for MIME.")
        if len(request.body) > LIMIT:
            return error(413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.")
        if refused := self._closed(mailbox):
            return refused
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

    def _closed(self, mailbox: str) -> Response | None:
        if mailbox not in self.mailboxes:
            return error(404, "ErrorInvalidUser", "The requested user is invalid.")
        if self.scope is not None and mailbox not in self.scope:
            return error(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
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
