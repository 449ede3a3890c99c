"""What is known of a provider's server that a plain `type: smtp` leads to: by its host name, and by that alone.

Must never send an order of CallPro's to a provider: a header field that drops the mail, or adds recipients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import Final

from routing.outcome import Word
from upstreams.connector_replies import CONNECTOR_REPLIES
from upstreams.mailgun_request import NOT_ALLOWED
from upstreams.mailgun_request import ORDERS as MAILGUN_ORDERS
from upstreams.microsoft import MAILBOX_TRAITS, TENANT_TRAITS
from upstreams.sendgrid_replies import SENDGRID_REPLIES
from upstreams.smtp_oauth_replies import PASSWORD_REPLIES
from upstreams.smtp_replies import SMTP_REPLIES, ReplyTable, Row
from upstreams.traits import CAMPAIGN_MONITOR, Traits

_MAILGUN_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before(
    (Row(Word.CONFIG, (550, 554), words=("not allowed to send",), hint=NOT_ALLOWED),)
)
"""As its API says of an account (mailgun.md 3)."""


@dataclass(frozen=True, slots=True)
class Provider:
    """`orders` are header fields that it obeys. `connections` at one time and `recipients` of a mail are its limits,
    whatever ops allow; `kind` is the type that knows it better, "" where this is the way to it. `token` says that the
    password is the user name as well, `ends_passwords` that it gives up logins with a password.
    """

    replies: ReplyTable = SMTP_REPLIES
    orders: re.Pattern[bytes] | None = None
    connections: float = inf
    recipients: float = inf
    kind: str = ""
    token: bool = False
    ends_passwords: bool = False
    traits: Traits | None = None


_MAILBOX: Final = Provider(PASSWORD_REPLIES, connections=3, traits=MAILBOX_TRAITS, ends_passwords=True)
_INBOUND: Final = Provider(CONNECTOR_REPLIES, kind="connector", traits=TENANT_TRAITS, ends_passwords=True)
_PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({
    "mail.protection.outlook.com": _INBOUND,
    "mx.microsoft": _INBOUND,
    "office365.com": _MAILBOX,
    "outlook.com": _MAILBOX,
    "sendgrid.net": Provider(SENDGRID_REPLIES, orders=re.compile(rb"[ \t]*x-smtpapi", re.IGNORECASE), kind="sendgrid"),
    "mailgun.org": Provider(_MAILGUN_REPLIES, orders=MAILGUN_ORDERS),
    "createsend.com": Provider(
        orders=re.compile(rb"[ \t]*x-cmail-", re.IGNORECASE), recipients=25, token=True, traits=CAMPAIGN_MONITOR
    ),
})  # fmt: skip
"""By the domain that the host is in; the first that fits."""

_NOBODY: Final = Provider()


def provider_of(host: str) -> Provider:
    """What is known of the server with that name."""
    name = host.lower().rstrip(".")
    fitting = (one for domain, one in _PROVIDERS.items() if name == domain or name.endswith(f".{domain}"))
    return next(fitting, _NOBODY)
