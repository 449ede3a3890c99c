"""MAIL and RCPT on an open session, and never DATA: whether a server would take a mail, as far as it says so before.

Must never say DATA or BDAT, so that nothing can be sent.
"""

from __future__ import annotations

from routing.addresses import ascii_domain
from routing.outcome import Outcome, Stage, Word
from upstreams.base import Rehearsal
from upstreams.smtp_replies import Reply, ReplyTable
from upstreams.smtp_session import Session
from upstreams.smtp_wire import Broken


async def rehearse_on(session: Session, mail: Rehearsal, replies: ReplyTable, seconds: float) -> Outcome:
    """The first refusal, or SENT with the server's word on the recipient. Ends with RSET and QUIT."""
    steps = (
        (b"MAIL FROM:<" + _path(mail.sender) + b">", Stage.SENDER),
        (b"RCPT TO:<" + _path(mail.recipient) + b">", Stage.RECIPIENT),
    )
    try:
        for command, stage in steps:
            reply = await _said(session, command, seconds)
            if not reply.positive:
                return replies.classify(reply, stage)
        await _said(session, b"RSET", seconds)
    except Broken as broken:
        return Outcome(Word.RETRY, str(broken), Stage.SENDER)
    finally:
        session.wire.quit()
    return Outcome(Word.SENT, str(reply), Stage.RECIPIENT, reply.code, reply.enhanced)


async def _said(session: Session, command: bytes, seconds: float) -> Reply:
    session.wire.send(command + b"\r\n", 1)
    return await session.wire.reply(seconds)


def _path(address: str) -> bytes:
    local, _, domain = address.rpartition("@")
    return local.encode("ascii", "replace") + b"@" + ascii_domain(domain)
