"""What Exchange Online's refusals of relayed mail mean (provider page microsoft-365-connector.md, section 5).

5.7.x from this host is nearly always the route, not the mail; what it says of one recipient comes first.
"""

from __future__ import annotations

from typing import Final

from routing.outcome import Stage, Word
from upstreams.smtp_replies import SMTP_REPLIES, ReplyTable, Row

_HOUR: Final = 3600.0
_MINUTE: Final = 60.0

_CONNECTOR_HINT: Final = (
    "The customer's Microsoft 365 administrator must let our IPv4 address in by an inbound connector of type "
    "\"your organisation's mail server\", and the sender's domain must be an accepted domain."
)
_HOST_HINT: Final = "We must write the `host` that the Microsoft 365 admin centre shows as the domain's MX."
_BLOCKED_HINT: Final = "We must ask for our address to be taken off Microsoft's block list, at the portal in the reply."
_DNS_HINT: Final = "The customer's DNS must name our address in SPF, or carry the DKIM and DMARC records of the domain."
_SLOW_HINT: Final = "Microsoft slows our address down; a lower `pace` on the route helps."
_IPV4_HINT: Final = "We must reach Microsoft over IPv4: look at the network and at `source_address`."
_SPAM_HINT: Final = "The customer's administrator must lift the block on the sender in Microsoft 365 Defender."
_RECIPIENT_HINT: Final = "The recipient's organisation does not take mail from this sender; only they can change it."

TENANT_ROWS: Final = (
    Row(Word.CONFIG, (550,), ("5.1.8", "5.7.501-503"), hint=_SPAM_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.705", "5.7.708"),
        hint="The customer must ask Microsoft to lift the limit on the tenant, which is typical of new and trial ones.",
    ),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.233",),
        hint="The tenant has used up its outside recipients of 24 hours; it goes on by itself, or with more licences.",
        wait=_HOUR,
    ),
)
"""What Exchange Online says of a sender or a tenant, whichever way the mail came."""

_SLOWER: Final = (
    Row(Word.CONFIG, (450,), ("4.7.25", "4.7.26"), hint=_IPV4_HINT),
    Row(Word.CONFIG, (451,), ("4.4.62",), hint=_HOST_HINT),
    Row(Word.RETRY, (452,), ("4.5.3",), hint=_SLOW_HINT, wait=_MINUTE),
    Row(Word.RETRY, (432,), ("4.3.2",), hint=_SLOW_HINT),
    Row(Word.RETRY, (421,), ("4.3.2",), hint=_SLOW_HINT),
    Row(Word.RETRY, (421, 451), ("4.7.500-699", "4.7.850-899"), hint=_SLOW_HINT),
)
_RECIPIENTS: Final = (
    Row(
        Word.REJECT, (550,), ("5.7.12", "5.7.124", "5.7.133-136", "5.7.504", "5.7.505", "5.7.507"), hint=_RECIPIENT_HINT
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.7.513",),
        hint="The recipient's organisation blocks our address; only they can lift it.",
    ),
    Row(Word.REJECT, (550,), ("5.7.512",), hint="CallPro's mail has no proper From header."),
    Row(Word.RETRY, (550,), ("5.2.121", "5.2.122"), hint="The recipient got too much mail this hour.", wait=_HOUR),
    Row(Word.REJECT, (550,), ("5.1.10",), hint="No such address: CallPro's data needs the right one."),
    Row(
        Word.REJECT,
        (550,),
        ("5.4.1",),
        ("recipient address rejected",),
        hint="No such address in the customer's organisation: CallPro's data needs the right one.",
    ),
    Row(Word.REJECT, (550,), ("5.6.11",), hint="The mail holds a bare line feed, which is our mistake."),
)
_ROUTE: Final = (
    Row(Word.CONFIG, (550,), ("5.7.64", "5.7.54"), hint=_CONNECTOR_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.68",),
        hint="The tenant refuses direct send and no connector knows us: " + _CONNECTOR_HINT,
    ),
    Row(Word.CONFIG, (530, 550), ("5.7.57",), hint="This host wants a login. " + _HOST_HINT),
    Row(Word.CONFIG, (550, 554), ("5.4.1",), ("relay access denied",), hint=_HOST_HINT),
    *TENANT_ROWS,
    Row(Word.CONFIG, (550,), ("5.7.506",), hint="We must give `hostname` in relay.yaml a full name that DNS knows."),
    Row(Word.CONFIG, (550,), ("5.7.508",), hint="Our address sent more than allowed; a lower `pace` is needed."),
    Row(Word.CONFIG, (550,), ("5.7.510",), hint=_IPV4_HINT),
    Row(Word.CONFIG, (550,), ("5.7.23", "5.7.509", "5.7.515"), hint=_DNS_HINT),
    Row(Word.CONFIG, (550,), ("5.7.511",), hint="We must write to the address in the reply: the sender is banned."),
    Row(Word.CONFIG, (550,), ("5.4.6", "5.4.14"), hint="The customer's connectors send the mail round in a circle."),
    Row(Word.CONFIG, (550,), ("5.7.606-649",), hint=_BLOCKED_HINT),
    Row(Word.CONFIG, (550,), ("5.7.750",), hint="The customer must add the sender's domain as an accepted domain."),
    Row(Word.CONFIG, (550,), ("5.7.1",), ("relay",), hint=_HOST_HINT),
    Row(Word.CONFIG, (530, 550, 554), ("5.7.*",), stages=(Stage.SENDER, Stage.RECIPIENT), hint=_CONNECTOR_HINT),
    Row(Word.CONFIG, (550,), ("5.7.*",), hint=_CONNECTOR_HINT),
)

CONNECTOR_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before((*_SLOWER, *_RECIPIENTS, *_ROUTE))
"""Microsoft's rows in front of those of every server."""
