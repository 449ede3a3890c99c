"""What SendGrid's SMTP server answers (sendgrid.md, section 1), whichever kind of upstream leads there.

It gives lasting troubles codes that look temporary; none of them must ever bounce a mail.
"""

from __future__ import annotations

from typing import Final

from routing.outcome import Hint, Stage, Who, Word
from upstreams.smtp_replies import SMTP_REPLIES, ReplyTable, Row

_MAIL: Final = (Stage.SENDER, Stage.RECIPIENT, Stage.CONTENT)

SENDGRID_REPLIES: Final[ReplyTable] = SMTP_REPLIES.before(
    (
        Row(
            Word.CONFIG,
            (4, 5),
            words=("maximum credits exceeded",),
            hint=Hint(
                Who.US,
                "The SendGrid account is out of credits or unpaid: its owner must raise or pay the plan.",
                "Het SendGrid-account heeft geen tegoed meer of is niet betaald: de eigenaar moet het "
                "abonnement verhogen of betalen.",
            ),
        ),
        Row(
            Word.CONFIG,
            (403,),
            hint=Hint(
                Who.US,
                "Whoever manages the SendGrid account must give the API key Mail Send and verify this sender.",
                "De beheerder van het SendGrid-account moet de API-sleutel Mail Send geven en deze "
                "afzender verifiëren.",
            ),
        ),
        Row(
            Word.CONFIG,
            (535,),
            hint=Hint(
                Who.US,
                "The API key is wrong, revoked or of another region: whoever manages the SendGrid account "
                "must make a new one.",
                "De API-sleutel is fout, ingetrokken of van een andere regio: de beheerder van het "
                "SendGrid-account moet een nieuwe maken.",
            ),
        ),
        Row(
            Word.CONFIG,
            (550,),
            words=("unauthenticated senders not allowed", "verified sender identity"),
            hint=Hint(
                Who.US,
                "Whoever manages the SendGrid account must verify this sender or authenticate its domain.",
                "De beheerder van het SendGrid-account moet deze afzender verifiëren of het domein ervan "
                "authenticeren.",
            ),
        ),
        Row(
            Word.REJECT,
            (552,),
            stages=_MAIL,
            hint=Hint(
                Who.CALLPRO,
                "The mail is larger than SendGrid takes (30 MB): send a smaller one.",
                "De mail is groter dan SendGrid aanneemt (30 MB): verstuur een kleinere.",
            ),
        ),
        Row(
            Word.REJECT,
            (553, 554),
            stages=_MAIL,
            hint=Hint(
                Who.CALLPRO,
                "SendGrid does not take this address or this mail; the reply says why.",
                "SendGrid neemt dit adres of deze mail niet aan; in het antwoord staat waarom.",
            ),
        ),
    )
)
"""In front of the rows of every server."""
