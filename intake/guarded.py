"""The dialogue of a listener that asks more than an address: TLS, a login, or moderation.

CallPro's own listener asks none of it, and does not pay for it. Must never begin a mail before all was given.
"""

from __future__ import annotations

import asyncio

from aiosmtpd.smtp import syntax

from intake.connection import methods_of
from intake.dialogue import COMMANDS, Dialogue
from intake.door import Door
from intake.handler import Client
from intake.login import log_in, start_tls


class GuardedDialogue(Dialogue):
    """One connection through a guarded door."""

    _entered = False

    def _refusal(self) -> str | None:
        refusal = super()._refusal()
        if refusal is None and self.door.peers is not None:
            refusal = self.door.peers.enter(self.peer, self.loop.time())
            self._entered = refusal is None
        return refusal

    async def _handle_client(self) -> None:
        try:
            await super()._handle_client()
        finally:
            if self._entered and self.door.peers is not None:
                self.door.peers.leave(self.peer)

    def _extensions(self) -> tuple[str, ...]:
        offered = super()._extensions()
        if self.door.context and not self.session.over_tls:
            offered += ("STARTTLS",)
        if self.may_log_in and not self.session.login:
            offered += ("AUTH PLAIN LOGIN",)
        return offered

    def _at_once(self, _line: bytes) -> str | None:
        return None  # each MAIL has its questions

    @syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        refusal = self._not_yet(self.door)
        if refusal is not None:
            self._set_post_data_state()
            await self.push(refusal)
        else:
            await super().smtp_MAIL(arg)

    def _not_yet(self, door: Door) -> str | None:
        """Why no mail may begin."""
        if door.tls_first and not self.session.over_tls:
            return "530 5.7.0 Say STARTTLS first"
        if door.users and not self.session.login:
            return "530 5.7.0 Log in first"
        return door.peers.mail(self.peer, self.loop.time()) if door.peers else None

    @syntax("STARTTLS")
    async def smtp_STARTTLS(self, arg: str | None) -> None:
        if self.session.over_tls:
            await self.push("503 5.5.1 TLS has begun already")
        elif self.door.context is None:
            await self.push("502 5.5.1 STARTTLS is not offered here")
        elif arg:
            await self.push("501 Syntax: STARTTLS")
        else:
            await start_tls(self, self.door.context)

    def over(self, transport: asyncio.Transport) -> None:
        """Speak through TLS. Nothing that was said before counts any more (RFC 3207 4.2)."""
        before = self.session
        self.transport = transport
        self.inbound.comes_through(transport)
        self._over_ssl = True
        session: Client = self._create_session()
        session.peer, session.failures, session.over_tls = before.peer, before.failures, True
        self.session = session
        self._set_post_data_state()

    @property
    def may_log_in(self) -> bool:
        """There are users, and a password would not go over a network in clear."""
        return bool(self.door.users) and (self.session.over_tls or self.door.plain_login)

    @syntax("AUTH mechanism")
    async def smtp_AUTH(self, arg: str | None) -> None:
        await log_in(self, arg)


GuardedDialogue.methods = methods_of(GuardedDialogue, (*COMMANDS, "AUTH", "STARTTLS"))
