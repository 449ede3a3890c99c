"""One mail over an open session: MAIL, RCPT and DATA in one write where the server pipelines, an outcome per recipient.

The content goes out as it was handed in, dots stuffed where needed (RFC 5321 4.5.2), because a signature may cover it.
What is not known to have failed after the final dot is `unknown`, never `retry`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from routing.addresses import ascii_domain
from routing.mail import Outgoing
from routing.outcome import Hint, Outcome, Results, Stage, Who, Word
from upstreams.smtp_replies import Reply, ReplyTable
from upstreams.smtp_session import Session
from upstreams.smtp_wire import Broken

_SAFE: Final = re.compile(r"(?:\"(?:[^\x00-\x1f\x7f\"\\]|\\[\x20-\x7e])*\"@)?[^\x00-\x20\x7f<>]*\Z")
_QUEUE_ID: Final = re.compile(r"\bqueued as ([^\s;,]+)|\bid=([^\s;,]+)", re.IGNORECASE)
_TOO_MANY: Final = ("4.5.3", "5.5.3", None)
_AT_ONCE: Final = 0.0


class Transaction:
    """One attempt on one session. `timeout` is for each reply to a command, `data_timeout` for the one to the final
    dot, in seconds.
    """

    def __init__(
        self, session: Session, mail: Outgoing, replies: ReplyTable, timeout: float, data_timeout: float
    ) -> None:
        self._session = session
        self._wire = session.wire
        self._pipelining = session.offers.pipelining
        self._mail = mail
        self._content = mail.content if mail.content.endswith(b"\r\n") else mail.content + b"\r\n"
        self._replies = replies
        self._timeout = timeout
        self._data_timeout = data_timeout
        self._results: Results = {}
        self._accepted: list[str] = []
        self._crowded: list[str] = []
        self._stage = Stage.SENDER
        self._heard = False
        self._handed_over = False
        self.unheard = False
        """After `run`: True when the server hung up before it answered anything, so it knows nothing of the mail."""

    async def run(self) -> Results:
        """Send the mail. One outcome for every recipient of the mail."""
        paths = self._paths()
        if paths:
            self._session.mails += 1
            try:
                await self._converse(paths)
            except Broken as broken:
                self._break_off(broken)
        return self._results

    # ---- what will be said

    def _paths(self) -> dict[str, bytes]:
        """Recipient -> its address on the wire. Those that cannot be said to this server are settled here."""
        unsayable = self._path(self._mail.sender) is None
        paths: dict[str, bytes] = {}
        for recipient in dict.fromkeys(self._mail.recipients):
            path = None if unsayable else self._path(recipient)
            if path is None:
                self._results[recipient] = _unsayable(self._mail.sender if unsayable else recipient)
            else:
                paths[recipient] = path
        return paths

    def _path(self, address: str) -> bytes | None:
        """An address on the wire: the domain as A-labels where the server knows no SMTPUTF8 (RFC 6531)."""
        if not _SAFE.match(address):
            return None
        if address.isascii() or self._session.offers.utf8:
            return address.encode()
        local, _, domain = address.rpartition("@")
        path = local.encode() + b"@" + ascii_domain(domain)
        return path if path.isascii() else None

    def _mail_command(self, paths: dict[str, bytes]) -> bytes:
        offers, content = self._session.offers, self._content
        sender = self._path(self._mail.sender) or b""
        command = b"MAIL FROM:<" + sender + b">"
        if offers.size:
            command += b" SIZE=%d" % len(content)
        if offers.eight_bit and not content.isascii():
            command += b" BODY=8BITMIME"
        if not (sender.isascii() and all(map(bytes.isascii, paths.values()))):
            command += b" SMTPUTF8"
        return command + b"\r\n"

    # ---- the conversation

    async def _converse(self, paths: dict[str, bytes]) -> None:
        rcpts = {recipient: b"RCPT TO:<" + path + b">\r\n" for recipient, path in paths.items()}
        mail = self._mail_command(paths)
        reset = [b"RSET\r\n"] if self._session.unfinished else []
        if self._pipelining:
            group = [*reset, mail, *rcpts.values(), b"DATA\r\n"]
            self._wire.send(b"".join(group), len(group))
        for command in reset:
            if not (await self._ask(command)).positive:
                self._heard = False
                raise Broken("the server does not take RSET", closed=True)
        self._session.unfinished = True
        await self._envelope(mail, rcpts)
        if self._accepted or self._pipelining:
            await self._data()

    async def _ask(self, command: bytes) -> Reply:
        """The reply to a command, which is written now unless it went out with its group."""
        if not self._pipelining:
            self._wire.send(command, 1)
        reply = await self._wire.reply(self._timeout)
        if reply.code == 421:
            raise Farewell(reply)
        self._heard = True
        if reply.code < 400 and reply.positive == (command == b"DATA\r\n"):
            raise Broken(f"the server is out of step: {reply}")
        return reply

    async def _envelope(self, mail: bytes, rcpts: dict[str, bytes]) -> None:
        reply = await self._ask(mail)
        if not reply.positive:
            self._settle(rcpts, reply)
            self._session.unfinished = False
        self._stage = Stage.RECIPIENT
        for recipient, command in rcpts.items():
            if reply.positive or self._pipelining:
                self._take(recipient, await self._ask(command))

    def _take(self, recipient: str, reply: Reply) -> None:
        """Note the reply to RCPT; it means nothing for a recipient that a refused MAIL has settled."""
        if recipient in self._results:
            return
        if reply.positive:
            self._accepted.append(recipient)
            return
        self._results[recipient] = self._replies.classify(reply, Stage.RECIPIENT)
        if self._accepted and reply.code in (452, 552) and reply.enhanced in _TOO_MANY:
            self._crowded.append(recipient)

    async def _data(self) -> None:
        reply = await self._ask(b"DATA\r\n")
        if reply.code // 100 != 3:
            self._stage = Stage.CONTENT
            self._settle(self._accepted, reply)
        elif self._accepted:
            await self._hand_over()
        else:  # RFC 2920 3.1: DATA was let in although no recipient was; a lone dot ends it without a mail
            self._wire.send(b".\r\n", 1)
            await self._wire.reply(self._timeout)
            self._session.unfinished = False

    async def _hand_over(self) -> None:
        self._stage = Stage.CONTENT
        last = await self._wire.feed(_stuffed(self._content), self._timeout)
        self._handed_over = True
        self._wire.send(last + b".\r\n", 1)
        reply = await self._wire.reply(self._data_timeout)
        if reply.code < 400 and not reply.positive:
            raise Broken(f"the server is out of step: {reply}")
        self._session.unfinished = False
        self._session.spent |= reply.code == 421
        self._settle(self._accepted, reply)
        if reply.positive:
            self._send_rest_soon()

    # ---- what became of it

    def _settle(self, recipients: Iterable[str], reply: Reply) -> None:
        outcome = _sent(reply) if self._handed_over and reply.positive else self._replies.classify(reply, self._stage)
        self._results |= dict.fromkeys(recipients, outcome)

    def _send_rest_soon(self) -> None:
        """RFC 5321 4.5.3.1.10: who came after "too many recipients" goes in a transaction of its own, at once."""
        for recipient in self._crowded:
            outcome = self._results[recipient]
            wait = _AT_ONCE if outcome.wait is None else outcome.wait
            self._results[recipient] = replace(outcome, word=Word.RETRY, wait=wait, hint=None)

    def _break_off(self, broken: Broken) -> None:
        """Settle who is not settled yet. After the final dot a mail may have been taken."""
        self._session.spent = True
        self.unheard = broken.closed and not self._heard
        if self._handed_over:
            outcome = Outcome(Word.UNKNOWN, str(broken), self._stage)
        elif isinstance(broken, Farewell):
            outcome = self._replies.classify(broken.reply, self._stage)
        else:
            outcome = Outcome(Word.RETRY, str(broken), self._stage)
        for recipient in dict.fromkeys(self._mail.recipients):
            self._results.setdefault(recipient, outcome)


class Farewell(Broken):
    """The server took leave with 421 (RFC 5321 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply), closed=True)
        self.reply = reply


def _sent(reply: Reply) -> Outcome:
    match = _QUEUE_ID.search(reply.text)
    upstream_id = (match[1] or match[2]) if match else None
    return Outcome(Word.SENT, str(reply), Stage.CONTENT, reply.code, reply.enhanced, upstream_id=upstream_id)


def _unsayable(address: str) -> Outcome:
    what = (
        "holds characters that no address has" if not _SAFE.match(address) else "needs SMTPUTF8, which is not offered"
    )
    return Outcome(
        Word.REJECT,
        f"{address!r} {what}",
        Stage.PREPARE,
        enhanced="5.1.3",
        hint=Hint(
            Who.CALLPRO,
            "Mend the address in CallPro's data.",
            "Herstel het adres in CallPro.",
        ),
    )


def _stuffed(content: bytes) -> bytes:
    """The content with dots doubled where a line begins with one; the same object where none does."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content
