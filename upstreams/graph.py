"""Microsoft Graph: the whole mail as base64 MIME in one request, sent by the customer's own mailbox.

What is too large for one request goes by a draft (graph_large.py) when ops say so. Must never mail anybody outside the
envelope (graph_message.py), nor take any answer but 202 for success.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

from config.fields import Duration, Fault, setting
from routing.events import emit
from routing.mail import NULL_SENDER, Outgoing
from routing.outcome import NO_FORM, TOO_LARGE, Hint, Outcome, Results, Stage, Who, Word
from upstreams import graph_losses
from upstreams.base import Host, Kind, Rehearsal, Upstream
from upstreams.entra import EntraApp
from upstreams.graph_client import GraphClient, GraphRequest
from upstreams.graph_draft import draft_of
from upstreams.graph_errors import is_our_bug, outcome_of
from upstreams.graph_large import LargeSend
from upstreams.graph_message import GraphMessage, can_be_named, graph_message
from upstreams.graph_rehearsal import rehearse_as
from upstreams.http_client import connects_to, is_base_url
from upstreams.microsoft import mailbox_traits
from upstreams.mime_parts import Unsayable
from upstreams.traits import Traits

LOG: Final = logging.getLogger(__name__)
REQUEST_LIMIT: Final = 4 << 20
"""Octets of one request's body, base64 included: about 3 MiB of mail (microsoft-graph.md 4)."""
_MAILBOX: Final = re.compile(r"[^\s/\\@<>]+@[A-Za-z0-9.-]+|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_CLOUDS: Final[Mapping[str, str]] = MappingProxyType({
    "graph.microsoft.com": "login.microsoftonline.com",
    "graph.microsoft.us": "login.microsoftonline.us",
    "dod-graph.microsoft.us": "login.microsoftonline.us",
    "microsoftgraph.chinacloudapi.cn": "login.chinacloudapi.cn",
})  # fmt: skip
"""Graph's host in each cloud -> where its tokens come from (microsoft-graph.md 8)."""


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
        default=4,
        doc="Mails at one time over all mailboxes; one mailbox never gets more than 4 requests at one time.",
        minimum=1,
    )
    large: Literal["next", "draft"] = setting(
        default="next",
        doc="A mail over 3 MB: `next` leaves it to the route's next upstream; `draft` sends it by a draft and uploads, "
        "for which the app needs Mail.ReadWrite.",
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
        else:
            yield from self._cloud_faults()

    def traits(self) -> Traits:
        """See `HasTraits.traits`."""
        return mailbox_traits(self.tenant, self.mailbox)

    def _cloud_faults(self) -> Iterator[Fault]:
        """A token of one cloud is refused by the Graph of another; none takes a path without its version."""
        graph = urlsplit(self.base_url)
        wanted = _CLOUDS.get((graph.hostname or "").lower())
        if wanted is not None and not graph.path.strip("/"):
            yield Fault("base_url", "does not say which version of Graph", f"write https://{graph.hostname}/v1.0")
        given = (urlsplit(self.authority).hostname or "").lower() if is_base_url(self.authority) else ""
        if wanted is not None and given in _CLOUDS.values() and given != wanted:
            yield Fault("authority", "is of another cloud than base_url", f"write https://{wanted}")


class Graph(Upstream):
    """One app's way to Graph. Mail leaves as `mailbox`, or as its envelope sender."""

    def __init__(self, name: str, settings: GraphSettings, host: Host) -> None:
        self.name = name
        self.concurrency = settings.concurrency
        self.recipients_limit = 500
        self.connects_to = connects_to(settings.timeout, settings.base_url, settings.authority)
        self._mailbox = settings.mailbox
        self._large = settings.large
        self._client = GraphClient(settings, settings.base_url, settings.timeout, settings.concurrency, host.trust)

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
        answer = await self._client.reach()
        if isinstance(answer, Outcome):
            return answer
        hint = Hint(
            Who.NOBODY,
            "Whether the app may send as the mailbox shows at the first mail.",
            "Of de app namens de mailbox mag versturen, blijkt bij de eerste mail.",
        )
        return Outcome(Word.SENT, "Entra gave a token and Graph answers", Stage.LOGIN, hint=hint)

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        """See `Upstream.rehearse`. Whether a mailbox that was made up exists says nothing, so then it is a probe."""
        if mail.invented and self._mailbox is None:
            return await self.probe()
        return await rehearse_as(self._client, self._mailbox or mail.sender)

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, mail: Outgoing, message: GraphMessage) -> Outcome:
        length = base64_length(len(message.content))
        outcome = _too_large(length) if length > REQUEST_LIMIT else await self._by_mime(mail, message.content)
        if outcome.enhanced == TOO_LARGE and self._large == "draft":
            outcome = await self._by_draft(mail, message.content)
        if is_our_bug(outcome):
            emit(LOG, "graph_request_wrong", logging.ERROR, upstream=self.name, id=mail.id, reply=outcome.reply)
        if message.left_out and outcome.word is Word.SENT:
            return replace(outcome, hint=_left_out(message.left_out))
        return outcome

    async def _by_mime(self, mail: Outgoing, content: bytes) -> Outcome:
        body, headers = base64.b64encode(content), {"Content-Type": "text/plain"}
        request = GraphRequest(self._sender(mail), mail.id, "POST", "sendMail", 202, body, headers, sends=True)
        answer = await self._client.ask(request)
        return answer if isinstance(answer, Outcome) else outcome_of(answer, time.time(), "")

    async def _by_draft(self, mail: Outgoing, content: bytes) -> Outcome:
        try:
            draft = await asyncio.to_thread(draft_of, content, REQUEST_LIMIT)
        except Unsayable as reason:
            return replace(_CANNOT_BE_A_DRAFT, reply=f"too large for one Graph request, and no draft holds: {reason}")
        return await LargeSend(self._client, self.name, self._sender(mail), mail.id).run(draft)

    def _sender(self, mail: Outgoing) -> str:
        return self._mailbox or mail.sender


def base64_length(octets: int) -> int:
    """How many octets so many are in base64, without line ends."""
    return (octets + 2) // 3 * 4


_NULL_SENDER: Final = Outcome(
    Word.REJECT,
    "Graph cannot send from the null sender",
    Stage.PREPARE,
    enhanced=NO_FORM,
    hint=Hint(
        Who.US,
        'Bounces cannot leave by Graph: give the null sender a route of its own, {from: "<>", via: ...}.',
        'Bounces kunnen niet via Graph weg: geef de lege afzender een eigen route, {from: "<>", via: ...}.',
    ),
)
_UNSAYABLE: Final = Outcome(
    Word.REJECT,
    "this address cannot be written in the header of a mail",
    Stage.PREPARE,
    enhanced=NO_FORM,
    hint=Hint(
        Who.CALLPRO,
        "Graph takes recipients from the header, where this address does not fit: correct it in "
        "CallPro, or use another route.",
        "Graph haalt de ontvangers uit de kopregels, waar dit adres niet in past: verbeter het in "
        "CallPro, of gebruik een andere route.",
    ),
)
_CANNOT_BE_A_DRAFT: Final = Outcome(
    Word.REJECT,
    "",
    Stage.PREPARE,
    enhanced=TOO_LARGE,
    hint=Hint(
        Who.US,
        "Give the route a second upstream that takes such mail whole, such as smtp_oauth.",
        "Geef de route een tweede upstream die zulke mail in zijn geheel aanneemt, zoals smtp_oauth.",
    ),
)


def _too_large(length: int) -> Outcome:
    return Outcome(
        Word.REJECT,
        f"too large for one Graph request: {length} octets in base64, at most {REQUEST_LIMIT}",
        Stage.PREPARE,
        enhanced=TOO_LARGE,
        hint=Hint(
            Who.US,
            "Give the route a second upstream that takes large mail, such as smtp_oauth, or set `large: draft`.",
            "Geef de route een tweede upstream die grote mail aanneemt, zoals smtp_oauth, of zet `large: draft`.",
        ),
    )


def _left_out(count: int) -> Hint:
    return Hint(
        Who.NOBODY,
        f"To and Cc were sent without {count} address(es) that are not in the envelope: Graph would mail them too.",
        f"To en Cc zijn verstuurd zonder {count} adres(sen) die niet in de envelop staan: Graph zou die ook mailen.",
    )


def losses(settings: GraphSettings, content: bytes) -> tuple[str, ...]:
    """See `Kind.losses`."""
    length = base64_length(len(content))
    if length <= REQUEST_LIMIT:
        return graph_losses.by_mime(content)
    if settings.large == "draft":
        return graph_losses.by_draft(content, REQUEST_LIMIT)
    return graph_losses.by_next(length, REQUEST_LIMIT)


KIND: Final = Kind("graph", GraphSettings, Graph, losses)
