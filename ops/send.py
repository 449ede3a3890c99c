"""`send`: one test mail through the running relay, followed to its outcome. It speaks SMTP to our own listener only."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid

from config.network import host_port
from config.relay_settings import Relay
from spool.contract import id_number
from spool.view import SpoolView, Story


@dataclass(frozen=True, slots=True)
class Sent:
    """What the listener said, and the mail's story as far as it came. `story` is None when it was not accepted."""

    reply: str
    story: Story | None

    @property
    def delivered(self) -> bool:
        """Every recipient is settled as delivered."""
        return self.story is not None and all(line.state == "delivered" for line in self.story.mail.recipients)


def plain_listener(relay: Relay) -> tuple[str, int]:
    """Where a client on this machine can hand over a mail with neither login, TLS nor a load balancer. Raises
    ConnectionRefusedError where there is none.
    """
    for listen in relay.listen:
        if not (listen.users or listen.proxy_protocol or (listen.tls and listen.tls.required)):
            return host_port(listen.address)
    raise ConnectionRefusedError(
        "every listener wants a login, TLS or a load balancer: add one to try with, `listen: [{address: 127.0.0.1:25}]`"
    )


def send(
    listener: tuple[str, int],
    sender: str,
    recipients: list[str],
    open_view: Callable[[], SpoolView],
    patience: float,
) -> Sent:
    """Submit a short mail and wait up to `patience` seconds until it is settled or deferred.

    Raises OSError when nobody listens at the address.
    """
    try:
        reply = _submit(listener, sender, recipients)
    except ConnectionRefusedError:
        raise ConnectionRefusedError(
            f"nobody listens on {listener[0]} port {listener[1]}; is the relay running?"
        ) from None
    except smtplib.SMTPResponseException as refused:
        return Sent(f"{refused.smtp_code} {_text(refused.smtp_error)}", None)
    with closing(open_view()) as view:
        return Sent(reply, _follow(view, id_number(reply.rpartition(" ")[2]), time.monotonic() + patience))


def _submit(listener: tuple[str, int], sender: str, recipients: list[str]) -> str:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Date"] = sender, ", ".join(recipients), formatdate(localtime=True)
    mail["Message-ID"] = make_msgid()
    mail["Subject"] = "Test van de mailrelay / test of the mail relay"
    mail.set_content("Dit is een testbericht van de mailrelay.\nThis is a test message of the mail relay.\n")
    with smtplib.SMTP(*listener, timeout=30) as client:
        client.ehlo_or_helo_if_needed()
        _must(client.mail(sender), 250)
        for recipient in recipients:
            _must(client.rcpt(recipient), 250)
        return _must(client.data(mail.as_bytes(policy=SMTP)), 250)


def _must(answer: tuple[int, bytes], code: int) -> str:
    if answer[0] != code:
        raise smtplib.SMTPResponseException(*answer)
    return f"{answer[0]} {_text(answer[1])}"


def _text(reply: bytes | str) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply


def _follow(view: SpoolView, number: int, deadline: float) -> Story | None:
    while True:
        story = view.show(number)
        tried = story is not None and any(entry.event in ("attempt", "note") for entry in story.entries)
        if tried or time.monotonic() > deadline:
            return story
        time.sleep(0.1)
