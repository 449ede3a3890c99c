"""SendGrid over SMTP: the mail as it is, with our X-SMTPAPI field and nobody else's (sendgrid.md, section 1).

Must never let an X-SMTPAPI of the mail through: it can add recipients, and an invalid one makes SendGrid drop the mail
after its 250.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Final

from routing.headers import prepend, remove
from routing.mail import Outgoing
from routing.outcome import Outcome, Results
from upstreams.base import Rehearsal, Upstream
from upstreams.sendgrid_body import category
from upstreams.smtp import SmtpUpstream

LINE_LIMIT: Final = 72
"""Octets of a line of X-SMTPAPI, as SendGrid advises."""

_FILTERS: Final = ("clicktrack", "opentrack", "subscriptiontrack", "ganalytics")


class SendGridSmtp(Upstream):
    """`smtp` is the way to SendGrid's server, with SENDGRID_REPLIES."""

    def __init__(self, smtp: SmtpUpstream, tracking: bool) -> None:
        self.name = smtp.name
        self.concurrency = smtp.concurrency
        self.recipients_limit = smtp.recipients_limit
        self.connects_to = smtp.connects_to
        self._smtp = smtp
        self._tracking = tracking

    async def send(self, mail: Outgoing) -> Results:
        return await self._smtp.send(with_instructions(mail, self._tracking))

    async def probe(self) -> Outcome:
        return await self._smtp.probe()

    async def rehearse(self, mail: Rehearsal) -> Outcome:
        return await self._smtp.rehearse(mail)

    def keep(self, connections: int) -> None:
        self._smtp.keep(connections)

    async def close(self) -> None:
        await self._smtp.close()


def with_instructions(mail: Outgoing, tracking: bool) -> Outgoing:
    """The mail with exactly one X-SMTPAPI field, ours, on top."""
    content = prepend(remove(mail.content, "X-SMTPAPI"), "X-SMTPAPI", instructions(mail, tracking))
    return dataclasses.replace(mail, content=content)


def instructions(mail: Outgoing, tracking: bool) -> bytes:
    """The value of X-SMTPAPI: how events find the mail again, and tracking off. ASCII, folded; never a `to`."""
    said: dict[str, Any] = {"unique_args": {"relay_id": mail.id}, "category": [category(mail.route)]}
    if not tracking:
        said["filters"] = {name: {"settings": {"enable": 0}} for name in _FILTERS}
    lines = [b""]
    room = LINE_LIMIT - len(b"X-SMTPAPI: ")
    for word in json.dumps(said).encode("ascii").split(b" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > room:
            lines.append(word)
        else:
            lines[-1] = lines[-1] + b" " + word if lines[-1] else word
    return b"\r\n ".join(lines)
