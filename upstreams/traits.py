"""What is known of a way out beforehand: who signs, which return path a mail gets (dns-authentication.md 5), how much
an account may send.

Facts that each kind tells of its settings, for `dkim:`, `pace:`, `check` and `route`. Must never ask anybody, nor
promise what only the DNS or the provider can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from config.fields import Settings
from config.rules import Rate

FROM_DOMAIN: Final = "{from}"
"""Stands for the domain of the From field in `signs_as` and `return_path`."""
MAIL_FROM_DOMAIN: Final = "{mail_from}"
"""Stands for the domain of the envelope sender there."""

Signing = Literal["ours", "theirs", "rebuilt"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One upstream's. The default is a server that passes on what it is handed.

    `signing`: `ours`, the mail leaves as it is handed over and a signature of ours counts; `theirs`, the provider signs
    it, and ours is only added when asked for; `rebuilt`, the provider makes a new mail of it and signs that, so none of
    ours can live. `signer` is who signs then, with the condition, in words that follow "DKIM: ".
    `signs_as` is the d= they sign with. `return_path` is the domain SPF is checked for, "" for one of theirs that never
    aligns. `own_server`: nobody behind it signs, unless ops know better. `volume` is what one mailbox or tenant may
    send, where that is little, in words that follow "where". `selectors` are those of the provider's DKIM records below
    `signs_as`: the mail is signed when `all` of them, or `any` of them, exist. `spf_include` is what the SPF record of
    the return path must include for the provider's servers. `hidden_path` is True when the return path is a name that
    the provider makes up. `rate` is what the provider is known to allow an account,
    and `account` names it where several upstreams may send as the same one. `mailbox` is the address, in normal form,
    that all mail is sent as, and that From has to be; "" where any will do, or it is not known. `null_sender` is False
    where mail with the null sender cannot leave.
    """

    signing: Signing = "ours"
    signer: str = ""
    signs_as: str = FROM_DOMAIN
    return_path: str = MAIL_FROM_DOMAIN
    own_server: bool = False
    volume: str = ""
    selectors: tuple[str, ...] = ()
    selectors_needed: Literal["all", "any"] = "all"
    spf_include: str = ""
    hidden_path: bool = False
    rate: Rate = Rate()
    account: str = ""
    mailbox: str = ""
    null_sender: bool = True

    def takes_signature(self, *, always: bool) -> bool:
        """Whether a `dkim:` block of the route is applied here; `always` is that block's own word."""
        return self.signing == "ours" or (always and self.signing == "theirs")


CAMPAIGN_MONITOR: Final = Traits(
    signing="rebuilt",
    signer="Campaign Monitor signs, if the record cm._domainkey of the From domain is in place",
    return_path="",
    selectors=("cm",),
)
"""By its API as by SMTP: the return path is always theirs (campaign-monitor.md 3)."""


@runtime_checkable
class HasTraits(Protocol):
    """Settings of a kind that is more than a server that passes on what it is handed."""

    def traits(self) -> Traits:
        """What this upstream does to a mail's authentication."""


def traits_of(settings: Settings) -> Traits:
    """The traits of an upstream by its settings, of whatever kind."""
    return settings.traits() if isinstance(settings, HasTraits) else Traits()
