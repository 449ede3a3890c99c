"""What an SMTP reply means for the mail: a table of rows, the first that fits decides.

The rows here are those every server shares (provider page smtp-login.md, sections 2 and 3); a kind with replies of
its own puts its rows in front. This file must never decide by the text alone where a code says enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from routing.outcome import BEFORE_MAIL, Hint, Outcome, Stage, Who, Word

_ENHANCED: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply. `text` is one line: the lines of a longer reply are joined by a space, without their codes."""

    code: int
    text: str

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code (RFC 3463) at the head of the text."""
        match = _ENHANCED.match(self.text)
        return match[0] if match else None

    @property
    def positive(self) -> bool:
        """2yz: done as asked (RFC 5321 4.2.1)."""
        return 200 <= self.code <= 299

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a reply table. An empty condition fits all.

    `codes` are basic codes (550) or their first digit (5). `enhanced` are statuses (`5.7.64`), ranges (`5.7.606-649`),
    families (`5.7.*`) or "" for a reply without one. `words` are regular expressions, any of which must be found in
    the text (case does not matter). `wait` is in seconds. `hint` is one plain sentence: who must do what.
    """

    word: Word
    codes: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    hint: Hint | None = None
    wait: float | None = None

    def fits(self, reply: Reply, stage: Stage) -> bool:
        """True when every condition holds for `reply` at `stage`."""
        return (
            (not self.stages or stage in self.stages)
            and (not self.codes or reply.code in self.codes or reply.code // 100 in self.codes)
            and (not self.enhanced or any(_covers(pattern, _status(reply)) for pattern in self.enhanced))
            and (not self.words or any(re.search(word, reply.text, re.IGNORECASE) for word in self.words))
        )


class ReplyTable:
    """Rows in order of trust. `classify` gives the outcome of a refusal; it never says SENT."""

    def __init__(self, *rows: Row) -> None:
        self.rows: Final = rows

    def classify(self, reply: Reply, stage: Stage) -> Outcome:
        """The outcome of a reply that did not say yes."""
        row = next((row for row in self.rows if row.fits(reply, stage)), _GARBAGE)
        word = Word.CONFIG if row.word is Word.REJECT and stage in BEFORE_MAIL else row.word
        return Outcome(word, str(reply), stage, reply.code, reply.enhanced, wait=row.wait, hint=row.hint)

    def before(self, rows: Iterable[Row]) -> ReplyTable:
        """This table with `rows` in front."""
        return ReplyTable(*rows, *self.rows)


def _status(reply: Reply) -> str:
    """The enhanced code where its class agrees with the basic code; the basic code wins where they disagree."""
    enhanced = reply.enhanced
    return enhanced if enhanced and enhanced[0] == str(reply.code)[0] else ""


def _covers(pattern: str, status: str) -> bool:
    if pattern == status:
        return True
    head, _, detail = status.rpartition(".")
    wanted_head, _, wanted = pattern.rpartition(".")
    if not status or head != wanted_head:
        return False
    low, dash, high = wanted.partition("-")
    return wanted == "*" or bool(dash and int(low) <= int(detail) <= int(high))


_GARBAGE: Final = Row(
    Word.RETRY,
    hint=Hint(
        Who.US,
        "The server's answer is not SMTP; look at what listens on that host and port.",
        "Het antwoord van de server is geen SMTP; kijk wat er op die host en poort luistert.",
    ),
)

_LOGIN: Final = (Stage.LOGIN,)
_ABOUT_LOGIN: Final = ("authenticat", r"\bauth\b", r"\blog ?-?in\b")
_ABOUT_RELAY: Final = (
    r"relay(ing)? (access )?(is )?(denied|not (permitted|allowed)|prohibited)",
    r"(unable|not (permitted|allowed)) to relay",
    r"authentication (is )?(required|needed)",
    r"(must|need to|please) (first )?(authenticate|log ?in)",
    "not authenticated",
)
_NOT_OURS: Final = Hint(
    Who.CUSTOMER,
    "The customer's mail administrator must let this login send for the domain of the sender.",
    "De mailbeheerder van de klant moet deze login laten versturen voor het domein van de afzender.",
)

LOGIN_ROWS: Final = (
    Row(
        Word.CONFIG,
        (432,),
        ("4.7.12", ""),
        stages=_LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "The customer must log in once in another way, so that the password is moved to the new mechanism.",
            "De klant moet één keer op een andere manier inloggen, zodat het wachtwoord naar het "
            "nieuwe mechanisme wordt overgezet.",
        ),
    ),
    Row(
        Word.RETRY,
        (4,),
        stages=_LOGIN,
        hint=Hint(
            Who.NOBODY,
            "The server cannot check logins just now; nobody has to do anything.",
            "De server kan aanmeldingen nu even niet controleren; niemand hoeft iets te doen.",
        ),
    ),
    Row(
        Word.CONFIG,
        (500, 501),
        stages=_LOGIN,
        hint=Hint(
            Who.US,
            "The server cannot read this user name or password: look at how we wrote them.",
            "De server kan deze gebruikersnaam of dit wachtwoord niet lezen: kijk na hoe wij ze hebben ingevuld.",
        ),
    ),
    Row(
        Word.CONFIG,
        (504,),
        stages=_LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "The server offers a login mechanism that it does not carry out: the customer's mail "
            "administrator must mend that.",
            "De server biedt een aanmeldmethode aan die hij niet uitvoert: de mailbeheerder van de "
            "klant moet dat herstellen.",
        ),
    ),
    Row(
        Word.CONFIG,
        (530,),
        stages=_LOGIN,
        hint=Hint(
            Who.US,
            "The server wants TLS before the login: set `tls: starttls`.",
            "De server wil TLS vóór de aanmelding: zet `tls: starttls`.",
        ),
    ),
    Row(
        Word.CONFIG,
        (534,),
        stages=_LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "The customer must make an app password, or allow a plain login for this mailbox.",
            "De klant moet een app-wachtwoord maken, of voor deze mailbox een gewone aanmelding toestaan.",
        ),
    ),
    Row(
        Word.CONFIG,
        (535,),
        stages=_LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "The user name or password is wrong: ask the customer for the right one before the account is locked.",
            "De gebruikersnaam of het wachtwoord klopt niet: vraag de klant om de juiste voordat het "
            "account wordt geblokkeerd.",
        ),
    ),
    Row(
        Word.CONFIG,
        (538,),
        stages=_LOGIN,
        hint=Hint(
            Who.US,
            "The server wants TLS for this login: set `tls: starttls`.",
            "De server wil TLS voor deze aanmelding: zet `tls: starttls`.",
        ),
    ),
    Row(
        Word.CONFIG,
        (5,),
        stages=_LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "The server refuses the login: ask the customer why.",
            "De server weigert de aanmelding: vraag de klant waarom.",
        ),
    ),
)
"""Replies to AUTH (RFC 4954 sections 4 and 6; smtp-login.md section 2)."""

MAIL_ROWS: Final = (
    Row(Word.RETRY, (4,)),
    Row(
        Word.CONFIG,
        (503,),
        words=_ABOUT_LOGIN,
        hint=Hint(
            Who.US,
            "The server wants a login: give `username` and `password`.",
            "De server wil een aanmelding: vul `username` en `password` in.",
        ),
    ),
    Row(
        Word.REJECT,
        (500, 501, 502, 503, 504),
        hint=Hint(
            Who.CALLPRO,
            "The address is bad, or the server does not take our command: look at the address in CallPro.",
            "Het adres is fout, of de server neemt onze opdracht niet aan: kijk het adres in CallPro na.",
        ),
    ),
    Row(
        Word.REJECT,
        (521, 556),
        hint=Hint(
            Who.CALLPRO,
            "That host or domain takes no mail at all: look at the address in CallPro.",
            "Die host of dat domein neemt helemaal geen mail aan: kijk het adres in CallPro na.",
        ),
    ),
    Row(
        Word.CONFIG,
        (530, 534, 535, 538),
        hint=Hint(
            Who.US,
            "The server wants a login or TLS first: compare `username`, `password` and `tls` with what it asks for.",
            "De server wil eerst een aanmelding of TLS: vergelijk `username`, `password` en `tls` met wat hij vraagt.",
        ),
    ),
    Row(Word.CONFIG, (550,), ("5.7.1",), ("authenticat", "relay", "not permitted"), hint=_NOT_OURS),
    Row(Word.CONFIG, (550, 553, 554), ("5.7.1", ""), _ABOUT_RELAY, hint=_NOT_OURS),
    Row(Word.CONFIG, (550,), ("5.1.7", "5.1.8"), hint=_NOT_OURS),
    Row(Word.CONFIG, (553,), ("5.1.8", "5.7.1"), hint=_NOT_OURS),
    Row(
        Word.CONFIG,
        (550,),
        ("5.4.5",),
        hint=Hint(
            Who.CUSTOMER,
            "The login's daily limit is used up; it begins again tomorrow, or the customer raises it.",
            "De daglimiet van deze login is verbruikt; morgen begint hij opnieuw, of de klant verhoogt hem.",
        ),
        wait=3600.0,
    ),
    Row(
        Word.REJECT,
        (550,),
        ("5.1.1", "5.1.2", "5.1.3"),
        hint=Hint(
            Who.CALLPRO,
            "No such address: CallPro's data needs the right one.",
            "Dit adres bestaat niet: zet het juiste in CallPro.",
        ),
    ),
    Row(
        Word.REJECT,
        (551, 553),
        hint=Hint(
            Who.CALLPRO,
            "The server does not take mail for that address: look at the address in CallPro.",
            "De server neemt geen mail voor dat adres aan: kijk het adres in CallPro na.",
        ),
    ),
    Row(
        Word.REJECT,
        (552,),
        ("5.3.4",),
        hint=Hint(
            Who.CALLPRO,
            "The mail is larger than the server takes: send a smaller one.",
            "De mail is groter dan de server aanneemt: verstuur een kleinere.",
        ),
    ),
    Row(
        Word.REJECT,
        (552,),
        hint=Hint(
            Who.RECIPIENT,
            "The recipient's mailbox is full; only they can empty it.",
            "De mailbox van de ontvanger is vol; alleen de ontvanger kan die legen.",
        ),
    ),
    Row(
        Word.REJECT,
        (554,),
        ("5.7.*",),
        hint=Hint(
            Who.US,
            "The server's policy refuses the mail; after 20 in a row the route is held, as that is a block on us.",
            "Het beleid van de server weigert de mail; na 20 achter elkaar wacht de route: dan zijn wij geblokkeerd.",
        ),
    ),
    Row(Word.REJECT, (5,)),
)
"""Replies to MAIL, RCPT, DATA and the final dot (smtp-login.md section 3)."""

_GOOGLE: Final = (r"\bgsmtp\b", r"support\.google\.com")
GOOGLE_ROWS: Final = (
    Row(
        Word.CONFIG,
        (421, 450, 451),
        ("4.7.23", "4.7.26", "4.7.27", "4.7.29-32", "4.7.40"),
        _GOOGLE,
        hint=Hint(
            Who.US,
            "Google misses reverse DNS, TLS, SPF, DKIM or DMARC of ours or of the sender's domain, which does not heal "
            "by itself: `callpro-relay doctor` says what.",
            "Google mist reverse DNS, TLS, SPF, DKIM of DMARC van ons of van het domein van de afzender, en dat gaat "
            "niet vanzelf over: `callpro-relay doctor` zegt wat.",
        ),
    ),
)
"""Temporary by their codes alone (dns-authentication.md 4). Elsewhere the same codes mean other things (RFC 7372)."""

SMTP_ROWS: Final = (
    *GOOGLE_ROWS,
    Row(Word.RETRY, (421,)),
    *LOGIN_ROWS,
    Row(
        Word.RETRY,
        (4,),
        stages=(Stage.TLS,),
        hint=Hint(
            Who.NOBODY,
            "The server cannot do TLS just now; it is never left out.",
            "De server kan nu even geen TLS; zonder TLS versturen we nooit.",
        ),
    ),
    Row(
        Word.CONFIG,
        (5,),
        stages=BEFORE_MAIL,
        hint=Hint(
            Who.CUSTOMER,
            "The server turns us away before any mail: its administrator must let our address in.",
            "De server weigert ons nog vóór er mail is: de beheerder ervan moet ons adres toelaten.",
        ),
    ),
    *MAIL_ROWS,
)
SMTP_REPLIES: Final = ReplyTable(*SMTP_ROWS)
"""The table for a server nothing more is known about."""
