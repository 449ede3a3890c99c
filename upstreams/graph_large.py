"""A mail too large for one request: a draft, its files one after the other, and only then the order to send it.

Must never leave it open whether the mail is out when it is known, nor a draft behind where it can be helped. The steps
are those of microsoft-graph.md 4.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from routing.events import emit
from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.api_reply import member
from upstreams.graph_client import GraphClient, GraphRequest, nothing_sent
from upstreams.graph_draft import Draft, DraftFile
from upstreams.graph_errors import outcome_of
from upstreams.http_client import Reply

LOG: Final = logging.getLogger(__name__)
CHUNK: Final = 12 * 320 * 1024
"""Octets of one PUT: under 4 MB, and a multiple of 320 KiB as is the custom."""

DRAFT_REPLY: Final = 32 << 20
"""Graph answers with the draft it made, text and all, which JSON may write at six times its length."""

_JSON: Final = {"Content-Type": "application/json", "Prefer": 'IdType="ImmutableId"'}
_RIGHT: Final = Hint(
    Who.CUSTOMER,
    "The app may not write drafts: the customer's admin must grant Mail.ReadWrite "
    "(application) with admin consent, or we take `large: draft` out and give the route a "
    "second upstream. A change may take two hours.",
    "De app mag geen concepten maken: de beheerder van de klant moet Mail.ReadWrite "
    "(toepassing) met beheerderstoestemming verlenen, of wij halen `large: draft` weg en "
    "geven de route een tweede upstream. Een wijziging kan twee uur duren.",
)
_DOUBT: Final = Hint(
    Who.CUSTOMER,
    "If it was not sent, a draft of it stays in the mailbox: look into Drafts and Sent Items.",
    "Als hij niet is verstuurd, blijft er een concept in de mailbox staan: kijk in Concepten en in Verzonden items.",
)


class LargeSend:
    """One attempt at one large mail. Used once. `upstream` is the name ops gave, for the log."""

    def __init__(self, client: GraphClient, upstream: str, mailbox: str, mail_id: str) -> None:
        self._client = client
        self._upstream = upstream
        self._mailbox = mailbox
        self._mail_id = mail_id
        self._draft = ""
        self._may_be_sent = False

    async def run(self, draft: Draft) -> Outcome:
        """Make the draft, add its files, send it. A draft that is surely not sent is deleted, also when cancelled."""
        trouble = await self._create(draft.body)
        if trouble is not None:
            return trouble
        try:
            return await self._add_files(draft) or await self._hand_over()
        finally:
            if not self._may_be_sent:
                self._client.later(self._delete())

    async def _create(self, body: bytes) -> Outcome | None:
        answer = await self._ask("POST", "messages", 201, body, reply_limit=DRAFT_REPLY)
        if isinstance(answer, Outcome):
            lost = answer.stage is Stage.REQUEST and answer.code is None
            return (
                replace(
                    answer,
                    hint=Hint(
                        Who.CUSTOMER,
                        "A draft of it may be left in the mailbox: look into Drafts.",
                        "Er kan een concept van zijn blijven staan: kijk in Concepten van de mailbox.",
                    ),
                )
                if lost
                else answer
            )
        self._draft = _text(answer, "id")
        return None if self._draft else _strange(answer, "no id for the draft")

    async def _add_files(self, draft: Draft) -> Outcome | None:
        for file in draft.posts:
            answer = await self._ask("POST", self._path("attachments"), 201, await asyncio.to_thread(file.described))
            if isinstance(answer, Outcome):
                return answer
        for file in draft.uploads:
            trouble = await self._upload(file)
            if trouble is not None:
                return trouble
        return None

    async def _upload(self, file: DraftFile) -> Outcome | None:
        """One file in pieces, in order; each answer must expect the octet that comes next."""
        opened = await self._ask("POST", self._path("attachments/createUploadSession"), 201, file.announced())
        if isinstance(opened, Outcome):
            return opened
        url = _text(opened, "uploadUrl")
        answer, position = opened, 0
        content = memoryview(await asyncio.to_thread(file.octets))
        while position < file.size:
            if _expected(answer) != position:
                return _strange(answer, f"octet {position} of a file is not the one expected next")
            chunk = bytes(content[position : position + CHUNK])
            sent = await self._put(url, chunk, position, file.size)
            if isinstance(sent, Outcome):
                return sent
            answer, position = sent, position + len(chunk)
        return None

    async def _put(self, url: str, chunk: bytes, position: int, size: int) -> Reply | Outcome:
        """One piece. The last one is answered 201, the others 200; the address of the upload is in no outcome."""
        end = position + len(chunk)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"bytes {position}-{end - 1}/{size}"}
        try:
            answer = await self._client.put(self._mailbox, url, headers, chunk)
        except ValueError:
            return Outcome(Word.RETRY, "Graph named no https address to upload a file to", Stage.REQUEST)
        if isinstance(answer, Outcome):
            return _behind_the_draft(answer)
        if answer.status == (201 if end == size else 200):
            return answer
        outcome = nothing_sent(outcome_of(answer, time.time(), url))
        # The address alone says who we are: refused or not found means that this session is over, not that ops erred.
        return replace(outcome, word=Word.RETRY, hint=None) if outcome.word is Word.CONFIG else outcome

    async def _hand_over(self) -> Outcome:
        """The one request after which the mail may be out."""
        self._may_be_sent = True
        answer = await self._ask("POST", self._path("send"), 202, b"", sends=True)
        if isinstance(answer, Reply):
            return outcome_of(answer, time.time(), "")
        self._may_be_sent = answer.word is Word.UNKNOWN
        return replace(answer, hint=_DOUBT) if self._may_be_sent else answer

    async def _delete(self) -> None:
        """Best effort: what is left behind is in the log."""
        left = "the relay stopped"
        try:
            answer = await self._ask("DELETE", self._path(""), 204, b"")
            gone = isinstance(answer, Reply) or answer.code == 404
            left = "" if gone else str(answer)
        finally:
            if left:
                emit(LOG, "graph_draft_left", logging.WARNING, upstream=self._upstream, id=self._mail_id, why=left)

    def _path(self, rest: str) -> str:
        return f"messages/{quote(self._draft, safe='')}/{rest}".rstrip("/")

    async def _ask(self, method: str, path: str, success: int, body: bytes, **more: Any) -> Reply | Outcome:
        headers = _JSON if body else {"Prefer": _JSON["Prefer"]}
        request = GraphRequest(self._mailbox, self._mail_id, method, path, success, body, headers, **more)
        answer = await self._client.ask(request)
        if isinstance(answer, Outcome) and self._draft:
            answer = _behind_the_draft(answer)
        if isinstance(answer, Outcome) and answer.stage is Stage.REQUEST:
            if answer.enhanced == "ErrorAccessDenied" and not request.sends:
                return replace(answer, hint=_RIGHT)
            if answer.code == 404 and self._draft:
                return replace(answer, word=Word.RETRY, hint=None)  # the draft is gone, not the mailbox
        return answer


def _behind_the_draft(outcome: Outcome) -> Outcome:
    """A connection that fails once Graph has answered does not mean that Graph is out of reach."""
    unreached = outcome.word is Word.RETRY and outcome.stage in (Stage.CONNECT, Stage.TLS)
    return replace(outcome, stage=Stage.REQUEST) if unreached else outcome


def _text(reply: Reply, name: str) -> str:
    value = member(reply, name)
    return value if isinstance(value, str) else ""


def _expected(reply: Reply) -> int | None:
    """The octet at which the first of `nextExpectedRanges` begins (`"0-"`, `"2097152"`, `"0-99"`)."""
    ranges = member(reply, "nextExpectedRanges")
    first = str(ranges[0]).partition("-")[0] if isinstance(ranges, list) and ranges else ""
    return int(first) if first.isascii() and first.isdigit() and len(first) < 16 else None


def _strange(reply: Reply, what: str) -> Outcome:
    return Outcome(Word.RETRY, f"HTTP {reply.status}: {what}", Stage.REQUEST, reply.status)
