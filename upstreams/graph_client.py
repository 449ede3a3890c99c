"""Requests to Graph as one app: the token, a new one when it is refused, and no more at one time than a mailbox takes.

Must never send the token to any host but Graph's own, nor show it or an upload's address, which holds a token too.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

from config.fields import is_loopback
from routing.outcome import Outcome, Stage, Word
from upstreams.api_reply import json_object
from upstreams.entra import EntraApp, EntraTokens
from upstreams.graph_errors import outcome_of
from upstreams.http_client import REPLY_LIMIT, HttpClient, Reply
from upstreams.tls import Trust

MAILBOX_REQUESTS: Final = 4
"""Requests at one time for one mailbox (microsoft-graph.md 6); uploads are counted in, as the page leaves it open."""

REQUEST_IDS: Final = uuid.UUID("7d9c5c6e-4a53-4f0e-9a55-2f6a1d7f5b21")
CLOSING_SECONDS: Final = 5.0
_URL: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class GraphRequest:
    """One request for a mailbox. `path` is what follows `/users/{mailbox}/`, `success` the only status that is one.

    `sends` is True where the mail may be out afterwards; of other requests a lost answer means that nothing was sent.
    `mail_id` becomes the client-request-id: all requests for a mail carry the same, so that Microsoft can find them.
    """

    mailbox: str
    mail_id: str
    method: str
    path: str
    success: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    sends: bool = False
    reply_limit: int = REPLY_LIMIT


class GraphClient:
    """One app's connections. `connections` is how many at one time, over all hosts; `timeout` in seconds."""

    def __init__(self, app: EntraApp, base_url: str, timeout: float, connections: int, trust: Trust) -> None:
        self._base = base_url.rstrip("/")
        self._scope = scope_of(base_url)
        # One client for all hosts; a token, a probe and an upload's host may come on top.
        self._http = HttpClient(timeout, connections + 3, trust)
        self._tokens = EntraTokens(app, self._http)
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._later: set[asyncio.Task[None]] = set()

    async def ask(self, request: GraphRequest) -> Reply | Outcome:
        """The reply when it has the status of success, else the outcome. A refused token is replaced once."""
        answer = await self._ask_once(request)
        if isinstance(answer, Outcome) and (answer.code, answer.stage) == (401, Stage.REQUEST):
            answer = await self._ask_once(request)
        return answer

    async def put(self, mailbox: str, url: str, headers: Mapping[str, str], content: bytes) -> Reply | Outcome:
        """PUT to an address that Graph named, without a token. Any reply is returned as it is.

        Raises ValueError when the address is no https one (plain http only to this machine, when Graph is there too).
        """
        if not _may_upload_to(url, self._base):
            raise ValueError("not an https address")
        async with self._slot(mailbox):
            return await self._http.exchange("PUT", url, headers, content, repeatable=True)

    async def reach(self) -> Reply | Outcome:
        """A token, and any answer at all from Graph: what can be known without a mail."""
        token = await self._tokens.token(self._scope)
        if isinstance(token, Outcome):
            return token
        answer = await self._http.exchange("GET", self._base, {}, repeatable=True)
        if isinstance(answer, Outcome) or answer.status < 500:
            return answer
        return outcome_of(answer, time.time(), token)

    async def roles(self) -> tuple[str, ...] | Outcome:
        """What Entra wrote into the token as application permissions; none with RBAC for Applications alone."""
        token = await self._tokens.token(self._scope)
        return token if isinstance(token, Outcome) else roles_of(token)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside everything else; closing waits for it a few seconds."""
        task = asyncio.get_running_loop().create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def close(self) -> None:
        """Finish what was put off, then give up tokens and connections."""
        if self._later:
            _, unfinished = await asyncio.wait(self._later, timeout=CLOSING_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._tokens.close()
        await self._http.close()

    async def _ask_once(self, request: GraphRequest) -> Reply | Outcome:
        token = await self._tokens.token(self._scope)
        if isinstance(token, Outcome):
            return token
        url = f"{self._base}/users/{quote(request.mailbox, safe='@')}/{request.path}"
        headers = {
            **request.headers,
            "Authorization": f"Bearer {token}",
            "client-request-id": str(uuid.uuid5(REQUEST_IDS, request.mail_id)),
        }
        async with self._slot(request.mailbox):
            answer = await self._http.exchange(
                request.method,
                url,
                headers,
                request.body,
                repeatable=not request.sends,
                reply_limit=request.reply_limit,
            )
        if isinstance(answer, Outcome) or answer.status == request.success:
            return answer
        if answer.status == 401:
            self._tokens.forget(self._scope, token)
        outcome = outcome_of(answer, time.time(), token)
        return outcome if request.sends else nothing_sent(outcome)

    def _slot(self, mailbox: str) -> asyncio.Semaphore:
        """The mailbox's semaphore: the same for as long as somebody holds it or waits for it."""
        return self._slots.setdefault(mailbox.lower(), asyncio.Semaphore(MAILBOX_REQUESTS))


def nothing_sent(outcome: Outcome) -> Outcome:
    """The outcome of a request that sends no mail: whatever became of it, it can be tried again."""
    if outcome.word in (Word.UNKNOWN, Word.SENT):
        return replace(outcome, word=Word.RETRY, hint=None)
    return outcome


def scope_of(base_url: str) -> str:
    """The scope of a token for the Graph at `base_url`: its own host, in every cloud (microsoft-graph.md 8)."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    port = "" if parts.port in (None, 443) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}/.default"


def roles_of(token: str) -> tuple[str, ...]:
    """The `roles` claim of a JWT, unverified: for people to read, never to decide by."""
    try:
        part = token.split(".")[1]
        claims = json_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) or {}
    except (IndexError, ValueError):
        return ()
    roles = claims.get("roles")
    return tuple(str(role) for role in roles) if isinstance(roles, list) else ()


def _may_upload_to(url: str, base_url: str) -> bool:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.username is not None or parts.port == 0 or not _URL.fullmatch(url):
            return False
    except ValueError:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url) and is_loopback(base_url))
