"""Microsoft Graph sendMail: the whole mail as base64 MIME in one request, sent by the customer's own mailbox.

Must never mail anybody outside the envelope (graph_message.py), nor take any answer but 202 for success.
"""

from __future__ import annotations

import base64
import logging
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, urlsplit

from config.fields import Duration, Fault, Settings, setting
from routing.events import emit
from routing.mail import NULL_SENDER, Outgoing
from routing.outcome import Outcome, Results, Stage, Word
from upstreams.base import Host, Kind, Upstream
from upstreams.entra import EntraApp, EntraTokens
from upstreams.graph_errors import TOO_LARGE, is_our_bug, outcome_of
from upstreams.graph_message import GraphMessage, can_be_named, graph_message
from upstreams.http_client import HttpClient, is_base_url

LOG: Final = logging.getLogger(__name__)
REQUEST_LIMIT: Final = 4 << 20
"""Octets of one request's body, base64 included: about 3 MiB of mail (microsoft-graph.md 4)."""
REQUEST_IDS: Final = uuid.UUID("7d9c5c6e-4a53-4f0e-9a55-2f6a1d7f5b21")
_MAILBOX: Final = re.compile(r"[^\s/\\@<>]+@[A-Za-z0-9.-]+|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSettings(EntraApp):
    mailbox: str | None = setting(
        default=None,
        doc="The mailbox that sends: its address or object id; default: the envelope sender, after `sender:`.",
        example="info@initech.nl",
    )
    base_url: str = setting(
        default="https://graph.microsoft.com/v1.0",
        doc="Where Graph is, with its version; a national cloud has its own.",
    )
    timeout: Duration = setting(default=Duration(60), doc="How long one request may take.", minimum=1)
    concurrency: int = setting(
        default=4, doc="Requests at one time; Graph takes 4 for each app and mailbox.", minimum=1
    )
    save_to_sent_items: bool | None = setting(
        default=None, doc="Not for this type: mail sent as MIME is always kept in Sent Items."
    )

    def faults(self) -> Iterator[Fault]:
        yield from EntraApp.faults(self)
        if self.mailbox is not None and not _MAILBOX.fullmatch(self.mailbox):
            yield Fault("mailbox", "is neither an address nor an object id", "write it like info@initech.nl")
        if self.save_to_sent_items is not None:
            yield Fault(
                "save_to_sent_items",
                "cannot be chosen: Graph always keeps a copy of a mail sent as MIME in Sent Items",
                "take the key out, and let the customer's retention policy empty that folder",
            )
        if not is_base_url(self.base_url):
            yield Fault("base_url", "is not an https address", "write it like https://graph.microsoft.com/v1.0")


class Graph(Upstream):
    """One app's way to Graph. Mail leaves as `mailbox`, or as its envelope sender."""

    def __init__(self, name: str, settings: GraphSettings) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self.recipients_limit = 500
        self._mailbox = settings.mailbox
        self._base = settings.base_url.rstrip("/")
        parts = urlsplit(self._base)
        self._scope = f"{parts.scheme}://{parts.netloc}/.default"
        # One client for both hosts, as each has a trust store in memory; a token and a probe may come on top.
        self._http = HttpClient(settings.timeout, settings.concurrency + 2)
        self._tokens = EntraTokens(settings, self._http)

    async def send(self, mail: Outgoing) -> Results:
        """Try once. All recipients share one outcome, but those whose address no header can say."""
        if mail.sender == NULL_SENDER:
            return dict.fromkeys(mail.recipients, _NULL_SENDER)
        named = tuple(recipient for recipient in mail.recipients if can_be_named(recipient))
        results = dict.fromkeys(mail.recipients, _UNSAYABLE)
        if named:
            results |= dict.fromkeys(named, await self._send(mail, graph_message(mail.content, named)))
        return results

    async def probe(self) -> Outcome:
        """A token, and any answer at all from Graph. No request is known that Mail.Send alone permits and that sends
        nothing, so whether the app may use the mailbox shows at the first mail.
        """
        token = await self._tokens.token(self._scope)
        if isinstance(token, Outcome):
            return token
        answer = await self._http.exchange("GET", self._base, {}, repeatable=True)
        if isinstance(answer, Outcome):
            return answer
        if answer.status >= 500:
            return outcome_of(answer, time.time(), token)
        hint = "Whether the app may send as the mailbox shows at the first mail."
        return Outcome(Word.SENT, "Entra gave a token and Graph answers", Stage.LOGIN, hint=hint)

    async def close(self) -> None:
        await self._tokens.close()
        await self._http.close()

    async def _send(self, mail: Outgoing, message: GraphMessage) -> Outcome:
        body = base64.b64encode(message.content)
        if len(body) > REQUEST_LIMIT:
            return _too_large(len(body))
        outcome = await self._post(mail, body)
        if outcome.code == 401 and outcome.stage is Stage.REQUEST:
            outcome = await self._post(mail, body)
        if is_our_bug(outcome):
            emit(LOG, "graph_request_wrong", logging.ERROR, upstream=self.name, id=mail.id, reply=outcome.reply)
        if message.left_out and outcome.word is Word.SENT:
            return replace(outcome, hint=_left_out(message.left_out))
        return outcome

    async def _post(self, mail: Outgoing, body: bytes) -> Outcome:
        """One request. A token that Graph refuses is forgotten, so that the next request has a new one."""
        token = await self._tokens.token(self._scope)
        if isinstance(token, Outcome):
            return token
        url = f"{self._base}/users/{quote(self._mailbox or mail.sender, safe='@')}/sendMail"
        answer = await self._http.exchange("POST", url, _headers(mail, token), body)
        if isinstance(answer, Outcome):
            return answer
        if answer.status == 401:
            self._tokens.forget(self._scope, token)
        return outcome_of(answer, time.time(), token)


_NULL_SENDER: Final = Outcome(
    Word.REJECT,
    "Graph cannot send from the null sender",
    Stage.PREPARE,
    hint='Bounces cannot leave by Graph: give the null sender a route of its own, {from: "<>", via: ...}.',
)
_UNSAYABLE: Final = Outcome(
    Word.REJECT,
    "this address cannot be written in the header of a mail",
    Stage.PREPARE,
    enhanced="5.1.3",
    hint="Graph takes recipients from the header, where this address does not fit: correct it, or use another route.",
)


def _too_large(length: int) -> Outcome:
    return Outcome(
        Word.REJECT,
        f"too large for one Graph request: {length} octets in base64, at most {REQUEST_LIMIT}",
        Stage.PREPARE,
        enhanced=TOO_LARGE,
        hint="Give the route a second upstream that takes large mail, such as smtp_oauth.",
    )


def _left_out(count: int) -> str:
    return f"To and Cc were sent without {count} address(es) that are not in the envelope: Graph would mail them too."


def _headers(mail: Outgoing, token: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}",
        "Content-Type": "text/plain",
        "client-request-id": str(uuid.uuid5(REQUEST_IDS, mail.id)),
    }


def _build(name: str, settings: Settings, _host: Host) -> Upstream:
    assert isinstance(settings, GraphSettings)  # noqa: S101 - Kind pairs the two
    return Graph(name, settings)


KIND: Final = Kind("graph", "Microsoft Graph sendMail with an Entra app of the customer.", GraphSettings, _build)
