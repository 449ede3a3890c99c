"""What the SMTP tests share: a mail, and an upstream pointed at a look-alike."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from config.credentials import Secret
from routing.mail import Outgoing
from tests.fakes.smtp import FakeSmtp
from upstreams.base import Host
from upstreams.smtp import KIND, SmtpSettings, SmtpUpstream

CONTENT = b"From: a@acme.nl\r\nSubject: hi\r\n\r\n.a dot\r\n..two\r\nend\r\n"
PASSWORD = "s3cret-Pa55"


def ours() -> Host:
    """This machine, with a trust store of its own: each test has another authority."""
    return Host("relay.example")


def mail(
    *recipients: str, sender: str = "a@acme.nl", content: bytes = CONTENT, route: str = "acme.nl", id: str = "1"
) -> Outgoing:
    return Outgoing(id, route, sender, recipients or ("b@x.nl",), content)


@asynccontextmanager
async def upstream(server: FakeSmtp, **given: Any) -> AsyncIterator[SmtpUpstream]:
    """An upstream to `server` by the way of the YAML's settings; `tls` is none unless given."""
    settings = {"host": server.host, "port": server.port, "tls": "none", **given}
    built = KIND.build("acme", SmtpSettings(**settings), ours())
    assert isinstance(built, SmtpUpstream)
    try:
        yield built
    finally:
        await built.close()


def with_login(password: str = PASSWORD) -> dict[str, Any]:
    return {"username": "callpro@acme.nl", "password": Secret("env:ACME", password)}


def secured(context: ssl.SSLContext, **given: Any) -> FakeSmtp:
    """A server with STARTTLS that wants a login."""
    return FakeSmtp(starttls=context, users={"callpro@acme.nl": PASSWORD}, **given)
