"""What the tests of smtp_oauth share: look-alikes of Entra and of client submission, and a way out through them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from config.credentials import Secret
from config.fields import Duration
from routing.mail import Outgoing
from routing.outcome import Outcome
from tests.fakes.entra import FakeEntra
from tests.fakes.smtp import FakeSmtp
from tests.upstreams.smtp_kit import CONTENT
from upstreams.base import Host
from upstreams.smtp_oauth import SCOPE, SmtpOauth, SmtpOauthSettings

SECRET = "s3cr~et.Value+/=8Q"
INFO, SALES = "info@initech.nl", "sales@initech.nl"
MAIL = Outgoing("1", "initech.nl", INFO, ("b@x.nl", "c@x.nl"), CONTENT)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """The look-alikes and a way out through them."""

    def __init__(self, entra: FakeEntra, server: FakeSmtp, way: SmtpOauth, clock: Clock) -> None:
        self.entra, self.server, self.way, self.clock = entra, server, way, clock
        self.mailboxes = {INFO, SALES}

    def lets_in(self, mailbox: str, token: str) -> bool:
        return mailbox in self.mailboxes and self.entra.knows(token, SCOPE)

    async def sent(self, mail: Outgoing = MAIL) -> Outcome:
        """The one outcome that all recipients share."""
        results = await self.way.send(mail)
        assert tuple(results) == mail.recipients
        assert len(set(results.values())) == 1
        return results[mail.recipients[0]]


@asynccontextmanager
async def opened(authority, *, fake=None, **changes):
    async with FakeEntra(authority.server_context(), secret=SECRET) as entra:
        server = FakeSmtp(
            **{
                "starttls": authority.server_context(),
                "mechanisms": ("LOGIN", "XOAUTH2"),
                "bearer": lambda mailbox, token: place.lets_in(mailbox, token),
                **(fake or {}),
            }
        )
        async with server:
            given = {
                "tenant": entra.tenant,
                "client_id": entra.client_id,
                "client_secret": Secret("file:x", SECRET),
                "authority": entra.authority,
                "host": "localhost",
                "port": server.port,
                "timeout": Duration(5),
            }
            settings = SmtpOauthSettings(**{**given, **changes})
            assert list(settings.faults()) == []
            clock = Clock()
            place = Place(entra, server, SmtpOauth("initech-oauth", settings, Host("relay.example"), clock), clock)
            try:
                yield place
            finally:
                await place.way.close()
        assert entra.server.problems == []


def at(authority, story, **changes):
    async def run():
        async with opened(authority, **changes) as place:
            return await story(place)

    return asyncio.run(run())
