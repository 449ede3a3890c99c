"""A strict SMTP server that looks like a customer's: it checks every command, records every mail, and can be scripted.

Written on plain sockets, sharing nothing with the client side, so that it is an independent witness. A breach of the
protocol is answered with 5xx and noted in `faults`; leaving the context with faults raises (`faults_expected=True`
lets them be). It must never accept what a real server would refuse.

    async with FakeSmtp(starttls=authority.server_context(), users={"callpro": "s3cret"}) as server:
        ...                                     # connect to server.host, server.port
        server.received[0].recipients           # what arrived, and how
    FakeSmtp(replies={"RCPT bad@x.nl": "550 5.1.1 no such user"})
    FakeSmtp(replies={"MAIL": ["451 4.3.0 later"]})      # once; after the list is used up, as usual
    FakeSmtp(replies={".": CUT})                         # take the mail, then hang up without an answer
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence

from tests.fakes.smtp_conversation import Conversation, HangUp, Received
from tests.fakes.smtp_script import CUT, STALL, Action, Cut, Raw, Replies, Stall

__all__ = ["CUT", "STALL", "Cut", "FakeSmtp", "Raw", "Received", "Replies", "Stall"]


class FakeSmtp:
    """The server. Use it as an async context manager; it listens on `host` and `port` (0: any free one).

    `starttls` or `implicit_tls` is a server context (`Authority.server_context()`); with `starttls`, login and mail
    need TLS first. `users` (name -> password) makes login required; with XOAUTH2 in `mechanisms`, `bearer` judges the
    mailbox and its token instead. `keywords` are the EHLO keywords besides STARTTLS and AUTH.
    `advertise_starttls=False` strips STARTTLS from EHLO as an attacker would.
    """

    def __init__(
        self,
        *,
        starttls: ssl.SSLContext | None = None,
        implicit_tls: ssl.SSLContext | None = None,
        advertise_starttls: bool = True,
        users: Mapping[str, str] | None = None,
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN"),
        bearer: Callable[[str, str], bool] | None = None,
        keywords: Sequence[str] = ("PIPELINING", "SIZE 36700160", "8BITMIME", "ENHANCEDSTATUSCODES"),
        replies: Replies | None = None,
        faults_expected: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.received: list[Received] = []
        """Mails answered with 2xx after the final dot."""
        self.doubtful: list[Received] = []
        """Mails that came in whole and were never answered."""
        self.connections = 0
        """Connections accepted so far."""
        self.resumed = 0
        """TLS handshakes that resumed an earlier session."""
        self.stalled = 0
        """Times a script said to stall."""
        self.hearing = asyncio.Event()
        """Set it to let those that were told to be deaf read on; they say nothing all the same."""
        self.logins: list[tuple[str, bool]] = []
        """Every login tried: the name and whether it was right."""
        self.commands: list[str] = []
        """Every command line, without AUTH's secrets."""
        self.faults: list[str] = []
        """Breaches of the protocol."""
        self.starttls, self.implicit_tls = starttls, implicit_tls
        self.users = dict(users or {})
        self.mechanisms = tuple(mechanisms)
        self.bearer = bearer
        self.keywords = tuple(keywords)
        self.advertise_starttls = advertise_starttls
        self._faults_expected = faults_expected
        self._script: dict[str, Action | list[Action]] = {}
        self.script(replies or {})
        self._conversations: dict[asyncio.Task[None], Conversation] = {}

    def script(self, replies: Replies) -> None:
        """Add to or replace the script from now on. An empty list takes a step back to its usual answer."""
        for step, action in replies.items():
            self._script[step] = list(action) if isinstance(action, (list, tuple)) else action

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        return len(self._conversations)

    async def hang_up(self, farewell: str | None = None) -> None:
        """Close all connections, as an idle or restarting server does; `farewell` is said first (`421 ...`)."""
        tasks = list(self._conversations)
        for task in tasks:
            if farewell is not None:
                self._conversations[task].writer.write(farewell.encode() + b"\r\n")
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> FakeSmtp:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.implicit_tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, exc_type: object, *_: object) -> None:
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()
        if exc_type is None and not self._faults_expected and self.faults:
            raise AssertionError(f"the client broke the protocol: {self.faults}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        conversation = Conversation(self, reader, writer, self.connections)
        task = asyncio.current_task()
        assert task is not None
        self._conversations[task] = conversation
        try:
            await conversation.run()
        except (HangUp, OSError, asyncio.CancelledError):
            pass
        finally:
            del self._conversations[task]
            writer.close()

    def scripted(self, *steps: str) -> Action | None:
        """The scripted action of the first of `steps` that has one left."""
        for step in steps:
            action = self._script.get(step)
            if isinstance(action, list):
                action = action.pop(0) if action else None
            if action is not None:
                return action
        return None
