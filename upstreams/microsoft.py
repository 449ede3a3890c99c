"""What the ways through Microsoft 365 have in common: who signs, and how little one mailbox may send.

Words and numbers from microsoft-graph.md 5, microsoft-365-smtp-oauth.md and microsoft-365-connector.md 4; no code of a
protocol belongs here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from config import names
from config.rules import Rate
from upstreams.traits import MAIL_FROM_DOMAIN, Traits

SPF_INCLUDE: Final = "spf.protection.outlook.com"
"""What the SPF record of a domain includes when its mail leaves by Exchange Online (microsoft-365-connector.md 6)."""

TENANT_TRAITS: Final = Traits(
    signing="theirs",
    signer="the customer's tenant signs, if DKIM is switched on there for the From domain",
    volume="all of a tenant with one licence may send to 10,000 outside recipients a day",
    selectors=("selector1", "selector2"),
    spf_include=SPF_INCLUDE,
)
"""Of a way that a tenant relays mail by."""

MAILBOX_TRAITS: Final = replace(
    TENANT_TRAITS,
    signing="rebuilt",
    volume="a mailbox may send 30 mails a minute and to 10,000 recipients a day",
    rate=Rate(per_minute=30, per_day=10_000),
    null_sender=False,
)
"""Of a way that sends as a mailbox: Exchange takes the mail into its store and writes it anew."""


def mailbox_traits(tenant: str, mailbox: str | None) -> Traits:
    """Of a kind that sends as a mailbox of `tenant`: `mailbox`, an address or object id, or the envelope sender's own.

    It counts for each mailbox, whether mail came by Graph or by SMTP; without `mailbox` all senders of the tenant are
    counted as one, which is never too little.
    """
    local, at, host = (mailbox or "").lower().rpartition("@")
    domain = names.normal(host)
    return replace(
        MAILBOX_TRAITS,
        return_path=domain if at else MAIL_FROM_DOMAIN,
        mailbox=f"{local}@{domain}" if at else "",
        account=f"exchange {tenant} {mailbox or '*'}".lower(),
    )
