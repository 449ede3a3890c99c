"""What Postfix does with each sender that its tables name, as routes of ours: by postconf(5), in Postfix's own order.

Pure: tables come in, customers and what cannot be carried over come out. Must never put a password into a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from config import names
from config.fields import Mistake, is_loopback
from config.rules import Place
from ops.postfix_tables import Entry, Main, Said, Tables

_SMTP_TRANSPORTS: Final = ("smtp", "relay")
_OTHER_TRANSPORTS: Final = frozenset(("error", "retry", "discard", "local", "virtual", "lmtp", "pipe", "uucp", "cyrus"))
_CONNECTOR: Final = ".mail.protection.outlook.com"
_NEXT_HOP: Final = re.compile(r"(?P<open>\[)?(?P<host>[^\[\]:]+|(?<=\[)[^\]]+)(?(open)\])(?::(?P<port>\w+))?")
_PORTS: Final[Mapping[str, int]] = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
_ENCRYPTED: Final = frozenset(("encrypt", "dane-only", "verify", "secure", "fingerprint"))

ELSEWHERE: Final[Mapping[str, str]] = {
    "smtp_tls_policy_maps": "is not read; an upstream requires TLS with a valid certificate unless it says `tls: none`",
    "transport_maps": "is not read: it goes by recipient, and the relay picks a route by sender alone",
    "smtpd_milters": "is not read; for signatures of OpenDKIM write `dkim:` on the route",
    "non_smtpd_milters": "is not read; for signatures of OpenDKIM write `dkim:` on the route",
    "smtp_generic_maps": "is not read; to send from another mailbox write `sender:` on the route",
    "sender_canonical_maps": "is not read; to send from another mailbox write `sender:` on the route",
    "canonical_maps": "is not read; to send from another mailbox write `sender:` on the route",
    "virtual_alias_maps": "is not read: the relay delivers to the recipients it is given",
    "always_bcc": "is not read; the relay keeps no copies",
    "sender_bcc_maps": "is not read; the relay keeps no copies",
    "header_checks": "is not read; the relay changes a mail only as `route` tells",
    "smtp_header_checks": "is not read; the relay changes a mail only as `route` tells",
    "smtp_destination_rate_delay": "is not read; write `pace:` on the route or upstream",
    "default_destination_rate_delay": "is not read; write `pace:` on the route or upstream",
    "recipient_delimiter": "is not read: info+x@acme.nl takes the route of its domain, not that of info@acme.nl",
    "smtp_bind_address": "is not read; a connector has `source_address:`, for the rest the system chooses",
    "mynetworks": "is not read; who may send is `listen: [{address: ..., allow: [...]}]` in relay.yaml",
}
"""Parameters that shape outgoing mail and have no place in a route's file, with what to do."""


@dataclass(frozen=True, slots=True)
class Login:
    """`key` is what it was found by in smtp_sasl_password_maps."""

    username: str
    password: str = field(repr=False)
    key: str


@dataclass(frozen=True, slots=True)
class Way:
    """Where mail goes: an upstream before it has a name."""

    host: str
    port: int | None
    tls: str
    login: Login | None = None
    connector: bool = False


@dataclass(frozen=True, slots=True)
class Carried:
    """A pattern of ours, with its way and the places it was read from."""

    pattern: str
    way: Way
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Postfix:
    """What was read of a Postfix; `main` is None when only tables were given."""

    relayhosts: Tables
    passwords: Tables
    transports: Tables = Tables()
    main: Main | None = None

    @property
    def logs_in(self) -> bool:
        return self.main is None or self.main.yes("smtp_sasl_auth_enable")

    @property
    def login_by_sender(self) -> bool:
        return self.main is None or self.main.yes("smtp_sender_dependent_authentication")

    @property
    def relayhost(self) -> str:
        return self.main.get("relayhost") if self.main else ""

    @property
    def null_key(self) -> str:
        return self.main.get("empty_address_relayhost_maps_lookup_key", "<>") if self.main else "<>"


def carry_over(postfix: Postfix) -> tuple[tuple[Carried, ...], tuple[Said, ...]]:
    """Every sender that a table names as a route of ours, and everything that is not carried over as it was."""
    carried, said = dict[str, Carried](), list[Said]()
    for key, entry in _senders(postfix):
        pattern = _pattern(key, entry, said)
        if pattern is not None and pattern not in carried:
            found = _carry(postfix, pattern, key, entry, said)
            if found is not None:
                carried[pattern] = found
    said += _everybody(postfix)
    said += _unused(postfix, {place for one in carried.values() for place in one.places}, said)
    said += _elsewhere(postfix)
    return tuple(carried.values()), tuple(said)


def _senders(postfix: Postfix) -> Iterator[tuple[str, Entry]]:
    """Each key that decides about a sender, first those that choose where mail goes."""
    for tables in (postfix.transports, postfix.relayhosts):
        for entry in tables.entries():
            yield ("<>" if entry.key == postfix.null_key else entry.key), entry
    if postfix.logs_in and postfix.login_by_sender:
        for entry in postfix.passwords.entries():
            if "@" in entry.key and not entry.key.startswith("["):
                yield entry.key, entry


def _pattern(key: str, entry: Entry, said: list[Said]) -> str | None:
    if key == "<>":
        return names.NULL_PATTERN
    if "@" not in key:
        why = f"Postfix looks a sender up by its address and by @domain, so this is never found; was @{key} meant?"
        said.append(Said(entry.place, key, why))
        return None
    try:
        return names.domain(key[1:]) if key.startswith("@") else names.address(key)
    except Mistake as mistake:
        said.append(Said(entry.place, key, f"{mistake.wrong}; {mistake.mend}"))
        return None


def _carry(postfix: Postfix, pattern: str, key: str, entry: Entry, said: list[Said]) -> Carried | None:
    lookup = postfix.null_key if pattern == names.NULL_PATTERN else key
    hop = _next_hop(postfix, lookup, entry, said)
    if hop is None:
        return None
    text, place = hop
    parsed = _NEXT_HOP.fullmatch(text)
    port = _port(parsed["port"]) if parsed else None
    if parsed is None or (parsed["port"] and port is None):
        said.append(Said(place, key, "its value is not one host with a port, so there is no upstream to write"))
        return None
    if not parsed["open"]:
        host = parsed["host"]
        why = f"Postfix looks for an MX of {host}, the relay connects to {host} itself; is it the server?"
        said.append(Said(place, key, why, left_out=False))
    login, login_place = _login(postfix, lookup, parsed["host"], text, said)
    way = _way(postfix, parsed["host"].removeprefix("IPv6:"), port, login, place, said)
    return Carried(pattern, way, tuple(dict.fromkeys(p for p in (place, login_place) if p)))


def _next_hop(postfix: Postfix, sender: str, entry: Entry, said: list[Said]) -> tuple[str, Place] | None:
    """Where mail of `sender` goes: sender_dependent_default_transport_maps before _relayhost_maps before relayhost."""
    transport = postfix.transports.find_sender(sender)
    if transport is not None and transport.value.upper() != "DUNNO":
        name, _, hop = transport.value.partition(":")
        if name in _OTHER_TRANSPORTS:
            said.append(
                Said(transport.place, sender, f"the transport {name} is no SMTP server; such mail has no route")
            )
            return None
        if name and name not in _SMTP_TRANSPORTS:
            why = f"the transport {name} may have options in master.cf (its address, TLS, limits), which are not read"
            said.append(Said(transport.place, sender, why, left_out=False))
        if hop:
            return hop, transport.place
    relay = postfix.relayhosts.find_sender(sender)
    if relay is not None and relay.value.upper() != "DUNNO":
        return relay.value, relay.place
    if postfix.relayhost and postfix.main:
        return postfix.relayhost, postfix.main.place("relayhost")
    why = "its mail went straight to each recipient's own server; the relay needs a server to hand it to"
    said.append(Said(entry.place, sender, why if postfix.main else f"{why} (or the relayhost: give --main)"))
    return None


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    found = int(text) if text.isdigit() else _PORTS.get(text)
    return found if found and found <= 65535 else None


def _login(postfix: Postfix, sender: str, host: str, hop: str, said: list[Said]) -> tuple[Login | None, Place | None]:
    """By sender where that is switched on, then by host, then by the next hop as it is written: Postfix's order."""
    if not postfix.logs_in:
        return None, None
    entry = postfix.passwords.find_sender(sender) if postfix.login_by_sender and sender != postfix.null_key else None
    entry = entry or postfix.passwords.find(host) or postfix.passwords.find(hop)
    if entry is None:
        return None, None
    username, colon, password = entry.value.partition(":")
    if not colon or not username or not password:
        said.append(Said(entry.place, entry.key, "is not USERNAME:PASSWORD, so its mail leaves without a login"))
        return None, None
    return Login(username, password, entry.key if entry.key != "*" else host), entry.place


def _way(postfix: Postfix, host: str, port: int | None, login: Login | None, place: Place, said: list[Said]) -> Way:
    if login is None and host.lower().endswith(_CONNECTOR):
        return Way(host, port, "starttls", connector=True)
    port = port or 25
    if postfix.main is None:
        return Way(host, port, "implicit" if port == 465 else "starttls", login)
    if postfix.main.yes("smtp_tls_wrappermode"):
        return Way(host, port, "implicit", login)
    level = postfix.main.get("smtp_tls_security_level").lower() or _old_level(postfix.main)
    if level in _ENCRYPTED:
        checks = level in ("verify", "secure", "fingerprint", "dane-only")
        why = "Postfix required TLS but looked at no certificate; the relay checks it against the system's authorities"
        said += [] if checks else [Said(place, host, why, left_out=False)]
        return Way(host, port, "starttls", login)
    if level in ("", "none") and (login is None or is_loopback(host)):
        said += [] if is_loopback(host) else [Said(place, host, "goes in clear text, as with Postfix", left_out=False)]
        return Way(host, port, "none", login)
    used = "not used" if level in ("", "none") else "used where offered"
    why = f"TLS was {used}; the relay requires it (`tls: starttls`)"
    said.append(Said(place, host, why, left_out=False))
    return Way(host, port, "starttls", login)


def _old_level(main: Main) -> str:
    """The level behind the parameters that smtp_tls_security_level replaced."""
    return "encrypt" if main.yes("smtp_enforce_tls") else "may" if main.yes("smtp_use_tls") else ""


def _everybody(postfix: Postfix) -> Iterator[Said]:
    for table in (*postfix.transports.tables, *postfix.relayhosts.tables):
        if table.always is not None:
            why = f'answers {table.always.value} for every sender; write a route `from: "*"` if that is wanted'
            yield Said(table.always.place, "static", why)


def _unused(postfix: Postfix, used: set[Place], said: list[Said]) -> Iterator[Said]:
    """Logins that no sender of the tables uses."""
    told = {one.place for one in said if one.left_out}
    why = "no sender that the tables name leaves by it"
    if not postfix.logs_in:
        why = "logins are switched off (smtp_sasl_auth_enable)"
    for entry in postfix.passwords.entries():
        if entry.place not in used | told:
            by_sender = postfix.logs_in and not postfix.login_by_sender and "@" in entry.key
            off = "logins by sender are switched off (smtp_sender_dependent_authentication)"
            yield Said(entry.place, entry.key, off if by_sender else why)


def _elsewhere(postfix: Postfix) -> Iterator[Said]:
    """What main.cf says besides, and what nobody uses."""
    if postfix.main is None:
        return
    if postfix.relayhost:
        why = 'mail of every other sender left by it; the relay refuses such mail, unless a route says `from: "*"`'
        yield Said(postfix.main.place("relayhost"), "relayhost", why)
    for name, why in ELSEWHERE.items():
        if postfix.main.get(name):
            yield Said(postfix.main.place(name), name, why)
