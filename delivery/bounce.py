"""The report on a mail that could not be delivered: RFC 3464 in a multipart/report (RFC 6522), headers only. Pure.

Must never be made for a mail with the null sender (RFC 5321 4.5.5): `reportable` says so, and its own sender is null,
so that no report can follow it.
"""

from __future__ import annotations

import re
import textwrap
from binascii import b2a_qp
from collections.abc import Sequence
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
    boundary = f"=_report_{by.id}"
    parts = (
        ("text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable", _for_people(mail, failures, now)),
        ("message/delivery-status", _for_machines(mail, failures, by, now)),
        ("text/rfc822-headers", _headers_of(mail.content)),
    )
    body = "".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n{text}\r\n" for kind, text in parts)
    fields = (
        f"From: Mail Delivery System <MAILER-DAEMON@{by.domain}>",
        f"To: <{_ascii(to)}>",
        "Subject: Undelivered Mail Returned to Sender",
        f"Date: {formatdate(now)}",
        f"Message-ID: <{by.id}@{by.hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"',
    )
    return ("\r\n".join(fields) + f"\r\n\r\n{body}--{boundary}--\r\n").encode("ascii")


def _for_people(mail: Leased, failures: Sequence[Failure], now: float) -> str:
    lines = [
        f"Your mail of {formatdate(mail.received_at)} could not be delivered to everybody.",
        "Its header is attached; it will not be tried again.",
    ]
    for failure in failures:
        lines += ["", f"<{failure.address}>", f"    {_reason(failure, now - mail.received_at)}"]
        lines += ["    The answer was:", f"    {_one_line(failure.outcome.reply)}"]
        if failure.outcome.hint is not None:
            lines += [f"    What to do: {failure.outcome.hint.en}", f"    Wat te doen: {failure.outcome.hint.nl}"]
    text = "\r\n".join(lines) + "\r\n"
    return b2a_qp(text.encode(), istext=True).decode("ascii")


def _reason(failure: Failure, age: float) -> str:
    if failure.doubtful:
        return "It may have arrived: the connection broke before an answer came. Ask before you send it again."
    if failure.how is Settled.EXPIRED:
        return f"It was tried for {_length(age)} and is given up."
    return "It was refused."


def _length(seconds: float) -> str:
    hours = round(seconds / 3600)
    return f"{round(hours / 24)} days" if hours >= 48 else f"{max(1, hours)} hours" if hours != 1 else "an hour"


def _for_machines(mail: Leased, failures: Sequence[Failure], by: Reporter, now: float) -> str:
    """The per-message and per-recipient fields (RFC 3464 2.2 and 2.3)."""
    groups = [
        [
            f"Reporting-MTA: dns; {by.hostname}",
            f"X-Queue-ID: {id_text(mail.id)}",
            f"Arrival-Date: {formatdate(mail.received_at)}",
        ]
    ]
    for failure in failures:
        groups.append(
            [
                f"Final-Recipient: rfc822; {_ascii(failure.address)}",
                "Action: failed",
                f"Status: {_status(failure)}",
                _folded(f"Diagnostic-Code: {_diagnostic(failure.outcome)}"),
                f"Last-Attempt-Date: {formatdate(now)}",
            ]
        )
    return "\r\n\r\n".join("\r\n".join(group) for group in groups) + "\r\n"


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
