"""The kind `campaign_monitor`: Campaign Monitor's classic transactional send (campaign-monitor.md, section 1).

It has no raw MIME: mail is taken apart and built anew there. Must never ask twice for a recipient that may have been
served, show a hidden recipient to others, nor let the key out of the Authorization header.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from config.credentials import Secret
from config.fields import Duration, Fault, Mistake, Settings, setting
from routing.events import emit
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from upstreams.api_groups import Group, ask_in_groups
from upstreams.api_message import cannot_carry, unsayable_addresses
from upstreams.api_reply import basic, is_key
from upstreams.base import Host, Kind, Upstream
from upstreams.campaign_monitor_body import RECIPIENTS_LIMIT, Letter, letter_of
from upstreams.campaign_monitor_losses import losses_of
from upstreams.campaign_monitor_replies import NOT_RECEIVED, OUR_BUG, refusal, results_of
from upstreams.http_client import HttpClient, connects_to, is_base_url
from upstreams.mime_parts import Unsayable
from upstreams.tls import Trust
from upstreams.traits import CAMPAIGN_MONITOR, Traits

LOG: Final = logging.getLogger(__name__)
PASSWORD: Final = "x"  # noqa: S105 - the key is the user name; any password will do
_OTHER_WAY: Final = Hint(
    Who.US,
    "Give the route a second upstream that speaks SMTP: it carries every mail as it is.",
    "Geef de route een tweede upstream die SMTP spreekt: die brengt elke mail over zoals hij is.",
)


def _group(text: str) -> None:
    if not text.strip() or not text.isprintable():
        raise Mistake("is no name", "write one line of text, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignMonitorSettings(Settings):
    """`type: campaign_monitor`."""

    api_key: Secret = setting(doc="An API key, of the account or of the client, by reference.", example="systemd:cm")
    client_id: str | None = setting(
        default=None,
        doc="The client that sends; needed unless the key is that client's own.",
        example="4a397ccaaa55eb4e",
    )
    group: str | None = setting(
        default=None, doc="The group its reports show this mail under.", example="CallPro", check=_group
    )
    base_url: str = setting(
        default="https://api.createsend.com/api/v3.3",
        doc="Where the API is, with its version; what stands before /transactional.",
    )
    timeout: Duration = setting(default=Duration(60), doc="How long one request may take.", minimum=0.05)
    connections: int = setting(default=5, doc="Most connections at one time.", minimum=1, maximum=100)

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if not is_key(self.api_key):
            yield Fault("api_key", "does not look like an API key", "give the key alone: one word")
        if self.client_id is not None and not re.fullmatch("[A-Za-z0-9-]+", self.client_id):
            yield Fault("client_id", "is no client id", "copy it from the client's settings: letters and digits")
        if not is_base_url(self.base_url):
            yield Fault("base_url", "is no HTTPS address", "write one such as https://api.createsend.com/api/v3.3")

    def traits(self) -> Traits:
        """See `HasTraits.traits`: the return path is always theirs."""
        return CAMPAIGN_MONITOR


class CampaignMonitor(Upstream):
    """One client's way to Campaign Monitor."""

    def __init__(self, name: str, settings: CampaignMonitorSettings, trust: Trust) -> None:
        self.name = name
        self.concurrency = settings.connections
        self.recipients_limit = RECIPIENTS_LIMIT
        self.connects_to = connects_to(settings.timeout, settings.base_url)
        self._base = settings.base_url.rstrip("/") + "/transactional"
        self._client_id = settings.client_id
        self._group = settings.group
        self._key = settings.api_key
        self._client = HttpClient(settings.timeout, settings.connections, trust)

    async def send(self, mail: Outgoing) -> Results:
        """One request for those whom To and Cc name and those hidden behind them; one for each recipient when none is
        named, so that nobody is shown to another. Refused ones are asked for again by halves (`api_groups`).
        """
        results = unsayable_addresses(
            mail.recipients,
            "Campaign Monitor",
            Hint(
                Who.CALLPRO,
                "Correct the address in CallPro.",
                "Verbeter het adres in CallPro.",
            ),
        )
        wanted = tuple(each for each in mail.recipients if each not in results)
        if not wanted:
            return results
        try:
            letter = await asyncio.to_thread(letter_of, mail.content, self._group)
        except Unsayable as reason:
            return results | dict.fromkeys(wanted, cannot_carry("Campaign Monitor", reason, _OTHER_WAY))

        async def ask(group: Group) -> Results:
            return await self._ask(letter.request(group), group)

        answered = await ask_in_groups(wanted, ask, _one_is_bad, lambda group: _apart(letter, group))
        self._alert(mail.id, answered)
        return results | answered

    async def probe(self) -> Outcome:
        """Ask for the list of messages, which sends nothing: SENT when it is given."""
        url = self._url("messages", status="all")
        reply = await self._client.exchange("GET", url, self._headers(), repeatable=True)
        if isinstance(reply, Outcome):
            return reply
        if reply.status == 200 and reply.body.lstrip().startswith(b"["):
            return Outcome(Word.SENT, "the key may see this client's messages", Stage.LOGIN, 200)
        return refusal(reply, time.time(), *self._secrets())

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, body: bytes, group: Group) -> Results:
        headers = {**self._headers(), "Content-Type": "application/json; charset=utf-8"}
        reply = await self._client.exchange("POST", self._url("classicEmail/send"), headers, body)
        if isinstance(reply, Outcome):
            return dict.fromkeys(group, reply)
        return results_of(reply, group, time.time(), *self._secrets())

    def _alert(self, relay_id: str, answered: Results) -> None:
        """What the documentation does not explain goes to the log, once for each answer."""
        for outcome in set(answered.values()):
            if outcome.hint in (OUR_BUG, NOT_RECEIVED):
                said = {"upstream": self.name, "id": relay_id, "reply": outcome.reply}
                emit(LOG, "campaign_monitor_refused", logging.ERROR, **said)

    def _url(self, path: str, **query: str) -> str:
        if self._client_id:
            query["clientID"] = self._client_id
        return f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")

    def _headers(self) -> dict[str, str]:
        return {"Authorization": basic(self._key.reveal(), PASSWORD)}

    def _secrets(self) -> tuple[str, str]:
        key = self._key.reveal()
        return key, f"{key}:{PASSWORD}"


def _apart(letter: Letter, group: Group) -> Iterable[Group]:
    return (group,) if letter.shown(group).to else ((each,) for each in group)


def _one_is_bad(outcome: Outcome) -> bool:
    """A 400 refuses all; which field it minds is only in its words."""
    return outcome.word is Word.REJECT and outcome.code == 400


def _build(name: str, settings: CampaignMonitorSettings, host: Host) -> Upstream:
    return CampaignMonitor(name, settings, host.trust)


KIND: Final = Kind(
    "campaign_monitor",
    CampaignMonitorSettings,
    _build,
    lambda _settings, content: losses_of(content),
)
