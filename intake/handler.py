"""The verdict on each command: is there a route, may this recipient be added, is the mail kept.

A permanent refusal is only ever about what the client said; every doubt of our own is a 4xx. Must never answer 250 to a
mail before the spool has it on disk.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

from aiosmtpd.smtp import SMTP, Envelope, Session

from config.relay_settings import Limits
from config.rules import Route
from intake.counters import Numbers
from intake.repairs import LARGEST_HEADER, our_hop, repair, trace_header
from routing.events import emit
from routing.headers import header_end
from routing.mail import NULL_SENDER, domain_of
from spool.contract import Arrival, Spool, SpoolFull, SpoolUnavailable, id_text

_log = logging.getLogger("intake")

MOST_RECEIVED: Final = 30
"""More Received fields than this is a loop (RFC 5321 6.3); CallPro's own mail has none or one."""
MOST_PASSES: Final = 3
"""A mail that came through this very relay more often before is going round."""

_RECEIVED: Final = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)

Match = Callable[[str], Route | None]


class Client(Session):
    """aiosmtpd's session, and whether the client greeted with EHLO (`extended_smtp` is true for every client here)."""

    said_ehlo = False
    over_tls = False
    login: str | None = None
    failures = 0
    """Wrong logins so far."""

    @property
    def address(self) -> str:
        """The client's IP address; "" when it was gone before it could be asked."""
        return str(self.peer[0]) if self.peer else ""


class Transaction(Envelope):
    """aiosmtpd's envelope with the route that MAIL FROM found. `mail_from` is `<>` for the null sender here."""

    route: Route
    content: bytes
    overflowed = False
    """It was said once that these are too many recipients."""
    original_content = None
    mail_options: list[str] = []  # noqa: RUF012 - options are read where they are said, and nobody adds any here
    rcpt_options: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        # Not the original's: four of these are made for a mail.
        self.mail_from: str | None = None
        self.smtp_utf8 = False
        self.content = b""
        self.rcpt_tos: list[str] = []


class Handler:
    """aiosmtpd's hooks. One for all connections: everything of a connection is in its session and envelope.

    `postmaster` is who gets mail to `<Postmaster>`, which alone needs no domain (RFC 5321 4.5.1).
    """

    def __init__(
        self,
        limits: Limits,
        spool: Spool,
        match: Match,
        hostname: str,
        clock: Callable[[], float],
        numbers: Numbers,
        postmaster: str | None = None,
    ) -> None:
        self._limits = limits
        self._spool = spool
        self._match = match
        self._hostname = hostname
        self._our_hop = our_hop(hostname)
        self._clock = clock
        self._numbers = numbers
        self._postmaster = postmaster
        self.hooks: Final = {"MAIL": self.handle_MAIL, "RCPT": self.handle_RCPT, "DATA": self.handle_DATA}
        """By command, as aiosmtpd finds them itself at every connection."""

    async def handle_MAIL(
        self, _server: SMTP, _session: Session, envelope: Transaction, address: str, _options: list[str]
    ) -> str:
        return "555 5.5.4 SMTPUTF8 is not offered here" if envelope.smtp_utf8 else self.begin(envelope, address)

    def begin(self, envelope: Transaction, address: str) -> str:
        """The reply to MAIL; the transaction has its sender and route when it is a 250."""
        sender = _sender(address)
        if not sender.isascii():
            return "553 5.6.7 A sender address beyond ASCII cannot be carried; write its domain in xn-- form"
        if sender and not domain_of(sender):
            return f"553 5.1.7 <{_shown(sender)}>: a sender address needs a domain"
        route = self._match(sender)
        if route is None:
            return _no_route(sender)
        envelope.mail_from = address
        envelope.route = route
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Transaction, address: str, _options: list[str]
    ) -> str:
        return self.add(envelope, address)

    def add(self, envelope: Transaction, address: str) -> str:
        """The reply to RCPT; the transaction has the recipient when it is a 250."""
        if not address.isascii():
            return "553 5.6.7 A recipient address beyond ASCII cannot be carried; write its domain in xn-- form"
        if not domain_of(address):
            if self._postmaster is None or address.strip("<>").lower() != "postmaster":
                return f"553 5.1.3 <{_shown(address.strip('<>'))}>: a recipient address needs a domain"
            address = self._postmaster
        if address not in envelope.rcpt_tos:
            if len(envelope.rcpt_tos) >= self._limits.recipients:
                return f"452 4.5.3 At most {self._limits.recipients} recipients a mail; send the rest in another mail"
            envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, session: Client, envelope: Transaction) -> str:
        number, now = self._spool.next_id(), self._clock()
        queue_id = id_text(number)
        repaired = repair(envelope.content, now, self._hostname, queue_id)
        envelope.content = b""
        if repaired is None:
            return f"552 5.3.4 The header of this mail is larger than {LARGEST_HEADER} octets"
        header = repaired.content[: header_end(repaired.content)]
        if _goes_round(header, self._our_hop):
            return "554 5.4.6 This mail goes round: too many servers passed it on (Received fields)"
        arrival = Arrival(
            id=number,
            sender=_sender(envelope.mail_from),
            recipients=tuple(envelope.rcpt_tos),
            content=self._trace(session, queue_id, now) + repaired.content,
            route=envelope.route.name,
            received_at=now,
            peer=session.address,
            helo=session.host_name or "",
            repairs=repaired.repairs,
        )
        message_id = repaired.message_id
        del repaired
        try:
            await self._spool.put(arrival)
        except SpoolFull:
            return "452 4.3.1 The spool is full; try again later"
        except SpoolUnavailable as error:
            emit(_log, "spool_unavailable", logging.ERROR, reason=str(error))
            return "451 4.3.0 Mail cannot be stored just now; try again later"
        self._accepted(queue_id, arrival, message_id)
        return f"250 2.0.0 Ok: queued as {queue_id}"

    def _trace(self, session: Client, queue_id: str, now: float) -> bytes:
        return trace_header(
            peer=session.address,
            helo=session.host_name or "",
            hostname=self._hostname,
            queue_id=queue_id,
            protocol=_protocol(session),
            now=now,
        )

    def _accepted(self, queue_id: str, arrival: Arrival, message_id: str) -> None:
        self._numbers.accepted += 1
        self._numbers.routes[arrival.route] += 1
        self._numbers.customers.add(arrival.route, domain_of(arrival.sender), (1, len(arrival.recipients)))
        self._numbers.recipients += len(arrival.recipients)
        self._numbers.octets += len(arrival.content)
        self._numbers.repairs.update(arrival.repairs)
        emit(
            _log,
            "accepted",
            mail=queue_id,
            sender=arrival.sender,
            recipients=len(arrival.recipients),
            to=arrival.recipients,
            size=len(arrival.content),
            route=arrival.route,
            peer=arrival.peer,
            message_id=message_id or None,
            repairs=arrival.repairs or None,
        )


def _protocol(session: Client) -> str:
    """The word of RFC 3848 for how the client spoke."""
    if not session.said_ehlo:
        return "SMTP"
    return f"ESMTP{'S' if session.over_tls else ''}{'A' if session.login else ''}"


def log_bug(error: Exception, **fields: object) -> None:
    """Say loudly that our own code failed: where, and in what kind of error. Its text is left out, as it may quote a
    mail.
    """
    emit(_log, "bug", logging.ERROR, error=type(error).__name__, **fields)
    told = RuntimeError(f"{type(error).__name__}, its text left out as it may quote a mail")
    _log.error("traceback of the bug, please report it", exc_info=(RuntimeError, told, error.__traceback__))


def _sender(mail_from: str | None) -> str:
    return NULL_SENDER if mail_from is None or mail_from == "<>" else mail_from


def _goes_round(header: bytes, ours: re.Pattern[bytes]) -> bool:
    hops = len(_RECEIVED.findall(header))
    return hops > MOST_RECEIVED or (hops > MOST_PASSES and len(ours.findall(header)) > MOST_PASSES)


def _no_route(sender: str) -> str:
    if not sender:
        return "550 5.7.1 <>: no route for the null sender; add a route from '<>' to routes.yaml and reload"
    domain = domain_of(sender)[:200]
    return f"550 5.7.1 <{_shown(sender)}>: no route for sender domain {domain}; add one to routes.yaml and reload"


def _shown(address: str) -> str:
    """As much of an address as fits a reply line of 512 octets (RFC 5321 4.5.3.1.5) with all else in it."""
    return address if len(address) <= 200 else address[:197] + "..."
