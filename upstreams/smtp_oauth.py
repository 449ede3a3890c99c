"""The kind `smtp_oauth`: a Microsoft 365 mailbox over SMTP, logged in with a token of the customer's Entra app.

It must never use a connection for another mailbox, or for longer than the token it was opened with.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import aiosmtplib

from config import network
from config.credentials import Secret
from config.fields import Duration, Fault, is_loopback, setting
from routing.mail import NULL_SENDER, Outgoing
from routing.outcome import NO_FORM, Hint, Outcome, Results, Stage, Who, Word
from upstreams.base import Host, Kind, Rehearsal
from upstreams.entra import EntraApp, EntraTokens
from upstreams.http_client import HttpClient, place_of
from upstreams.microsoft import mailbox_traits
from upstreams.smtp import SmtpUpstream
from upstreams.smtp_login import scrubbed
from upstreams.smtp_oauth_replies import SMTP_OAUTH_REPLIES, refuses_token
from upstreams.smtp_pool import DATA_SECONDS, SmtpLimits
from upstreams.smtp_session import SmtpWay
from upstreams.traits import Traits

SCOPE: Final = "https://outlook.office365.com/.default"
"""Not Graph's: a token for one is refused by the other (microsoft-365-smtp-oauth.md 3)."""

_MAILBOX: Final = re.compile(r"[^\x00-\x20\x7f<>@\"\\]+@[^\x00-\x20\x7f<>@\"\\]+")
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=_-]{64,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpOauthSettings(EntraApp):
    """`type: smtp_oauth`."""

    mailbox: str | None = setting(
        default=None,
        doc="The mailbox that logs in and sends; default: the envelope sender, after `sender:`.",
        example="info@initech.nl",
    )
    host: str = setting(
        default="smtp.office365.com", doc="The server's name, as its certificate has it.", check=network.server
    )
    port: int = setting(
        default=587, doc="587, or 25 where 587 is closed; both with STARTTLS.", minimum=1, maximum=65535
    )
    timeout: Duration = setting(
        default=Duration(60), doc="How long Microsoft may take to connect or to answer.", minimum=0.05
    )
    data_timeout: Duration = setting(
        default=Duration(DATA_SECONDS),
        doc="How long it may take to answer after the whole mail; a shorter time makes doubles.",
        minimum=0.05,
    )
    connections: int = setting(
        default=3, doc="Most connections at one time; Microsoft takes 3 for each mailbox.", minimum=1
    )
    recipients: int = setting(default=500, doc="Most recipients in one mail; more are split.", minimum=1, maximum=1000)

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        yield from EntraApp.faults(self)
        if self.mailbox is not None and not _MAILBOX.fullmatch(self.mailbox):
            yield Fault("mailbox", "is not an address", "write it like info@initech.nl")
        yield from self._host_faults()

    def _host_faults(self) -> Iterator[Fault]:
        if is_loopback(self.host):
            return
        if self.host.lower().endswith(".mail.protection.outlook.com"):
            yield Fault("host", f"{self.host} takes no login", "leave `host` out, or use `type: connector`")
        elif ":" in self.host or self.host.replace(".", "").isdigit():
            yield Fault("host", "an IP address of the service changes", "leave `host` out")
        if self.port == 465:
            yield Fault("port", "Microsoft does not listen on 465", "write 587, or leave `port` out")
        if self.authority.rstrip("/") != _WORLDWIDE and not is_loopback(self.authority):
            yield Fault(
                "authority",
                "how mail leaves a national cloud over SMTP is not known for sure",
                "try it with the customer first, or use `type: graph` with its `base_url`",
                warning=True,
            )

    def traits(self) -> Traits:
        """See `HasTraits.traits`."""
        return mailbox_traits(self.tenant, self.mailbox)


_WORLDWIDE: Final = "https://login.microsoftonline.com"


@dataclass(frozen=True, slots=True)
class XoauthLogin:
    """AUTH XOAUTH2 as `mailbox`. Logins are equal by mailbox and token, so a renewed token means a new connection."""

    mailbox: str
    token: Secret

    async def log_in(self, client: aiosmtplib.SMTP) -> Outcome | None:
        """See `smtp_session.Login`."""
        offered = client.server_auth_methods
        if "xoauth2" not in offered:
            return _not_offered(offered)
        await client.auth_xoauth2(self.mailbox, self.token.reveal())
        return None

    def scrub(self, text: str) -> str:
        """See `smtp_session.Login`. A server that echoes a line may cut it, so long runs of base64 go as well."""
        token = self.token.reveal()
        return _LONG_RUN.sub("***", scrubbed(text, f"user={self.mailbox}\x01auth=Bearer {token}\x01\x01", token))


class SmtpOauth(SmtpUpstream):
    """One app's way to the mailboxes it may send from. Mail leaves as `mailbox`, or as its envelope sender.

    The token is asked for before a connection is opened, and is part of the key under which connections are kept.
    `clock` is that of `EntraTokens`.
    """

    def __init__(
        self, name: str, settings: SmtpOauthSettings, host: Host, clock: Callable[[], float] = time.monotonic
    ) -> None:
        limits = SmtpLimits(
            timeout=settings.timeout,
            data_timeout=settings.data_timeout,
            connections=settings.connections,
            recipients=settings.recipients,
        )
        self._bare = SmtpWay(settings.host, settings.port, "starttls")
        super().__init__(name, host, self._bare, limits, SMTP_OAUTH_REPLIES)
        self.connects_to = f"{self.connects_to} and {place_of(settings.authority)}"
        self._mailbox = settings.mailbox
        self._probed_mailbox = settings.mailbox
        self._http = HttpClient(settings.timeout, 2, host.trust)
        self._tokens = EntraTokens(settings, self._http, clock)

    async def send(self, mail: Outgoing) -> Results:
        """See `Upstream.send`. A login that is refused is tried once more, with a fresh token."""
        mailbox = self._mailbox or mail.sender
        unsendable = _unsendable(mail.sender, mailbox)
        if unsendable is not None:
            return dict.fromkeys(mail.recipients, unsendable)
        self._probed_mailbox = mailbox
        results = await self._send_as(mailbox, mail)
        if any(map(refuses_token, results.values())):
            results = await self._send_as(mailbox, mail)
        return results

    async def probe(self) -> Outcome:
        """See `Upstream.probe`: a token, and a login as the mailbox of the last mail. Before the first mail, where no
        `mailbox` is set, there is none to log in as.
        """
        outcome = await self._probe_once()
        return await self._probe_once() if refuses_token(outcome) else outcome

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        """See `Upstream.rehearse`. A mailbox that was made up cannot log in, so then it is a probe."""
        mailbox = self._mailbox or mail.sender
        if mail.invented and self._mailbox is None:
            return await self.probe()
        outcome = await self._rehearse_as(mailbox, mail)
        return await self._rehearse_as(mailbox, mail) if refuses_token(outcome) else outcome

    async def close(self) -> None:
        """See `Upstream.close`."""
        await super().close()
        await self._tokens.close()
        await self._http.close()

    async def _send_as(self, mailbox: str, mail: Outgoing) -> Results:
        token = await self._tokens.token(SCOPE)
        if isinstance(token, Outcome):
            return dict.fromkeys(mail.recipients, token)
        results = await self.send_by(self._way_as(mailbox, token), mail)
        if any(map(refuses_token, results.values())):
            self._tokens.forget(SCOPE, token)
        return results

    async def _probe_once(self) -> Outcome:
        token = await self._tokens.token(SCOPE)
        if isinstance(token, Outcome):
            return token
        if self._probed_mailbox is None:
            outcome = await self.probe_by(self._bare)
            return replace(outcome, hint=_NOT_LOGGED_IN) if outcome.word is Word.SENT else outcome
        outcome = await self.probe_by(self._way_as(self._probed_mailbox, token))
        if refuses_token(outcome):
            self._tokens.forget(SCOPE, token)
        return outcome

    async def _rehearse_as(self, mailbox: str, mail: Rehearsal) -> Outcome:
        token = await self._tokens.token(SCOPE)
        if isinstance(token, Outcome):
            return token
        outcome = await self.rehearse_by(self._way_as(mailbox, token), replace(mail, sender=mailbox))
        if refuses_token(outcome):
            self._tokens.forget(SCOPE, token)
        return outcome

    def _way_as(self, mailbox: str, token: str) -> SmtpWay:
        return replace(self._bare, login=XoauthLogin(mailbox, Secret("entra", token)))


_NOT_LOGGED_IN: Final = Hint(
    Who.NOBODY,
    "Whether the app may log in as the mailbox shows at the first mail, or set `mailbox:`.",
    "Of de app als de mailbox mag inloggen, blijkt bij de eerste mail, of zet `mailbox:`.",
)
_NULL_SENDER: Final = Outcome(
    Word.REJECT,
    "a mailbox cannot send from the null sender",
    Stage.PREPARE,
    enhanced=NO_FORM,
    hint=Hint(
        Who.US,
        'Bounces cannot leave by a mailbox: give the null sender a route of its own, {from: "<>", via: ...}.',
        'Bounces kunnen niet via een mailbox weg: geef de lege afzender een eigen route, {from: "<>", via: ...}.',
    ),
)


def _unsendable(sender: str, mailbox: str) -> Outcome | None:
    """Why mail of this sender is not even tried. The mailbox is said in a login, where \\x01 would begin a field."""
    if sender == NULL_SENDER:
        return _NULL_SENDER
    if not _MAILBOX.fullmatch(mailbox):
        return Outcome(
            Word.REJECT,
            f"{mailbox!r} cannot be a mailbox to log in as",
            Stage.PREPARE,
            enhanced="5.1.7",
            hint=Hint(
                Who.CALLPRO,
                "Mend the sender in CallPro's data, or write the `mailbox:` that sends for all.",
                "Herstel de afzender in CallPro, of zet de `mailbox:` die voor iedereen verstuurt.",
            ),
        )
    return None


def _not_offered(offered: list[str]) -> Outcome:
    says = f"the server offers AUTH {' '.join(offered).upper()}" if offered else "the server offers no login"
    return Outcome(
        Word.CONFIG,
        f"{says}; XOAUTH2 is needed",
        Stage.LOGIN,
        hint=Hint(
            Who.US,
            "We must write the `host` and `port` for client submission, smtp.office365.com and 587.",
            "Wij moeten de `host` en `port` voor het indienen van mail invullen, smtp.office365.com en 587.",
        ),
    )


KIND: Final = Kind("smtp_oauth", SmtpOauthSettings, SmtpOauth)
