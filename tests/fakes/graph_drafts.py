"""The look-alike's drafts: what Graph does between `POST /messages` and `/send`, checked octet by octet.

It knows nothing of how the relay makes its JSON. A draft that is sent is written as a mail with Python's email package.
Uploads go to a server of their own, which refuses any request with a token in it, as its address is the token.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formataddr
from typing import Any

from tests.fakes.http_server import Fault, HttpServer, Request, Response

LIMIT = 4 << 20
SMALLEST_UPLOAD = 2_097_152
"""Real Graph refuses a session for less (ErrorAttachmentSizeShouldNotBeLessThanMinimumSize)."""
CHUNK_LIMIT = 4_000_000
MESSAGE_KEYS = {
    "subject", "body", "from", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "internetMessageId",
    "importance", "internetMessageHeaders", "singleValueExtendedProperties", "attachments",
}  # fmt: skip
FILE_KEYS = {"@odata.type", "name", "contentType", "contentBytes", "isInline", "contentId"}
ITEM_KEYS = {"attachmentType", "name", "size", "isInline", "contentId", "contentType"}


@dataclass(slots=True)
class File:
    """A file of a draft, whole."""

    name: str
    content: bytes = field(repr=False)
    content_type: str
    inline: bool
    content_id: str
    how: str
    """`inside`, `posted` or `uploaded`."""


@dataclass(slots=True)
class FakeDraft:
    """A draft as it stands. `message` is the JSON it was made of, without its files."""

    id: str
    mailbox: str
    message: dict[str, Any]
    files: list[File]


@dataclass(slots=True)
class _Session:
    draft: FakeDraft
    item: dict[str, Any]
    got: bytearray


class Wrong(Exception):
    """Graph's refusal: status, code and text."""

    def __init__(self, status: int, code: str, text: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.text = status, code, text


class Drafts:
    """The drafts of all mailboxes. `hosts_trouble` is asked before each PUT for something to do instead."""

    def __init__(self, tls: Any, scripted: Callable[[str], Response | Fault | None]) -> None:
        self.open: dict[str, FakeDraft] = {}
        self.deleted: list[FakeDraft] = []
        self.sent: set[str] = set()
        self.chunks: list[int] = []
        self.problems: list[str] = []
        self.uploads = HttpServer(self._put, tls)
        self._scripted = scripted
        self._sessions: dict[str, _Session] = {}

    def create(self, mailbox: str, request: Request) -> Response:
        if request.headers.get("prefer") != 'IdType="ImmutableId"':
            self.problems.append("a draft without an immutable id")
        message = _json(request)
        _only(message, MESSAGE_KEYS)
        files = [_file(each, "inside") for each in message.pop("attachments", [])]
        _check_message(message)
        draft = FakeDraft(f"AAkALg/+{secrets.token_urlsafe(12)}=", mailbox, message, files)
        self.open[draft.id] = draft
        said = {"@odata.context": "x", "id": draft.id, "isDraft": True, **message}
        return _answer(201, said)

    def attach(self, draft: FakeDraft, request: Request) -> Response:
        said = _json(request)
        draft.files.append(_file(said, "posted"))
        return _answer(201, {"id": "a"})

    def session(self, draft: FakeDraft, request: Request) -> Response:
        said = _json(request)
        _only(said, {"AttachmentItem"})
        item = said["AttachmentItem"]
        _only(item, ITEM_KEYS)
        if item["attachmentType"] != "file" or not item["name"] or not isinstance(item["size"], int):
            raise Wrong(400, "ErrorInvalidRequest", "AttachmentItem")
        if item["size"] < SMALLEST_UPLOAD:
            raise Wrong(400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
        token = secrets.token_urlsafe(20)
        self._sessions[token] = _Session(draft, item, bytearray())
        url = f"{self.uploads.url}/AttachmentSessions('{len(self._sessions)}')?authtoken={token}"
        return _answer(201, {"uploadUrl": url, "expirationDateTime": "x", "nextExpectedRanges": ["0-"]})

    async def _put(self, request: Request) -> Response | Fault:
        scripted = self._scripted("chunk")
        if scripted is not None:
            return scripted
        token = request.target.partition("?authtoken=")[2]
        session = self._sessions.get(token)
        if request.method != "PUT" or session is None:
            return Response(404)
        if "authorization" in request.headers:
            self.problems.append("the token went along with an upload")
            return Response(401)
        return self._take(session, request)

    def _take(self, session: _Session, request: Request) -> Response:
        """One range: whole, in order, and under 4 MB."""
        size = session.item["size"]
        said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", request.headers.get("content-range", ""))
        first, last, total = map(int, said.groups()) if said else (-1, -1, -1)
        whole = first == len(session.got) and last - first + 1 == len(request.body) and total == size and last < size
        if not whole or request.headers.get("content-type") != "application/octet-stream":
            self.problems.append(f"bad range: {request.headers.get('content-range')} of {size}")
            return Response(416)
        if len(request.body) >= CHUNK_LIMIT:
            return Response(413)
        session.got += request.body
        self.chunks.append(len(request.body))
        if len(session.got) < size:
            return _answer(200, {"expirationDateTime": "x", "nextExpectedRanges": [str(len(session.got))]})
        item = session.item
        session.draft.files.append(
            File(
                item["name"],
                bytes(session.got),
                item.get("contentType", ""),
                item.get("isInline", False),
                item.get("contentId", ""),
                "uploaded",
            )
        )
        return Response(201, {"Location": "https://outlook.example/Attachments('1')"})


def recipients_of(message: dict[str, Any]) -> frozenset[str]:
    """Everybody whom the draft names, lower case."""
    boxes = [box for name in ("toRecipients", "ccRecipients", "bccRecipients") for box in message.get(name, [])]
    return frozenset(box["emailAddress"]["address"].lower() for box in boxes)


def written(draft: FakeDraft) -> bytes:
    """The draft as Exchange would send it: a mail, without Bcc."""
    said, mail = draft.message, EmailMessage()
    for name, key in (("To", "toRecipients"), ("Cc", "ccRecipients"), ("Reply-To", "replyTo")):
        if said.get(key):
            mail[name] = ", ".join(map(_box, said[key]))
    mail["From"] = _box(said["from"]) if "from" in said else draft.mailbox
    mail["Subject"] = said.get("subject", "")
    if "internetMessageId" in said:
        mail["Message-ID"] = said["internetMessageId"]
    for each in said.get("internetMessageHeaders", []):
        mail[each["name"]] = each["value"]
    for each in said.get("singleValueExtendedProperties", []):
        mail["List-Unsubscribe"] = each["value"]
    mail.set_content(said["body"]["content"], subtype=said["body"]["contentType"].lower().replace("text", "plain"))
    for file in draft.files:
        main, _, sub = (file.content_type or "application/octet-stream").partition("/")
        main, sub = ("application", "octet-stream") if main in ("message", "multipart") else (main, sub)
        mail.add_attachment(file.content, maintype=main, subtype=sub, filename=file.name)
    return mail.as_bytes().replace(b"\n", b"\r\n")


def _box(recipient: dict[str, Any]) -> str:
    address = recipient["emailAddress"]
    return formataddr((address.get("name", ""), address["address"]))


def _json(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type") != "application/json":
        raise Wrong(400, "BadRequest", "Content-Type")
    if len(request.body) > LIMIT:
        raise Wrong(413, "RequestEntityTooLarge", "The maximum request length supported is 4MB.")
    try:
        said = json.loads(request.body)
    except ValueError:
        raise Wrong(400, "BadRequest", "no JSON") from None
    if not isinstance(said, dict):
        raise Wrong(400, "BadRequest", "no object")
    return said


def _only(said: dict[str, Any], keys: set[str]) -> None:
    if unknown := set(said) - keys:
        raise Wrong(400, "BadRequest", f"unknown: {sorted(unknown)}")


def _check_message(message: dict[str, Any]) -> None:
    body = message.get("body", {})
    if set(body) != {"contentType", "content"} or body["contentType"] not in ("Text", "HTML"):
        raise Wrong(400, "BadRequest", "body")
    for name in ("toRecipients", "ccRecipients", "bccRecipients", "replyTo"):
        for box in message.get(name, []):
            _check_box(box)
    if "from" in message:
        _check_box(message["from"])
    headers = message.get("internetMessageHeaders", [])
    if any(not re.fullmatch(r"[xX]-[!-9;-~]+", each["name"]) or not each["value"] for each in headers):
        raise Wrong(400, "InvalidInternetMessageHeader", "should start with 'x-' or 'X-'.")
    if len(headers) > 5 or ("internetMessageHeaders" in message and not headers):
        raise Wrong(400, "InvalidInternetMessageHeaderCollection")
    if message.get("importance", "normal") not in ("low", "normal", "high"):
        raise Wrong(400, "BadRequest", "importance")
    for each in message.get("singleValueExtendedProperties", []):
        if set(each) != {"id", "value"} or not re.fullmatch(r"String 0x[0-9a-f]{4}", each["id"]):
            raise Wrong(400, "BadRequest", "singleValueExtendedProperties")


def _check_box(box: Any) -> None:
    if set(box) != {"emailAddress"} or not set(box["emailAddress"]) <= {"name", "address"}:
        raise Wrong(400, "BadRequest", "recipient")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+|\"[^\"]*\"@[^@\s]+", box["emailAddress"]["address"]):
        raise Wrong(400, "ErrorInvalidRecipients", "At least one recipient is not valid.")


def _file(said: dict[str, Any], how: str) -> File:
    _only(said, FILE_KEYS)
    if said.get("@odata.type") != "#microsoft.graph.fileAttachment" or not said.get("name"):
        raise Wrong(400, "BadRequest", "attachment")
    content = base64.b64decode(said["contentBytes"], validate=True)
    inline = said.get("isInline", False)
    return File(said["name"], content, said.get("contentType", ""), inline, said.get("contentId", ""), how)


def _answer(status: int, said: dict[str, Any]) -> Response:
    return Response(status, {"Content-Type": "application/json"}, json.dumps(said).encode())
