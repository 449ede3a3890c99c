"""What the ways through Microsoft 365 have in common: who signs, and how little one mailbox may send.

Words and numbers from microsoft-graph.md 5, microsoft-365-smtp-oauth.md and microsoft-365-connector.md 4; no code of a
protocol belongs here.
"""

from __future__ import annotations

from typing import Final

from routing.mail import domain_of
from upstreams.traits import MAIL_FROM_DOMAIN, Traits

TENANT_SIGNS: Final = "the customer's tenant signs, if DKIM is switched on there for the From domain"
MAILBOX_VOLUME: Final = "a mailbox may send 30 mails a minute and to 10,000 recipients a day"
TENANT_VOLUME: Final = "all of a tenant with one licence may send to 10,000 outside recipients a day"
_SUBMISSION: Final = ("office365.com", "outlook.com")
"""The domains over the hosts that take a login."""


def is_microsoft(host: str) -> bool:
    """True for a host of Microsoft 365 or outlook.com."""
    name = host.lower().rstrip(".")
    return any(name == domain or name.endswith(f".{domain}") for domain in _SUBMISSION)


def mailbox_traits(mailbox: str | None) -> Traits:
    """Of a kind that sends as a mailbox: `mailbox`, an address or an object id, or the envelope sender's own.

    Exchange takes the mail into its store and writes it anew.
    """
    return_path = domain_of(mailbox or "") or MAIL_FROM_DOMAIN
    return Traits(signing="rebuilt", signer=TENANT_SIGNS, return_path=return_path, volume=MAILBOX_VOLUME)
