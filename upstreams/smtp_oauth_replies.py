"""What Exchange Online's refusals of client submission mean (provider page microsoft-365-smtp-oauth.md, section 6).

A refusal of the sender may come as late as the end of DATA. What is refused there is the route's, not the mail's.
"""

from __future__ import annotations

from typing import Final

from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.connector_replies import TENANT_ROWS
from upstreams.smtp_replies import SMTP_REPLIES, ReplyTable, Row

_HOUR: Final = 3600.0
_LOGIN: Final = (Stage.LOGIN,)
_SWITCHED_OFF: Final = "5.7.139"

_APP_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's Microsoft 365 administrator must register the app in Exchange with the object id of the enterprise "
    "application, and give it SMTP.SendAsApp for the mailbox: by RBAC for Applications, or with consent in Entra and "
    "access to the mailbox; a change may take two hours.",
    "De Microsoft 365-beheerder van de klant moet de app in Exchange registreren met de object-id van de "
    "bedrijfstoepassing (enterprise application) en haar SMTP.SendAsApp voor de mailbox geven: via RBAC for "
    "Applications, of met toestemming in Entra en toegang tot de mailbox; een wijziging kan twee uur duren.",
)
_OFF_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's administrator must allow SMTP AUTH for the mailbox, which wins over the "
    "tenant's switch: Set-CASMailbox -SmtpClientAuthenticationDisabled $false.",
    "De beheerder van de klant moet SMTP AUTH voor de mailbox toestaan, wat vóór de "
    "instelling van de tenant gaat: Set-CASMailbox -SmtpClientAuthenticationDisabled $false.",
)
_SHUT_OUT_HINT: Final = Hint(
    Who.CUSTOMER,
    "The customer's administrator must see in Entra's sign-in log what shuts the app out: "
    "SMTP AUTH, security defaults or a policy.",
    "De beheerder van de klant moet in het aanmeldingslogboek (sign-in log) van Entra "
    "nakijken wat de app buitensluit: SMTP AUTH, de standaardbeveiliging of een beleid.",
)
_SENDER_HINT: Final = Hint(
    Who.CUSTOMER,
    "MAIL FROM and From must be the mailbox that logs in: we set `sender:` or `mailbox:`, or "
    "the customer's administrator gives the mailbox Send As.",
    "MAIL FROM en From moeten de mailbox zijn die inlogt: wij zetten `sender:` of `mailbox:`, "
    "of de beheerder van de klant geeft de mailbox het recht Verzenden als.",
)
_SENDER_BY_PASSWORD_HINT: Final = Hint(
    Who.CUSTOMER,
    "MAIL FROM and From must be the mailbox that logs in: we set `sender:`, or the customer's administrator gives the "
    "mailbox Send As.",
    "MAIL FROM en From moeten de mailbox zijn die inlogt: wij zetten `sender:`, of de beheerder van de klant geeft de "
    "mailbox het recht Verzenden als.",
)
_NO_PASSWORDS_HINT: Final = Hint(
    Who.US,
    "Microsoft takes no passwords here any more: we move to `type: smtp_oauth` or `type: graph`, with an app of the "
    "customer's.",
    "Microsoft neemt hier geen wachtwoorden meer aan: wij stappen over op `type: smtp_oauth` of `type: graph`, met een "
    "app van de klant.",
)
_NO_LOGIN_HINT: Final = Hint(
    Who.US,
    "This host wants a login: give `username` and `password`, or write `type: smtp_oauth`.",
    "Deze host wil een aanmelding: vul `username` en `password` in, of schrijf `type: smtp_oauth`.",
)
_LOGGED_OUT_HINT: Final = Hint(
    Who.US,
    "Microsoft wants a login that was made: a fault of this relay, tell its maintainers.",
    "Microsoft vraagt om een aanmelding die al gedaan is: een fout van deze relay, meld het aan de makers.",
)
_SLOW_HINT: Final = Hint(
    Who.US,
    "Microsoft slows the mailbox down (30 mails a minute); a lower `pace` on the route helps.",
    "Microsoft remt de mailbox af (30 mails per minuut); een lagere `pace` op de route helpt.",
)
_CROWDED_HINT: Final = Hint(
    Who.US,
    "A mailbox takes 3 connections at one time: lower `connections` when others use it too.",
    "Een mailbox neemt 3 verbindingen tegelijk aan: verlaag `connections` als anderen haar ook gebruiken.",
)

_TEMPORARY: Final = (
    Row(Word.RETRY, (421, 432), ("4.3.2",), hint=_CROWDED_HINT),
    Row(Word.RETRY, (451,), ("4.7.0", "4.7.500-699"), hint=_SLOW_HINT),
    Row(
        Word.RETRY,
        (4,),
        stages=_LOGIN,
        hint=Hint(
            Who.NOBODY,
            "Microsoft cannot check logins just now; nobody has to do anything.",
            "Microsoft kan aanmeldingen nu even niet controleren; niemand hoeft iets te doen.",
        ),
    ),
)
_SHUT_OUT: Final = (
    Row(Word.CONFIG, (535,), (_SWITCHED_OFF,), ("SmtpClientAuthentication is disabled",), hint=_OFF_HINT),
    Row(Word.CONFIG, (535,), (_SWITCHED_OFF,), hint=_SHUT_OUT_HINT),
)
_REFUSED_LOGIN: Final = (
    Row(
        Word.CONFIG,
        (5,),
        ("5.7.30",),
        hint=Hint(
            Who.US,
            "Microsoft takes no password here, and we gave none: check `host`, or tell the relay's maintainers.",
            "Microsoft neemt hier geen wachtwoord aan, en wij gaven er geen: controleer `host`, of "
            "meld het aan de makers van de relay.",
        ),
    ),
    *_SHUT_OUT,
    Row(Word.CONFIG, (530,), hint=_LOGGED_OUT_HINT),
    Row(Word.CONFIG, (5,), stages=_LOGIN, hint=_APP_HINT),
)
_REFUSED_MAIL: Final = (
    Row(
        Word.CONFIG,
        (550, 554),
        words=("SubmissionQuotaExceeded",),
        hint=Hint(
            Who.CUSTOMER,
            "The mailbox has used its 10,000 recipients of 24 hours; it goes on by itself, or the "
            "customer gives us a second mailbox.",
            "De mailbox heeft haar 10.000 ontvangers van 24 uur verbruikt; het gaat vanzelf verder, "
            "of de klant geeft ons een tweede mailbox.",
        ),
        wait=_HOUR,
    ),
    Row(
        Word.CONFIG,
        (550, 554),
        words=(r"(?<!Submission)QuotaExceeded",),
        hint=Hint(
            Who.CUSTOMER,
            "The mailbox is full (Sent Items grows with every mail): the customer must empty it.",
            "De mailbox is vol (Verzonden items groeit met elke mail): de klant moet haar legen.",
        ),
    ),
    Row(
        Word.REJECT,
        (550, 552, 554),
        ("5.3.4", "5.2.3"),
        hint=Hint(
            Who.CALLPRO,
            "The mail is larger than the mailbox may send: send a smaller one.",
            "De mail is groter dan de mailbox mag versturen: verstuur een kleinere.",
        ),
    ),
    *TENANT_ROWS,
)


def _refused_sender(hint: Hint) -> tuple[Row, ...]:
    return (
        Row(Word.CONFIG, (550, 554), ("5.7.60", "5.2.252"), hint=hint),
        Row(Word.CONFIG, (550, 554), words=("SendAsDenied",), hint=hint),
    )


SMTP_OAUTH_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before(
    (
        *_TEMPORARY,
        *_REFUSED_LOGIN,
        Row(Word.CONFIG, (550,), ("5.7.57",), hint=_LOGGED_OUT_HINT),
        *_refused_sender(_SENDER_HINT),
        *_REFUSED_MAIL,
    )
)
"""Microsoft's rows in front of those of every server."""

PASSWORD_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before(
    (
        *_TEMPORARY,
        Row(Word.CONFIG, (5,), ("5.7.30",), hint=_NO_PASSWORDS_HINT),
        *_SHUT_OUT,
        Row(Word.CONFIG, (530, 550), ("5.7.57",), hint=_NO_LOGIN_HINT),
        *_refused_sender(_SENDER_BY_PASSWORD_HINT),
        *_REFUSED_MAIL,
    )
)
"""The same server, logged in to with a password (`type: smtp`)."""


def refuses_token(outcome: Outcome) -> bool:
    """True for a refused login that another token may mend. SMTP AUTH switched off is not one."""
    return outcome.stage is Stage.LOGIN and outcome.code == 535 and outcome.enhanced != _SWITCHED_OFF
