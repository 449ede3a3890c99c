"""The reports on a mail that could not be delivered, or is late: RFC 3464 in a multipart/report (RFC 6522), headers
only. Pure.

Must never be made for a mail with the null sender (RFC 5321 4.5.5): `reportable` says so, and its own sender is null,
so that no report can follow it.
"""

from __future__ import annotations

import re
import textwrap
from binascii import b2a_qp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from delivery.verdict import Failure
from routing.headers import header_end
from routing.mail import NULL_SENDER
from routing.outcome import Outcome, Stage
from spool.contract import Leased, Settled, id_text

_STATUS: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_MOST_HEADERS: Final = 65536
"""Octets of the original header block that a report quotes at most."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: `hostname` is the reporting MTA, `domain` that of the address in From, one that the upstream lets
    us use, and `id` the report's own queue id.
    """

    hostname: str
    domain: str
    id: str


def reportable(mail: Leased) -> bool:
    """False for a mail that must not be reported on."""
    return mail.sender != NULL_SENDER


def report(mail: Leased, failures: Sequence[Failure], by: Reporter, to: str, now: float) -> bytes:
    """The whole report for the address `to`, CRLF line endings, US-ASCII. `now` in unix seconds."""
    lines = [
        f"Your mail of {formatdate(mail.received_at)} could not be delivered to everybody.",
        "Its header is attached; it will not be tried again.",
    ]
    groups = []
    for failure in failures:
        lines += _about(failure.address, _reason(failure, now - mail.received_at), failure.outcome)
        groups.append(_recipient(failure.address, "failed", _status(failure), failure.outcome, now))
    return _whole(mail, "Undelivered Mail Returned to Sender", lines, groups, by, to, now)


def delay_report(mail: Leased, late: Mapping[str, Outcome], by: Reporter, to: str, now: float, until: float) -> bytes:
    """A warning in the same form: these recipients do not have it yet, and it is tried until `until`."""
    lines = [
        f"Your mail of {formatdate(mail.received_at)} has not reached everybody yet.",
        f"It is still being tried, until {formatdate(until)}. Do not send it again.",
        "Uw mail is nog niet bij iedereen aangekomen. Wij blijven het proberen: verstuur hem niet opnieuw.",
    ]
    groups = []
    for address, outcome in late.items():
        lines += _about(address, f"It has been tried for {_length(now - mail.received_at)}.", outcome)
        given = outcome.enhanced or ""
        status = given if _STATUS.fullmatch(given) and given[0] == "4" else "4.0.0"
        group = _recipient(address, "delayed", status, outcome, now)
        groups.append([*group, f"Will-Retry-Until: {formatdate(until)}"])
    return _whole(mail, "Delayed Mail (still being tried)", lines, groups, by, to, now)


def _whole(
    mail: Leased,
    subject: str,
    lines: Sequence[str],
    groups: Sequence[Sequence[str]],
    by: Reporter,
    to: str,
    now: float,
) -> bytes:
    boundary = f"=_report_{by.id}"
    text = b2a_qp(("\r\n".join(lines) + "\r\n").encode(), istext=True).decode("ascii")
    parts = (
        ("text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable", text),
        ("message/delivery-status", _for_machines(mail, groups, by)),
        ("text/rfc822-headers", _headers_of(mail.content)),
    )
    body = "".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n{text}\r\n" for kind, text in parts)
    fields = (
        f"From: Mail Delivery System <MAILER-DAEMON@{by.domain}>",
        f"To: <{_ascii(to)}>",
        f"Subject: {subject}",
        f"Date: {formatdate(now)}",
        f"Message-ID: <{by.id}@{by.hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
    )
    return ("\r\n".join(fields) + f"\r\n\r\n{body}--{boundary}--\r\n").encode("ascii")


def _about(address: str, reason: str, outcome: Outcome) -> list[str]:
    """A recipient, for people."""
    lines = ["", f"<{address}>", f"    {reason}", "    The answer was:", f"    {_one_line(outcome.reply)}"]
    if outcome.hint is not None:
        lines += [f"    What to do: {outcome.hint.en}", f"    Wat te doen: {outcome.hint.nl}"]
    return lines


def _reason(failure: Failure, age: float) -> str:
    if failure.doubtful:
        return "It may have arrived: the connection broke before an answer came. Ask before you send it again."
    if failure.how is Settled.EXPIRED:
        return f"It was tried for {_length(age)} and is given up."
    return "It was refused."


def _length(seconds: float) -> str:
    hours = max(1, round(seconds / 3600))
    return f"{round(hours / 24)} days" if hours >= 48 else f"{hours} hours" if hours > 1 else "an hour"


def _for_machines(mail: Leased, groups: Sequence[Sequence[str]], by: Reporter) -> str:
    """The per-message and per-recipient fields (RFC 3464 2.2 and 2.3)."""
    message = [
        f"Reporting-MTA: dns; {by.hostname}",
        f"X-Queue-ID: {id_text(mail.id)}",
        f"Arrival-Date: {formatdate(mail.received_at)}",
    ]
    return "\r\n\r\n".join("\r\n".join(group) for group in (message, *groups)) + "\r\n"


def _recipient(address: str, action: str, status: str, outcome: Outcome, now: float) -> list[str]:
    return [
        f"Final-Recipient: rfc822; {_ascii(address)}",
        f"Action: {action}",
        f"Status: {status}",
        _folded(f"Diagnostic-Code: {_diagnostic(outcome)}"),
        f"Last-Attempt-Date: {formatdate(now)}",
    ]


def _status(failure: Failure) -> str:
    """The upstream's enhanced status code (RFC 3463), where it gave one that fits; else the nearest general one."""
    given = failure.outcome.enhanced or ""
    if failure.how is Settled.FAILED and not failure.doubtful:
        return given if _STATUS.fullmatch(given) and given[0] == "5" else "5.0.0"
    if _STATUS.fullmatch(given) and given[0] != "2":
        return given
    return "4.4.2" if failure.doubtful else "4.4.7"


def _diagnostic(outcome: Outcome) -> str:
    """The reply as it was given, with its code in front where the reply does not begin with it."""
    reply = _ascii(_one_line(outcome.reply))
    if outcome.code is not None and not reply.startswith(str(outcome.code)):
        reply = f"{outcome.code} {reply}"
    return f"{'x-http' if outcome.stage is Stage.REQUEST else 'smtp' if outcome.code else 'x-relay'}; {reply}"


def _folded(line: str) -> str:
    """Folded at white space (RFC 5322 2.2.3); a word longer than a line may be is cut."""
    return "\r\n ".join(textwrap.wrap(line, 76, break_on_hyphens=False)) if len(line) > 76 else line


def _headers_of(content: bytes) -> str:
    block = content[: header_end(content)]
    if len(block) > _MOST_HEADERS:
        block = block[: block.rfind(b"\r\n", 0, _MOST_HEADERS) + 2]
    return block.decode("ascii", "replace").replace("\ufffd", "?")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
