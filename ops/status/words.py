"""The page's words in English and Dutch. The English sentence is the key, so that templates read as what they say.

Times and sizes are the same in both. Must never fall back in silence: a sentence without its Dutch fails a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Literal

from ops import nodes

Language = Literal["en", "nl"]
Say = Callable[..., str]

DUTCH: Final[Mapping[str, str]] = MappingProxyType(
    {
        # the frame
        "Mail relay": "Mailrelay",
        "Overview": "Overzicht",
        "Mail": "Mail",
        "Volumes": "Aantallen",
        "Rules": "Regels",
        "Orders": "Opdrachten",
        "Log in": "Inloggen",
        "Log out": "Uitloggen",
        "Language": "Taal",
        "Skip to the content": "Naar de inhoud",
        "as of {time}": "stand van {time}",
        "All is well": "Alles in orde",
        "The database takes no mail since {time}. New mail is kept on this machine ({count}); nothing is sent.": (
            "De database neemt al {time} geen mail aan. Nieuwe mail blijft op deze machine ({count}); er wordt niets "
            "verzonden."
        ),
        "{count} mails are on their way from this machine's buffer to the database.": (
            "{count} mails zijn onderweg van de buffer van deze machine naar de database."
        ),
        "Not all is well": "Niet alles is in orde",
        "The relay works; needing attention: {count}": "De relay werkt; vraagt aandacht: {count}",
        "The last reload was refused; older rules count": "De laatste reload is geweigerd; oudere regels gelden",
        # searching
        "Find mail": "Mail zoeken",
        "Recipient, @domain or mail id": "Ontvanger, @domein of mail-id",
        "Sender": "Afzender",
        "Recipient": "Ontvanger",
        "Search": "Zoek",
        "Nothing found.": "Niets gevonden.",
        "Mail to {what}": "Mail aan {what}",
        "Mail from {what}": "Mail van {what}",
        "Waiting mail": "Wachtende mail",
        "Waiting mail of route {what}": "Wachtende mail van route {what}",
        "Done with": "Afgehandeld",
        "the newest first": "nieuwste eerst",
        "the oldest first": "oudste eerst",
        "More": "Meer",
        "only the newest {count}": "alleen de nieuwste {count}",
        # tiles and tables
        "waiting": "wachtend",
        "oldest": "oudste",
        "on hold": "vastgehouden",
        "accepted in the last hour": "aangenomen, laatste uur",
        "delivered in the last hour": "bezorgd, laatste uur",
        "failed in 24 hours": "mislukt in 24 uur",
        "under way": "onderweg",
        "Queue": "Wachtrij",
        "Route": "Route",
        "Customer": "Klant",
        "Mails": "Mails",
        "Waiting": "Wachtend",
        "Oldest": "Oudste",
        "Under way": "Onderweg",
        "Empty": "Leeg",
        "No mail waits.": "Er wacht geen mail.",
        "nothing limits it": "niets beperkt hem",
        "not within two months at its pace": "niet binnen twee maanden in dit tempo",
        "in {time}": "over {time}",
        "{time} ago": "{time} geleden",
        "Daily limits": "Daglimieten",
        "{used} of {limit} recipients in 24 hours": "{used} van {limit} ontvangers in 24 uur",
        "not reached as things go": "wordt zo niet bereikt",
        "reached": "bereikt",
        "reached in {time}": "bereikt over {time}",
        # what needs attention
        "Needs attention": "Vraagt aandacht",
        "Nothing is on hold, and everybody answers.": "Niets wordt vastgehouden en iedereen antwoordt.",
        "Route {route} cannot leave by {upstream}": "Route {route} kan niet weg via {upstream}",
        "for {time}": "sinds {time}",
        "next try in {time}": "volgende poging over {time}",
        "Its mail is kept, and nothing is lost.": "De mail blijft bewaard, er gaat niets verloren.",
        "On {node} alone": "Alleen op {node}",
        "What to do": "Wat te doen",
        "They said": "Zij zeiden",
        "Nobody answers at {upstream}": "Niemand antwoordt bij {upstream}",
        "It is asked again by itself; its mail waits or takes the next way.": "Het wordt vanzelf opnieuw geprobeerd; "
        "de mail wacht of neemt de volgende weg.",
        "Held by {who}": "Vastgehouden door {who}",
        "mail {subject}": "mail {subject}",
        "route {subject}": "route {subject}",
        "sender {subject}": "afzender {subject}",
        "Its mail waits until somebody releases it.": "De mail wacht tot iemand haar vrijgeeft.",
        "the customer's administrator": "de beheerder van de klant",
        "us": "wij",
        "who keeps CallPro": "de beheerder van CallPro",
        "the recipient's side": "de kant van de ontvanger",
        "nobody: it goes on by itself": "niemand: het gaat vanzelf verder",
        # slow and old
        "Oldest waiting mail": "Oudste wachtende mail",
        "Slowest mail of the last 24 hours": "Traagste mail van de laatste 24 uur",
        "No mail took more than a minute.": "Geen mail deed er langer dan een minuut over.",
        "took {time}": "duurde {time}",
        # volumes
        "last hour": "laatste uur",
        "last day": "laatste dag",
        "last month": "laatste maand",
        "Recipients": "Ontvangers",
        "accepted": "aangenomen",
        "delivered": "bezorgd",
        "failed": "mislukt",
        "Accepted": "Aangenomen",
        "Delivered": "Bezorgd",
        "Failed": "Mislukt",
        "By route and customer": "Per route en klant",
        "Course": "Verloop",
        "reports": "rapporten",
        "all others": "alle andere",
        "No mail went through in this time.": "Er ging in deze tijd geen mail door.",
        "The largest {count} are shown.": "De grootste {count} worden getoond.",
        "{delivered} delivered, {failed} failed, {accepted} accepted": "{delivered} bezorgd, {failed} mislukt, "
        "{accepted} aangenomen",
        # one mail
        "From": "Van",
        "To": "Aan",
        "Received": "Ontvangen",
        "State": "Stand",
        "Size": "Grootte",
        "Message-ID": "Message-ID",
        "Timeline": "Verloop",
        "received": "ontvangen",
        "repaired": "hersteld",
        "attempt": "poging",
        "note": "notitie",
        "deferred": "uitgesteld",
        "bounced": "teruggestuurd",
        "dropped": "verwijderd",
        "complained": "klacht",
        "expired": "verlopen",
        "There is no such mail, or its history is over.": "Die mail is er niet, of de geschiedenis ervan is voorbij.",
        "under way now": "nu onderweg",
        "due now": "nu aan de beurt",
        "waits for its pace by {upstream}, next mail in {time}": "wacht op tempo van {upstream}, volgende over {time}",
        "waits for {upstream}, next try in {time}": "wacht op {upstream}, volgende poging over {time}",
        "released just now": "zojuist vrijgegeven",
        "next try in {time}, tried {count} times": "volgende poging over {time}, {count} keer geprobeerd",
        "done": "klaar",
        "on hold by {who}": "vastgehouden door {who}",
        "and {count} more": "en nog {count}",
        # acting
        "Hold": "Vasthouden",
        "Release": "Vrijgeven",
        "Try now": "Nu proberen",
        "Drop": "Verwijderen",
        "Hold this route": "Deze route vasthouden",
        "Release this route": "Deze route vrijgeven",
        "Try its mail now": "Mail ervan nu proberen",
        "Drop its waiting mail": "Wachtende mail ervan verwijderen",
        "Reason": "Reden",
        "Drop {count} mails?": "{count} mails verwijderen?",
        "Nobody is told, and the content is gone for good.": "Niemand krijgt bericht, en de inhoud is voorgoed weg.",
        "Yes, drop": "Ja, verwijderen",
        "No, keep": "Nee, behouden",
        "Done: {done}. Left alone: {left}.": "Gedaan: {done}. Ongemoeid gelaten: {left}.",
        "Nothing was done: {left} left alone.": "Niets gedaan: {left} ongemoeid gelaten.",
        "Nothing was on hold there.": "Daar werd niets vastgehouden.",
        # orders
        "When": "Wanneer",
        "Who": "Wie",
        "What": "Wat",
        "About": "Over",
        "Done": "Gedaan",
        "Left alone": "Ongemoeid",
        "No orders were given yet.": "Er zijn nog geen opdrachten gegeven.",
        "Latest orders": "Laatste opdrachten",
        "hold": "vasthouden",
        "release": "vrijgeven",
        "retry": "nu proberen",
        "drop": "verwijderen",
        # rules
        "Routes": "Routes",
        "Upstreams": "Upstreams",
        "Mail from": "Mail van",
        "Leaves by": "Gaat weg via",
        "Also": "Verder",
        "Where it stands": "Waar het staat",
        "Name": "Naam",
        "Kind": "Soort",
        "Settings": "Instellingen",
        "then": "daarna",
        "null sender": "lege afzender",
        "Changed by the last reload": "Veranderd door de laatste reload",
        "added": "toegevoegd",
        "removed": "weggehaald",
        "changed": "veranderd",
        "loaded {time} ago": "{time} geleden geladen",
        # several relays
        "Relays": "Relays",
        "This relay has its spool to itself.": "Deze relay heeft haar spool voor zich alleen.",
        "Relays on this spool: {count}": "Relays op deze spool: {count}",
        "All give signs of life, with the same rules and version.": "Alle geven tekens van leven, met dezelfde "
        "regels en versie.",
        "Since": "Sinds",
        "Last sign of life": "Laatste teken van leven",
        "Version": "Versie",
        "Clock": "Klok",
        "this one": "deze",
        "late": "te laat",
        "Rules: the same letters mean the same rules. Clock: how far it is ahead of the database's.": "Regels: "
        "dezelfde letters betekenen dezelfde regels. Klok: hoeveel deze voorloopt op die van de database.",
        "No relay has mail under way.": "Geen enkele relay heeft mail onderweg.",
        nodes.SILENT: "Geen teken van leven van {node} sinds {time}",
        nodes.LOOK: "Kijk daar: systemctl status callpro-relay. Na {lease} stilte nemen de andere haar mail over.",
        nodes.RULES_ODD: "Andere regels dan de rest: {node}",
        nodes.RULES_COPY: "Kopieer routes.yaml en routes.d van een andere relay daarheen, en dan daar: systemctl "
        "reload callpro-relay. Zijn de bestanden al gelijk? Dan ontbreekt alleen de reload, of hij is geweigerd: "
        "callpro-relay check zegt waarom.",
        nodes.RULES_DIFFER: "De regels van de relays verschillen: {nodes}",
        nodes.RULES_CHOOSE: "Kopieer routes.yaml en routes.d van de relay die gelijk heeft naar de andere, en dan "
        "daar: systemctl reload callpro-relay",
        nodes.VERSION_ODD: "Andere versie dan de rest: {node} ({version})",
        nodes.VERSIONS_DIFFER: "De versies van de relays verschillen: {nodes}",
        nodes.RENEW: "Maak de vernieuwing af: overal dezelfde versie, de ene relay na de andere.",
        nodes.BEHIND: "De klok van {node} loopt {seconds} s achter op die van de database",
        nodes.AHEAD: "De klok van {node} loopt {seconds} s voor op die van de database",
        nodes.SET_CLOCK: "Zet haar gelijk: timedatectl op die machine zegt of zij wordt bijgehouden.",
        # log in
        "Token": "Token",
        "Your name, for the record of orders": "Uw naam, voor de lijst van opdrachten",
        "That is not the token.": "Dat is niet het token.",
        "Too many tries; wait a minute.": "Te veel pogingen; wacht een minuut.",
        "This page only shows: `status.token` in relay.yaml is what lets people act.": "Deze pagina toont alleen: met "
        "`status.token` in relay.yaml kan er ook iets gedaan worden.",
        # errors
        "There is no such page.": "Die pagina bestaat niet.",
        "The form is from another session; go back, renew the page and try again.": "Het formulier is van een andere "
        "sessie; ga terug, ververs de pagina en probeer het opnieuw.",
        "This page failed by a bug of ours; the log says more.": "Deze pagina mislukte door een fout van ons; het log "
        "zegt meer.",
        "The spool cannot be read just now": "De spool is nu niet te lezen",
        "Expiry calendar": "Vervalkalender",
        "Calendar": "Kalender",
        "Ends": "Vervalt",
        "Needed by": "Nodig voor",
        "How we know": "Hoe we het weten",
        "not known": "niet bekend",
        "made {time} ago": "{time} geleden gemaakt",
        "ended {time} ago": "{time} geleden vervallen",
        "ends in {time}": "vervalt over {time}",
        "Nothing is known to expire.": "Van niets is bekend dat het vervalt.",
    }
)

_WHO: Final = {
    "customer": "the customer's administrator",
    "us": "us",
    "callpro": "who keeps CallPro",
    "recipient": "the recipient's side",
    "nobody": "nobody: it goes on by itself",
}


def say_in(language: Language) -> Say:
    """A function from an English sentence (and its values) to that language."""

    def say(text: str, **values: object) -> str:
        found = DUTCH[text] if language == "nl" else text
        return found.format(**values) if values else found

    return say


def who_text(who: str, say: Say) -> str:
    """Who can mend it (`routing.outcome.Who`)."""
    return say(_WHO[who])


def language_of(accepted: str, chosen: str) -> Language:
    """The language for a reader: what they chose, or the first of Accept-Language (RFC 9110 12.5.4) that we speak."""
    if chosen in ("en", "nl"):
        return "nl" if chosen == "nl" else "en"
    best, best_weight = "en", 0.0
    for part in accepted.split(",")[:20]:
        name, _, parameter = part.strip().partition(";")
        try:
            weight = float(parameter.strip().removeprefix("q=")) if parameter.strip() else 1.0
        except ValueError:
            continue
        language = name.strip().lower().partition("-")[0]
        if language in ("en", "nl") and best_weight < weight <= 1.0:
            best, best_weight = language, weight
    return "nl" if best == "nl" else "en"
