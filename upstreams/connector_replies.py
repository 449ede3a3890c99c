"""What Exchange Online's refusals of relayed mail mean (provider page microsoft-365-connector.md, section 5).

5.7.x from this host is nearly always the route, not the mail; what it says of one recipient comes first.
"""

from __future__ import annotations

from typing import Final

from routing.outcome import Hint, Stage, Who, Word
from upstreams.smtp_replies import SMTP_REPLIES, ReplyTable, Row

_HOUR: Final = 3600.0
_MINUTE: Final = 60.0
_MAIL: Final = (Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT)
_THROTTLED: Final = ("4.7.500-699", "4.7.850-899")
"""Our address is slowed down: "slow down the whole route" says the page, so all mail waits a minute."""

_CONNECTOR_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's Microsoft 365 administrator must let our IPv4 address in by an inbound "
    "connector of type \"your organisation's mail server\", and the sender's domain must be "
    "an accepted domain.",
    "De Microsoft 365-beheerder van de klant moet ons IPv4-adres toelaten met een inkomende "
    'connector van het type "e-mailserver van uw organisatie", en het domein van de afzender '
    "moet een geaccepteerd domein zijn.",
)
_HOST_HINT: Final = Hint(
    Who.US,
    "We must write the `host` that the Microsoft 365 admin centre shows as the domain's MX.",
    "Wij moeten de `host` invullen die het Microsoft 365-beheercentrum als MX van het domein toont.",
)
_BLOCKED_HINT: Final = Hint(
    Who.US,
    "We must ask for our address to be taken off Microsoft's block list, at the portal in the reply.",
    "Wij moeten vragen ons adres van de blokkeerlijst van Microsoft te halen, bij het portaal uit het antwoord.",
)
_DNS_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's DNS administrator must name our address in SPF, or publish the DKIM and "
    "DMARC records of the domain.",
    "De beheerder van het DNS van de klant moet ons adres in het SPF-record opnemen, of de "
    "DKIM- en DMARC-records van het domein plaatsen.",
)
_SLOW_HINT: Final = Hint(
    Who.US,
    "Microsoft slows our address down; a lower `pace` on the route helps.",
    "Microsoft remt ons adres af; een lagere `pace` op de route helpt.",
)
_IPV4_HINT: Final = Hint(
    Who.US,
    "We must reach Microsoft over IPv4: look at the network and at `source_address`.",
    "Wij moeten Microsoft via IPv4 bereiken: kijk naar het netwerk en naar `source_address`.",
)
_SPAM_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's administrator must lift the block on the sender in Microsoft 365 Defender.",
    "De beheerder van de klant moet de blokkade van de afzender opheffen in Microsoft 365 Defender.",
)
_RECIPIENT_HINT: Final = Hint(
    Who.RECIPIENT,
    "The recipient's organisation does not take mail from this sender; only they can change it.",
    "De organisatie van de ontvanger neemt geen mail van deze afzender aan; alleen zij kan dat veranderen.",
)

TENANT_ROWS: Final = (
    Row(Word.CONFIG, (550,), ("5.1.8", "5.7.501-503"), hint=_SPAM_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.705", "5.7.708"),
        hint=Hint(
            Who.CUSTOMER,
            "The customer must ask Microsoft to lift the limit on the tenant, which is typical of new and trial ones.",
            "De klant moet Microsoft vragen de limiet van de tenant op te heffen; nieuwe en "
            "proeftenants hebben die vaak.",
        ),
    ),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.233",),
        hint=Hint(
            Who.CUSTOMER,
            "The tenant has used up its outside recipients of 24 hours; it goes on by itself, or the "
            "customer takes more licences.",
            "De tenant heeft het aantal externe ontvangers van 24 uur verbruikt; het gaat vanzelf "
            "verder, of de klant neemt meer licenties.",
        ),
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
    Row(Word.WAIT, (421, 451), _THROTTLED, stages=_MAIL, hint=_SLOW_HINT, wait=_MINUTE),
    Row(Word.RETRY, (421, 451), _THROTTLED, hint=_SLOW_HINT),
)
_RECIPIENTS: Final = (
    Row(
        Word.REJECT, (550,), ("5.7.12", "5.7.124", "5.7.133-136", "5.7.504", "5.7.505", "5.7.507"), hint=_RECIPIENT_HINT
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.7.513",),
        hint=Hint(
            Who.RECIPIENT,
            "The recipient's organisation blocks our address; only they can lift it.",
            "De organisatie van de ontvanger blokkeert ons adres; alleen zij kan dat opheffen.",
        ),
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.7.512",),
        hint=Hint(
            Who.CALLPRO,
            "CallPro's mail has no proper From field: mend it in CallPro.",
            "De mail van CallPro heeft geen goede From-regel: herstel dat in CallPro.",
        ),
    ),
    Row(
        Word.RETRY,
        (550,),
        ("5.2.121", "5.2.122"),
        hint=Hint(
            Who.NOBODY,
            "The recipient got too much mail this hour; it goes on by itself.",
            "De ontvanger kreeg dit uur te veel mail; het gaat vanzelf verder.",
        ),
        wait=_HOUR,
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.1.10",),
        hint=Hint(
            Who.CALLPRO,
            "No such address: CallPro's data needs the right one.",
            "Dit adres bestaat niet: zet het juiste in CallPro.",
        ),
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.4.1",),
        ("recipient address rejected",),
        hint=Hint(
            Who.CALLPRO,
            "No such address in the customer's organisation: CallPro's data needs the right one.",
            "Dit adres bestaat niet in de organisatie van de klant: zet het juiste in CallPro.",
        ),
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.6.11",),
        hint=Hint(
            Who.US,
            "The mail holds a bare line feed, which is a fault of this relay: tell its maintainers.",
            "In de mail staat een losse regelovergang (LF); dat is een fout van deze relay: meld het aan de makers.",
        ),
    ),
)
_ROUTE: Final = (
    Row(Word.CONFIG, (550,), ("5.7.64", "5.7.54"), hint=_CONNECTOR_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.68",),
        hint=_CONNECTOR_HINT.after(
            "The tenant refuses direct send and no connector knows us.",
            "De tenant weigert direct send en geen connector kent ons.",
        ),
    ),
    Row(
        Word.CONFIG,
        (530, 550),
        ("5.7.57",),
        hint=_HOST_HINT.after("This host wants a login.", "Deze host wil een aanmelding."),
    ),
    Row(Word.CONFIG, (550, 554), ("5.4.1",), ("relay access denied",), hint=_HOST_HINT),
    *TENANT_ROWS,
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.506",),
        hint=Hint(
            Who.US,
            "We must give `hostname` in relay.yaml a full name that DNS knows.",
            "Wij moeten `hostname` in relay.yaml een volledige naam geven die in het DNS staat.",
        ),
    ),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.508",),
        hint=Hint(
            Who.US,
            "Our address sent more than allowed: we must set a lower `pace`.",
            "Ons adres verstuurde meer dan is toegestaan; wij moeten een lagere `pace` instellen.",
        ),
    ),
    Row(Word.CONFIG, (550,), ("5.7.510",), hint=_IPV4_HINT),
    Row(Word.CONFIG, (550,), ("5.7.23", "5.7.509", "5.7.515"), hint=_DNS_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.511",),
        hint=Hint(
            Who.US,
            "We must write to the address in the reply: the sender is banned.",
            "Wij moeten naar het adres uit het antwoord schrijven: de afzender is geblokkeerd.",
        ),
    ),
    Row(
        Word.CONFIG,
        (550,),
        ("5.4.6", "5.4.14"),
        hint=Hint(
            Who.CUSTOMER,
            "The customer's connectors send the mail round in a circle: their administrator must look at them.",
            "De connectors van de klant sturen de mail in een kring rond: de beheerder moet ze nakijken.",
        ),
    ),
    Row(Word.CONFIG, (550,), ("5.7.606-649",), hint=_BLOCKED_HINT),
    Row(
        Word.CONFIG,
        (550,),
        ("5.7.750",),
        hint=Hint(
            Who.CUSTOMER,
            "The customer must add the sender's domain as an accepted domain.",
            "De klant moet het domein van de afzender als geaccepteerd domein toevoegen.",
        ),
    ),
    Row(Word.CONFIG, (550,), ("5.7.1",), ("relay",), hint=_HOST_HINT),
    Row(Word.CONFIG, (530, 550, 554), ("5.7.*",), stages=(Stage.SENDER, Stage.RECIPIENT), hint=_CONNECTOR_HINT),
    Row(Word.CONFIG, (550,), ("5.7.*",), hint=_CONNECTOR_HINT),
)

CONNECTOR_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before((*_SLOWER, *_RECIPIENTS, *_ROUTE))
"""Microsoft's rows in front of those of every server."""
