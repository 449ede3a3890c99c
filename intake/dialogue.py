"""One SMTP dialogue: aiosmtpd's server with its costs taken out and its strictness towards legacy clients softened.

Overrides private names of aiosmtpd 1.4.6 (pinned; tests compare each with the original). Must never take content for
commands, and never answer for a mail that the handler did not answer for.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Final

from aiosmtpd.smtp import syntax

from intake.addresses import HELLO, PLAIN_COMMAND, Parsed, parse
from intake.common import Common
from intake.connection import Connection, methods_of
from intake.content import Content
from intake.door import Door
from intake.handler import log_bug
from intake.inbound import BUFFER_OCTETS
from intake.memory import Share
from intake.sips import Sips
from routing.events import emit

_log = logging.getLogger("intake")

_SMALL_OCTETS: Final = 1 << 15
"""Content up to this size may be in memory for every connection; larger content is counted in `Common.memory`."""

_PATIENCE: Final = 100
"""Commands between two mails that bring none nearer, such as NOOP and RSET: each takes a turn from the others."""
_SLIP: Final = 5
"""What a command costs that is no SMTP: after 20 a client talks of something else, and each is a line in the log."""
_SLIPS: Final = ("500", "501", "502", "503", "555")

_STATUS: Final = {"500": "5.5.2", "501": "5.5.4", "502": "5.5.1", "503": "5.5.1", "552": "5.3.4", "555": "5.5.4"}
_LONGEST_REPLY: Final = 500
"""RFC 5321 4.5.3.1.5 gives a reply line 512 octets; a status may still come into it."""
_GO_AHEAD: Final = "354 End data with <CR><LF>.<CR><LF>"
_TOO_MANY: Final = "452 4.5.3 "
_HAS_STATUS: Final = re.compile(r"(?:220|3..|... [245]\.\d)")
COMMANDS: Final = ("DATA", "EHLO", "EXPN", "HELO", "HELP", "MAIL", "NOOP", "QUIT", "RCPT", "RSET", "VRFY")


class Dialogue(Connection):
    """One connection. Every negative reply is logged and counted in `push`, so none can be forgotten."""

    def __init__(self, common: Common, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        self._common = common
        self.door = door
        self._size_limit = int(common.limits.message_size)
        self._argument: str | None = None
        self._leaving = False
        self._keeping = self._went_ahead = False
        self._silent_until = 0.0
        self._patience = _PATIENCE
        super().__init__(common.handler, common.hostname, self._size_limit, common.idle, loop)

    # ---- the connection ----------------------------------------------------------------------------------------

    def _refusal(self) -> str | None:
        return self._common.refusal(self.session.peer, self.door)

    async def _handle_client(self) -> None:
        if not self.session.peer:  # gone already, as whoever only looks whether the port is open
            self._close()
            return
        refusal = self._refusal()
        try:
            if refusal is not None:
                self._turn_away(refusal)
                return
            self._common.enter(self)
            try:
                await self._converse()
            finally:
                self._common.exit(self)
        except ConnectionResetError:
            pass
        finally:
            self._close()

    def _turn_away(self, refusal: str) -> None:
        self._common.numbers.turned_away += 1
        emit(_log, "client_refused", logging.WARNING, peer=self.peer, reply=refusal)
        self._write(refusal)

    def connection_lost(self, error: Exception | None) -> None:
        """As the original, but a mail that is being kept is kept and logged, though nobody hears the answer."""
        super().connection_lost(error)
        if self._keeping:
            return
        self._handler_coroutine.cancel()
        if self.envelope.mail_from is not None:
            self._common.numbers.abandoned += 1
            emit(_log, "abandoned", peer=self.peer, sender=self.sender, recipients=len(self.envelope.rcpt_tos))

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends when the dialogue has ended."""
        return self._handler_coroutine

    def leave(self) -> None:
        """Say 421 and close, now or as soon as the transaction under way has ended."""
        self._leaving = True
        self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if self._leaving and self.envelope.mail_from is None and self.transport is not None:
            self._write(f"421 4.3.2 {self.hostname} is shutting down")
            self._close()

    def abort(self) -> None:
        """End it at once, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()
        self._handler_coroutine.cancel()

    # ---- silence: one timer that looks at the time again, instead of a new one for each command ------------------

    def _reset_timeout(self, duration: float | None = None) -> None:
        self._silent_until = self.loop.time() + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(self._timeout_duration, self._timeout_cb)

    def _timeout_cb(self) -> None:
        left = self._silent_until - self.loop.time()
        if left > 0 or self._keeping:
            wait = left if 0 < left < self._timeout_duration else self._timeout_duration
            self._timeout_handle = self.loop.call_later(wait, self._timeout_cb)
        else:
            self._hang_up("421 4.4.2", "idle for too long")

    def _hang_up(self, code: str, why: str) -> None:
        if self.transport is not None:
            self._log_refusal(f"{code} {why}")
            self._write(f"{code} {self.hostname}: {why}")
            self._close()
            if self.transport.get_write_buffer_size():  # it reads nothing, and would keep its place for ever
                self.transport.abort()

    # ---- replies -----------------------------------------------------------------------------------------------

    async def push(self, status: str | bytes) -> None:
        """Send a reply, with an enhanced status code where the original has none (RFC 2034 4)."""
        reply = status if isinstance(status, str) else status.decode("ascii", "replace")
        if not reply.isprintable() or len(reply) > _LONGEST_REPLY:  # what a client said may be said back in it
            reply = "".join(c if c.isprintable() else "?" for c in reply[:_LONGEST_REPLY])
        if not _HAS_STATUS.match(reply):
            code = reply[:3]
            reply = f"{code} {_STATUS.get(code, code[0] + '.0.0')}{reply[3:]}"
            if code[0] == "2":  # only what says nothing of a mail has no status of its own
                await self._lose_patience(1)
        if reply[0] in "45":
            self._log_refusal(reply)
        await self._say(reply, now=False)
        if reply.startswith(_SLIPS):
            await self._lose_patience(_SLIP)
        self._leave_when_idle()

    async def _lose_patience(self, cost: int) -> None:
        self._patience -= cost
        if self._patience < 0 or (self._patience == 0 and cost == _SLIP):
            reply = "421 4.7.0 Too many commands without a mail, goodbye"
            self._log_refusal(reply)
            await self._say(reply)
            self._close()
            raise ConnectionResetError("turned out")

    def _log_refusal(self, reply: str) -> None:
        self._common.numbers.refused[reply.split(" ", 2)[1]] += 1
        if reply.startswith(_TOO_MANY):
            if self.envelope.overflowed:
                return  # one line for a mail to thousands, not one for each
            self.envelope.overflowed = True
        emit(
            _log,
            "refused",
            logging.WARNING if reply.startswith("55") else logging.INFO,  # this mail is lost, if CallPro does not tell
            reply=reply,
            code=int(reply[:3]),
            peer=self.peer,
            helo=self.session.host_name,
            sender=self.sender,
            argument=self._argument,
            recipients=len(self.envelope.rcpt_tos) or None,
        )

    async def handle_exception(self, error: Exception) -> str:
        """Our own bug: the client may try again, and ops are told loudly."""
        self._common.numbers.bugs += 1
        log_bug(error, peer=self.peer, sender=self.sender)
        return "451 4.3.0 An error of our own; try again later"

    @property
    def peer(self) -> str:
        """The client's IP address."""
        return self.session.address

    @property
    def sender(self) -> str | None:
        """The envelope sender of the transaction under way, as it was given; None when there is none."""
        return self.envelope.mail_from

    # ---- commands ----------------------------------------------------------------------------------------------

    async def check_helo_needed(self, _helo: str = "HELO") -> bool:
        """Never: some clients begin with MAIL."""
        return False

    @syntax("HELO hostname")
    async def smtp_HELO(self, hostname: str | None) -> None:
        await self._greet(hostname)

    @syntax("EHLO hostname")
    async def smtp_EHLO(self, hostname: str | None) -> None:
        await self._greet(hostname, said_ehlo=True)

    def _extensions(self) -> tuple[str, ...]:
        return f"SIZE {self._size_limit}", "8BITMIME", "PIPELINING", "ENHANCEDSTATUSCODES", "HELP"

    async def _greet(self, hostname: str | None, *, said_ehlo: bool = False) -> None:
        if not hostname:
            await self.push("501 Syntax: HELO hostname")
            return
        shown = "".join(c if "!" <= c <= "~" else "?" for c in hostname[:255])
        await self._say(self._greeted(shown, said_ehlo=said_ehlo))
        self._leave_when_idle()

    def _greeted(self, hostname: str, *, said_ehlo: bool) -> str:
        """The reply to a greeting, which begins everything anew."""
        self._set_post_data_state()
        self.session.host_name = hostname
        self.session.said_ehlo = said_ehlo
        if not said_ehlo:
            return f"250 {self.hostname}"
        lines = [f"250-{line}" for line in (self.hostname, *self._extensions())]
        lines[-1] = lines[-1].replace("-", " ", 1)
        return "\r\n".join(lines)

    def _answered(self, line: bytes) -> bool:
        """As the original, and DATA: the dialogue hears of it once the first of the content is here."""
        if line != b"DATA\r\n" or self._common.crowd or self.envelope.mail_from is None or not self.envelope.rcpt_tos:
            return super()._answered(line)
        self._reset_timeout()
        self.inbound.put_ahead(line)
        self._went_ahead = True
        self._write(_GO_AHEAD)
        return True

    def _at_once(self, line: bytes) -> str | None:
        """A greeting, and MAIL and RCPT as nearly every client writes them, without parameters; the same as `_obey`
        does.
        """
        if self._leaving:
            return None
        found = PLAIN_COMMAND.fullmatch(line)
        if found is None:
            return self._greeting_at_once(line)
        if found[1] is None and self.envelope.mail_from is None:
            return None
        self._reset_timeout()
        address = str(found[2], "ascii")
        self._argument = f"<{address}>"[:300]
        if found[1] is None:
            return self._common.handler.add(self.envelope, address)
        self._set_post_data_state()
        return self._common.handler.begin(self.envelope, address)

    def _greeting_at_once(self, line: bytes) -> str | None:
        found = HELLO.fullmatch(line)
        if found is None:
            return None
        self._reset_timeout()
        return self._greeted(str(found[2], "ascii"), said_ehlo=found[1] is not None)

    @syntax("MAIL FROM: <address>", extended=" [SP <mail-parameters>]")
    async def smtp_MAIL(self, arg: str | None) -> None:
        """A second MAIL starts over (RFC 5321 4.1.1.2: it clears the buffers); the original answers 503."""
        self._set_post_data_state()
        await super().smtp_MAIL(arg)

    def _getaddr(self, arg: str) -> Parsed:
        self._argument = arg[:300]
        return parse(arg, super()._getaddr)

    @syntax("QUIT")
    async def smtp_QUIT(self, arg: str | None) -> None:
        """As the original, but what waits to be said in the same write goes out before the connection does."""
        if arg:
            await self.push("501 Syntax: QUIT")
            return
        await self._say("221 2.0.0 Bye")
        self._over = True

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        if self.envelope.mail_from is None:
            await self.push("503 Error: need MAIL command")
        elif not self.envelope.rcpt_tos:
            await self.push("554 5.5.1 No valid recipients")
        elif arg:
            await self.push("501 Syntax: DATA")
        else:
            self._argument = None
            with Share(self._common.memory, self._too_slow) as share:
                reply = await (self._take_mail_in_sips if self._common.memory.crowded else self._take_mail)(share)
            self._patience = _PATIENCE
            if reply[0] in "45":
                self._log_refusal(reply)
            self._set_post_data_state()
            await self._say(reply)
            self._leave_when_idle()

    async def _take_mail_in_sips(self, share: Share) -> str:
        if self._over_ssl:  # TLS reads for itself, a record of 16 KB at a time
            return await self._take_mail(share)
        self.inbound.sip(Sips(self, self._common.memory.cup), 0)
        try:
            return await self._take_mail(share)
        finally:
            self.inbound.sip(self, 2 * BUFFER_OCTETS)

    async def _take_mail(self, share: Share) -> str:
        if not self._went_ahead:
            await self._say(_GO_AHEAD)
        self._went_ahead = False
        content = await self._read_content(share)
        if content is None:
            return f"552 5.3.4 The mail is larger than {self._size_limit} octets"
        self.envelope.content = content
        del content  # while it is kept, the spool has it, once
        self._keeping = share.whole = True
        try:
            return str(await self._call_handler_hook("DATA"))
        except Exception as error:
            return await self.handle_exception(error)
        finally:
            self._keeping = False

    async def _read_content(self, share: Share) -> bytes | None:
        """What stands before the final dot, without transparency dots; None when it is over the limit."""
        content = Content(self._size_limit, lf_client=not self.inbound.crlf_seen)
        try:
            while (rest := content.feed(await self.inbound.read(4 * BUFFER_OCTETS))) is None:
                if content.size > _SMALL_OCTETS or share.octets:
                    await self._make_room(share, content.size)
                self._reset_timeout()
            self._reset_timeout()
            self.inbound.give_back(rest)
            return content.message()
        except ConnectionResetError:
            raise
        except Exception as error:  # where the mail ends is not known: what follows must not be read as commands
            await self.handle_exception(error)
            raise ConnectionResetError("closed after a bug of our own") from error

    async def _make_room(self, share: Share, octets: int) -> None:
        if self._common.memory.charge(share, octets):
            return
        self._silent_until = math.inf  # the client waits for us now
        self.inbound.pause()
        try:
            await self._common.memory.wait(share)
        finally:
            self.inbound.resume()

    def _too_slow(self) -> None:
        self._hang_up("421 4.4.2", "too slow while other clients wait for memory; try again later")


Dialogue.methods = methods_of(Dialogue, COMMANDS)
