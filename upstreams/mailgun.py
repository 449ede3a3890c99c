"""The kind `mailgun`: the whole mail by Mailgun's `POST /v3/DOMAIN/messages.mime` (mailgun.md, section 2).

`to` is the envelope: the header names nobody who gets the mail. Must never send a request twice for the same recipient,
nor let the key out of the Authorization header.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import quote

from config import names
from config.credentials import Secret
from config.fields import Duration, Fault, Settings, setting
from routing.events import emit
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from routing.provider_events import EventReader
from upstreams.api_groups import Group, ask_in_groups
from upstreams.api_message import TooLarge, cannot_carry, plain_address, unsayable_addresses
from upstreams.api_reply import basic, is_key
from upstreams.base import Host, Kind, Rehearsal, Upstream
from upstreams.http_client import HttpClient, Reply, connects_to, is_base_url
from upstreams.mailgun_events import reader
from upstreams.mailgun_replies import OUR_BUG, outcome_of
from upstreams.mailgun_request import MESSAGE_LIMIT, RECIPIENTS_LIMIT, form, message_of, options
from upstreams.tls import Trust
from upstreams.traits import Traits

LOG: Final = logging.getLogger(__name__)
USER: Final = "api"
"""The literal word; the password is the key."""

_SMALLER: Final = Hint(
    Who.US,
    "Send a smaller mail, or give the route a second upstream that takes it.",
    "Verstuur een kleinere mail, of geef de route een tweede upstream die hem aanneemt.",
)
_HOSTS: Final[Mapping[str, str]] = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailgunSettings(Settings):
    """`type: mailgun`."""

    domain: str = setting(doc="The sending domain in Mailgun.", example="mg.callcenter.nl", check=names.domain)
    api_key: Secret = setting(doc="A sending key of that domain, by reference.", example="systemd:mailgun")
    region: Literal["us", "eu"] = setting(default="us", doc="Where the domain lives; the other region denies it.")
    base_url: str | None = setting(default=None, doc="What stands before /v3; default: the region's.")
    timeout: Duration = setting(default=Duration(60), doc="How long one request may take.", minimum=0.05)
    connections: int = setting(default=5, doc="Most connections at one time.", minimum=1, maximum=100)
    recipients: int = setting(
        default=RECIPIENTS_LIMIT,
        doc="Most recipients in one mail; more are split.",
        minimum=1,
        maximum=RECIPIENTS_LIMIT,
    )
    tracking: bool = setting(
        default=False, doc="false: no links rewritten, no pixel added; true: as the domain is set."
    )
    webhook_signing_key: Secret | None = setting(
        default=None,
        doc="The account's HTTP webhook signing key (not the sending key), by reference.",
        example="systemd:mailgun-webhooks",
    )

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if not is_key(self.api_key):
            yield Fault("api_key", "does not look like an API key", "give the key alone: one word")
        if self.webhook_signing_key is not None and not is_key(self.webhook_signing_key):
            yield Fault("webhook_signing_key", "does not look like a key", "give the key alone: one word")
        if self.base_url is not None and not is_base_url(self.base_url):
            yield Fault("base_url", "is no HTTPS address", "write one such as https://api.eu.mailgun.net")
        elif self.base_url is not None and self.base_url.rstrip("/").endswith("/v3"):
            yield Fault("base_url", "holds /v3 already", "leave /v3 out")

    def traits(self) -> Traits:
        """See `HasTraits.traits`: everything is said by the sending domain."""
        signer = f"Mailgun signs, if the DKIM record of {self.domain} is in place"
        return Traits(
            signing="theirs",
            signer=signer,
            signs_as=self.domain,
            return_path=self.domain,
            selectors=("mx", "pdk1", "pdk2", "k1"),
            selectors_needed="any",
        )


class Mailgun(Upstream):
    """One domain's way to Mailgun."""

    def __init__(self, name: str, settings: MailgunSettings, trust: Trust) -> None:
        self.name = name
        self.concurrency = settings.connections
        self.recipients_limit = settings.recipients
        base = (settings.base_url or _HOSTS[settings.region]).rstrip("/")
        self.connects_to = connects_to(settings.timeout, base)
        self._url = f"{base}/v3/{quote(names.domain(settings.domain), safe='')}/messages.mime"
        self._key = settings.api_key
        self._tracking = settings.tracking
        self._client = HttpClient(settings.timeout, settings.connections, trust)

    async def send(self, mail: Outgoing) -> Results:
        """One request for all recipients, or several where Mailgun refuses it for one bad address (`api_groups`)."""
        results = unsayable_addresses(
            mail.recipients,
            "Mailgun",
            Hint(
                Who.CALLPRO,
                "Correct the address in CallPro.",
                "Verbeter het adres in CallPro.",
            ),
        )
        wanted = tuple(each for each in mail.recipients if each not in results)
        message = message_of(mail.content)
        if len(message) > MESSAGE_LIMIT:
            large = TooLarge(f"a message of {len(message)} octets (Mailgun's limit is {MESSAGE_LIMIT})")
            return results | dict.fromkeys(wanted, cannot_carry("Mailgun", large, _SMALLER))

        async def ask(group: Group) -> Results:
            return dict.fromkeys(group, await self._ask(mail.id, group, message))

        return results | (await ask_in_groups(wanted, ask, _one_is_bad) if wanted else {})

    async def probe(self) -> Outcome:
        """Ask with nobody to send to: a sending key may do nothing else. Mailgun judges key and domain first, so its
        complaint about the form itself means that both are good.
        """
        answer = await self._post(form([("o:testmode", "yes")], None), probing=True)
        if answer.word is Word.REJECT and answer.code == 400:
            return Outcome(Word.SENT, f"key and domain are known: {answer.reply}", Stage.LOGIN, 400)
        return answer

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        """See `Upstream.rehearse`: a mail in test mode, which Mailgun judges and bills and never delivers."""
        ready = await self.probe()
        if ready.word is not Word.SENT:
            return ready
        message = f"From: {mail.sender}\r\nTo: {mail.recipient}\r\nSubject: check\r\n\r\ncheck\r\n".encode()
        answer = await self._post(form([("to", mail.recipient), ("o:testmode", "yes")], message), probing=True)
        return replace(answer, reply="the domain may send (in test mode)") if answer.word is Word.SENT else answer

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, relay_id: str, group: Group, message: bytes) -> Outcome:
        people = dict.fromkeys(plain_address(each) or each for each in group)
        named = [*(("to", address) for address in people), *options(relay_id, self._tracking)]
        outcome = await self._post(form(named, message))
        if outcome.hint == OUR_BUG:
            emit(LOG, "mailgun_request_wrong", logging.ERROR, upstream=self.name, id=relay_id, reply=outcome.reply)
        return outcome

    async def _post(self, filled: tuple[str, bytes], *, probing: bool = False) -> Outcome:
        content_type, body = filled
        key = self._key.reveal()
        headers = {"Authorization": basic(USER, key), "Content-Type": content_type}
        reply = await self._client.exchange("POST", self._url, headers, body, repeatable=probing)
        return outcome_of(reply, time.time(), key, f"{USER}:{key}") if isinstance(reply, Reply) else reply


def _one_is_bad(outcome: Outcome) -> bool:
    return outcome.stage is Stage.RECIPIENT


def _build(name: str, settings: MailgunSettings, host: Host) -> Upstream:
    return Mailgun(name, settings, host.trust)


def _events(settings: MailgunSettings) -> EventReader | None:
    """See `Kind.events`."""
    key = settings.webhook_signing_key
    return reader(key) if key is not None and key.reveal() else None


KIND: Final = Kind("mailgun", MailgunSettings, _build, events=_events)
