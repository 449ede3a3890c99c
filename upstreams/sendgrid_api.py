"""SendGrid over HTTPS: `POST /v3/mail/send` (provider page sendgrid.md, section 2).

One request for each mail, never repeated here: SendGrid knows no idempotency key. The API key leaves only in the
Authorization header and is in no outcome.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from config.credentials import Secret
from routing.events import emit
from routing.mail import Outgoing
from routing.outcome import TOO_LARGE, Hint, Outcome, Results, Stage, Who, Word
from upstreams.api_message import cannot_carry, plain_address, unsayable_addresses
from upstreams.api_reply import REPLY_SHOWN, bounded, member, told, verdict
from upstreams.base import Rehearsal, Upstream
from upstreams.http_client import HttpClient, Reply, connects_to, retry_after
from upstreams.mime_parts import Unsayable
from upstreams.sendgrid_body import Prepared, prepare
from upstreams.tls import Trust

LOG: Final = logging.getLogger(__name__)
THREAD_SIZE: Final = 1 << 20
"""Octets above which a mail is taken apart in a thread, so that the event loop does not wait for it."""

_PLACE: Final = re.compile(r"personalizations\.\d+\.(?:to|cc|bcc)\.\d+")
_USE_SMTP: Final = Hint(
    Who.US,
    "Use `method: smtp` for this customer, or a second upstream behind this one: SMTP carries every mail as it is.",
    "Gebruik `method: smtp` voor deze klant, of zet er een tweede upstream achter: SMTP verandert niets aan de mail.",
)
_CORRECT: Final = Hint(
    Who.CALLPRO,
    "Correct the address in CallPro, or use `method: smtp`.",
    "Verbeter het adres in CallPro, of gebruik `method: smtp`.",
)
_KEY: Final = Hint(
    Who.US,
    "Whoever manages the SendGrid account must make an API key with Mail Send for this region.",
    "De beheerder van het SendGrid-account moet een API-sleutel met Mail Send voor deze regio maken.",
)
_SENDER: Final = Hint(
    Who.US,
    "Whoever manages the SendGrid account must verify this sender or authenticate its domain.",
    "De beheerder van het SendGrid-account moet deze afzender verifiëren of het domein ervan authenticeren.",
)
_CREDITS: Final = Hint(
    Who.US,
    "The SendGrid account is out of credits or unpaid: its owner must raise or pay the plan.",
    "Het SendGrid-account heeft geen tegoed meer of is niet betaald: de eigenaar moet het "
    "abonnement verhogen of betalen.",
)
_URL: Final = Hint(
    Who.US,
    "No mail/send API answers at that address: check `base_url` and `region`.",
    "Op dat adres antwoordt geen SendGrid: controleer `base_url` en `region`.",
)

_BY_TEXT: Final = (
    (re.compile(r"maximum credits exceeded", re.IGNORECASE), _CREDITS),
    (re.compile(r"verified sender identity", re.IGNORECASE), _SENDER),
)
"""Said with more than one status; the account is meant, whatever the status."""

_BY_STATUS: Final[Mapping[int, tuple[Word, Hint | None]]] = {
    400: (
        Word.REJECT,
        Hint(
            Who.CALLPRO,
            "SendGrid cannot take this mail as it is written; the reply says which field.",
            "SendGrid kan deze mail zo niet aannemen; in het antwoord staat om welk veld het gaat.",
        ),
    ),
    401: (Word.CONFIG, _KEY),
    403: (
        Word.CONFIG,
        Hint(
            Who.US,
            "The API key lacks Mail Send, or this machine's address is not on the allow list: whoever "
            "manages the SendGrid account must change that.",
            "De API-sleutel mist Mail Send, of het adres van deze machine staat niet op de lijst met "
            "toegestane adressen: de beheerder van het SendGrid-account moet dat aanpassen.",
        ),
    ),
    404: (Word.CONFIG, _URL),
    405: (Word.CONFIG, _URL),
    408: (Word.RETRY, None),
    413: (
        Word.REJECT,
        Hint(
            Who.CALLPRO,
            "The mail is larger than SendGrid takes (30 MB, attachments grown by a third): send a smaller one.",
            "De mail is groter dan SendGrid aanneemt (30 MB, bijlagen tellen een derde zwaarder): "
            "verstuur een kleinere.",
        ),
    ),
    429: (Word.RETRY, None),
}


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """One account's API. `base_url` is what stands before /v3; `timeout` is in seconds; `recipients` for one mail."""

    base_url: str
    key: Secret
    timeout: float
    connections: int
    recipients: int


class SendGridApi(Upstream):
    """The API as a way out."""

    def __init__(self, name: str, access: ApiAccess, tracking: bool, trust: Trust) -> None:
        self.name = name
        self.concurrency = access.connections
        self.recipients_limit = access.recipients
        self.connects_to = connects_to(access.timeout, access.base_url)
        self._base_url = access.base_url.rstrip("/")
        self._key = access.key
        self._tracking = tracking
        self._client = HttpClient(access.timeout, access.connections, trust)

    async def send(self, mail: Outgoing) -> Results:
        """Try once. Recipients whose address the API cannot hold are refused; the others go in one request."""
        results = unsayable_addresses(mail.recipients, "SendGrid", _CORRECT)
        wanted = tuple(each for each in mail.recipients if each not in results)
        if wanted:
            results |= await self._send(Outgoing(mail.id, mail.route, mail.sender, wanted, mail.content))
        return results

    async def probe(self) -> Outcome:
        """Ask which scopes the key has (GET /v3/scopes sends nothing): SENT when mail.send is among them."""
        reply = await self._client.exchange("GET", f"{self._base_url}/v3/scopes", self._headers(), repeatable=True)
        if isinstance(reply, Outcome):
            return reply
        if reply.status != 200:
            return self._refusal(reply)
        if "mail.send" not in _scopes(reply):
            return Outcome(Word.CONFIG, "the API key has no mail.send scope", Stage.LOGIN, 200, hint=_KEY)
        return Outcome(Word.SENT, "the API key may send", Stage.LOGIN, 200)

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        """See `Upstream.rehearse`: the scopes, then a mail in sandbox mode, which SendGrid checks and never sends."""
        outcome = await self.probe()
        if outcome.word is not Word.SENT:
            return outcome
        headers = {**self._headers(), "Content-Type": "application/json"}
        body = json.dumps(_sandboxed(mail)).encode()
        reply = await self._client.exchange("POST", f"{self._base_url}/v3/mail/send", headers, body, repeatable=True)
        if isinstance(reply, Outcome):
            return reply
        if reply.status == 200:
            return Outcome(Word.SENT, "the API key may send, and the sender is verified", Stage.REQUEST, 200)
        return self._refusal(reply)

    async def close(self) -> None:
        await self._client.close()

    async def _send(self, mail: Outgoing) -> Results:
        try:
            prepared = await self._prepared(mail)
        except Unsayable as reason:
            return dict.fromkeys(mail.recipients, cannot_carry("SendGrid", reason, _USE_SMTP))
        headers = {**self._headers(), "Content-Type": "application/json"}
        reply = await self._client.exchange("POST", f"{self._base_url}/v3/mail/send", headers, prepared.body)
        if isinstance(reply, Outcome):
            return dict.fromkeys(mail.recipients, reply)
        if reply.status == 202:
            taken = reply.headers.get("x-message-id")
            outcome = Outcome(Word.SENT, "202 Accepted", Stage.REQUEST, 202, upstream_id=taken)
            return dict.fromkeys(mail.recipients, outcome)
        refused, blamed = self._refusal(reply), _blamed(reply, prepared)
        if reply.status == 400 and refused.word is Word.REJECT and not blamed:
            emit(LOG, "sendgrid_refused", logging.ERROR, upstream=self.name, id=mail.id, reply=refused.reply)
        return _shared_out(mail.recipients, refused, blamed)

    async def _prepared(self, mail: Outgoing) -> Prepared:
        if len(mail.content) < THREAD_SIZE:
            return prepare(mail, self._tracking)
        return await asyncio.to_thread(prepare, mail, self._tracking)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.reveal()}"}

    def _refusal(self, reply: Reply) -> Outcome:
        text = told(reply, _messages(reply), self._key.reveal())
        word, hint = _verdict(reply.status, text)
        wait = _wait(reply.headers, time.time()) if reply.status == 429 else None
        size = TOO_LARGE if reply.status == 413 else None
        return Outcome(Word.WAIT if wait else word, text, Stage.REQUEST, reply.status, size, wait, hint=hint)


def _sandboxed(mail: Rehearsal) -> dict[str, Any]:
    """The smallest mail there is, marked as one that must not be sent (sendgrid.md 2)."""
    return {
        "personalizations": [{"to": [{"email": mail.recipient}]}],
        "from": {"email": mail.sender},
        "subject": "check",
        "content": [{"type": "text/plain", "value": "check"}],
        "mail_settings": {"sandbox_mode": {"enable": True}},
    }


def _verdict(status: int, text: str) -> tuple[Word, Hint | None]:
    """What a status other than 202 means. 200 is SendGrid's answer for "valid, but not queued"."""
    for pattern, hint in _BY_TEXT:
        if status < 500 and pattern.search(text):
            return Word.CONFIG, hint
    return verdict(status, _BY_STATUS, None, _URL)


def _shared_out(recipients: tuple[str, ...], outcome: Outcome, blamed: set[str]) -> Results:
    """The refusal for each recipient. When SendGrid names the addresses it minds, the others may go without them."""
    if outcome.word is not Word.REJECT or not blamed:
        return dict.fromkeys(recipients, outcome)
    others = Outcome(
        Word.RETRY, f"refused for another recipient: {outcome.reply}"[:REPLY_SHOWN], Stage.REQUEST, outcome.code
    )
    return {each: outcome if (plain_address(each) or "").lower() in blamed else others for each in recipients}


def _blamed(reply: Reply, prepared: Prepared) -> set[str]:
    """Addresses that the errors point at; empty when any error is about something else."""
    found: set[str] = set()
    for error in _errors(reply):
        place = _PLACE.match(str(error.get("field") or ""))
        if place is None or place[0] not in prepared.places:
            return set()
        found.add(prepared.places[place[0]])
    return found


def _errors(reply: Reply) -> list[Mapping[str, Any]]:
    """The error objects; none when the body is not SendGrid's (a gateway answers otherwise)."""
    errors = member(reply, "errors")
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def _messages(reply: Reply) -> str:
    said = (
        f"{error.get('message')} ({error['field']})" if error.get("field") else f"{error.get('message')}"
        for error in _errors(reply)
    )
    return "; ".join(said)


def _scopes(reply: Reply) -> list[Any]:
    scopes = member(reply, "scopes")
    return scopes if isinstance(scopes, list) else []


def _wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until X-RateLimit-Reset (unix time), or by Retry-After; mail/send often sends neither."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    if reset.isascii() and reset.isdigit():
        return bounded(float(reset[:12]) - now)
    stated = retry_after(headers, now)
    return None if stated is None else bounded(stated)
