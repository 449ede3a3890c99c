"""The kind `sendgrid`: Twilio SendGrid by SMTP (the default: the mail stays as it is) or by its v3 API.

Use the API only where the SMTP ports are closed: it has no raw MIME, so mail is taken apart and built anew there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from config import network
from config.credentials import Secret
from config.fields import Duration, Fault, Settings, is_loopback, setting
from routing.provider_events import EventReader
from upstreams import sendgrid_losses
from upstreams.api_reply import is_key
from upstreams.base import Host, Kind, Upstream
from upstreams.http_client import is_base_url
from upstreams.sendgrid_api import ApiAccess, SendGridApi
from upstreams.sendgrid_body import RECIPIENTS_LIMIT
from upstreams.sendgrid_events import reader, verification_key
from upstreams.sendgrid_replies import SENDGRID_REPLIES
from upstreams.sendgrid_smtp import SendGridSmtp
from upstreams.smtp import SmtpUpstream
from upstreams.smtp_login import PasswordLogin
from upstreams.smtp_pool import DATA_SECONDS, SmtpLimits
from upstreams.smtp_session import SmtpWay
from upstreams.traits import FROM_DOMAIN, Signing, Traits

USER: Final = "apikey"
"""The literal word; the password is the key."""

_SMTP_HOSTS: Final[Mapping[str, str]] = {"us": "smtp.sendgrid.net", "eu": "smtp.eu.sendgrid.net"}
_API_HOSTS: Final[Mapping[str, str]] = {"us": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}
_PORTS: Final = {"starttls": 587, "implicit": 465, "none": 25}


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGridSettings(Settings):
    """`type: sendgrid`."""

    api_key: Secret = setting(doc="A key with Mail Send, by reference.", example="env:SENDGRID_API_KEY")
    method: Literal["smtp", "api"] = setting(
        default="smtp", doc="`smtp` carries every mail as it is; `api` is for when ports 587 and 465 are closed."
    )
    region: Literal["us", "eu"] = setting(default="us", doc="Where the account lives; an EU key works only in `eu`.")
    host: str | None = setting(
        default=None, doc="method smtp: the server; default: the region's.", check=network.server
    )
    port: int | None = setting(
        default=None,
        doc="method smtp: default 587 for `starttls` (25 and 2525 work too), 465 for `implicit`.",
        minimum=1,
        maximum=65535,
    )
    tls: Literal["starttls", "implicit", "none"] = setting(
        default="starttls", doc="method smtp: `starttls` (required), `implicit`, or `none` (loopback only)."
    )
    base_url: str | None = setting(default=None, doc="method api: where /v3/mail/send is; default: the region's.")
    timeout: Duration = setting(
        default=Duration(60), doc="How long SendGrid may take for one step or one request.", minimum=0.05
    )
    data_timeout: Duration = setting(
        default=Duration(DATA_SECONDS),
        doc="method smtp: how long SendGrid may take to answer after the whole mail; a shorter time makes doubles.",
        minimum=0.05,
    )
    connections: int = setting(default=5, doc="Most connections at one time.", minimum=1, maximum=100)
    recipients: int = setting(
        default=RECIPIENTS_LIMIT,
        doc="Most recipients in one mail; more are split.",
        minimum=1,
        maximum=RECIPIENTS_LIMIT,
    )
    tracking: bool = setting(
        default=False, doc="false: no links rewritten, no pixel or footer added; true: as the account is set."
    )
    webhook_key: str | None = setting(
        default=None,
        doc="The verification key that SendGrid shows for its signed event webhook; it is public.",
        example="MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE...",
        check=verification_key,
    )

    def faults(self) -> Iterator[Fault]:
        """See `Settings.faults`."""
        if not is_key(self.api_key):
            yield Fault("api_key", "does not look like an API key", "give the key alone: one word that begins with SG.")
        if self.method == "api":
            yield from self._api_faults()
        else:
            yield from self._smtp_faults()

    def _api_faults(self) -> Iterator[Fault]:
        for name in ("host", "port"):
            if getattr(self, name) is not None:
                yield Fault(name, "belongs to `method: smtp`", "write `base_url`, or leave it out")
        if self.tls != "starttls":
            yield Fault("tls", "belongs to `method: smtp`", "leave it out: the API is always HTTPS")
        if self.data_timeout != DATA_SECONDS:
            yield Fault("data_timeout", "belongs to `method: smtp`", "leave it out, or write `timeout`")
        if not is_base_url(self.url):
            yield Fault("base_url", "is no HTTPS address", "write one such as https://api.sendgrid.com")
        elif self.url.rstrip("/").endswith("/v3"):
            yield Fault("base_url", "holds /v3 already", "leave /v3 out")

    def _smtp_faults(self) -> Iterator[Fault]:
        if self.base_url is not None:
            yield Fault("base_url", "belongs to `method: api`", "write `host`, or leave it out")
        if self.tls == "none" and not is_loopback(self.server):
            yield Fault("tls", "the key would cross the network in clear text", "write `starttls` or `implicit`")

    def loopback(self) -> bool:
        """See `Settings.loopback`: only the method in use counts."""
        return is_loopback(self.url if self.method == "api" else self.server)

    @property
    def server(self) -> str:
        """The SMTP server's name."""
        return self.host or _SMTP_HOSTS[self.region]

    @property
    def url(self) -> str:
        """Where the API is, without a path."""
        return self.base_url or _API_HOSTS[self.region]

    def traits(self) -> Traits:
        """See `HasTraits.traits`: once the domain is authenticated, the return path is a name below it."""
        signer = "SendGrid signs, if the From domain is authenticated there (s1._domainkey and s2._domainkey)"
        signing: Signing = "theirs" if self.method == "smtp" else "rebuilt"
        path = f"em.{FROM_DOMAIN}"
        return Traits(signing=signing, signer=signer, return_path=path, hidden_path=True, selectors=("s1", "s2"))


def _build(name: str, settings: SendGridSettings, host: Host) -> Upstream:
    if settings.method == "api":
        api = ApiAccess(settings.url, settings.api_key, settings.timeout, settings.connections, settings.recipients)
        return SendGridApi(name, api, settings.tracking, host.trust)
    way = SmtpWay(
        settings.server, settings.port or _PORTS[settings.tls], settings.tls, PasswordLogin(USER, settings.api_key)
    )
    limits = SmtpLimits(
        timeout=settings.timeout,
        data_timeout=settings.data_timeout,
        connections=settings.connections,
        recipients=settings.recipients,
    )
    return SendGridSmtp(SmtpUpstream(name, host, way, limits, SENDGRID_REPLIES), settings.tracking)


def _losses(settings: SendGridSettings, content: bytes) -> tuple[str, ...]:
    """See `Kind.losses`."""
    if settings.method == "api":
        return sendgrid_losses.by_api(content)
    return sendgrid_losses.by_smtp(content)


def _events(settings: SendGridSettings) -> EventReader | None:
    """See `Kind.events`."""
    return reader(settings.webhook_key) if settings.webhook_key else None


KIND: Final = Kind("sendgrid", SendGridSettings, _build, _losses, _events)
