"""STARTTLS and AUTH for clients other than CallPro (RFC 3207, RFC 4954): PLAIN and LOGIN, for the users of a listener.

Must never take a password in clear over a network, nor go on with what was said before TLS began.
"""

from __future__ import annotations

import binascii
import logging
import ssl
from base64 import b64decode
from typing import TYPE_CHECKING, Final

from routing.events import emit

if TYPE_CHECKING:
    from intake.guarded import GuardedDialogue

_log = logging.getLogger("intake")

_HANDSHAKE_SECONDS: Final = 30.0
_MOST_FAILURES: Final = 3
"""Wrong logins of one connection."""
_ANSWER_OCTETS: Final = 12288
"""RFC 4954 4: a line of an exchange."""


class _Aborted(Exception):
    """The client took the login back, or wrote it wrongly; the text is the reply."""


async def start_tls(dialogue: GuardedDialogue, context: ssl.SSLContext) -> None:
    """Answer 220 and shake hands. Raises ConnectionResetError when that fails."""
    inbound = dialogue.inbound
    if not inbound.empty:  # somebody may have put it there before TLS began (CVE-2011-0411)
        await dialogue.push("554 5.5.1 Nothing may follow STARTTLS before TLS has begun")
        raise ConnectionResetError("commands behind STARTTLS")
    await dialogue.push("220 2.0.0 Ready to start TLS")
    plain = dialogue.transport
    if plain is None:
        raise ConnectionResetError("the client is gone")
    try:
        transport = await dialogue.loop.start_tls(
            plain, dialogue, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_SECONDS
        )
    except OSError as error:  # ssl.SSLError and ConnectionError are OSErrors, and so is a time-out
        reason = getattr(error, "reason", None) or type(error).__name__
        emit(_log, "tls_failed", logging.WARNING, peer=dialogue.peer, reason=reason)
        raise ConnectionResetError("no TLS") from error
    if transport is None:  # it went during the handshake
        raise ConnectionResetError("the client is gone")
    dialogue.over(transport)


async def log_in(dialogue: GuardedDialogue, argument: str | None) -> None:
    """The whole of AUTH, up to its answer."""
    door, session = dialogue.door, dialogue.session
    refusal = _out_of_place(dialogue, argument)
    if refusal is not None:
        await dialogue.push(refusal)
        return
    mechanism, _, initial = (argument or "").partition(" ")
    try:
        name, password = await (_plain if mechanism.upper() == "PLAIN" else _login)(dialogue, initial.strip())
    except _Aborted as aborted:
        await dialogue.push(str(aborted))
        return
    if door.knows(name, password):
        session.login = name
        await dialogue.push("235 2.7.0 Authentication successful")
        return
    emit(_log, "login_refused", logging.WARNING, peer=dialogue.peer, user=name[:100])
    session.failures += 1
    if door.peers:
        door.peers.failed(dialogue.peer, dialogue.loop.time())
    if session.failures >= _MOST_FAILURES:
        await dialogue.push("421 4.7.0 Too many wrong logins, goodbye")
        raise ConnectionResetError("turned out")
    await dialogue.push("535 5.7.8 Wrong user name or password")


def _out_of_place(dialogue: GuardedDialogue, argument: str | None) -> str | None:
    door = dialogue.door
    mechanism = (argument or "").partition(" ")[0].upper()
    if not door.users:
        return "502 5.5.1 No login is needed here"
    if not dialogue.may_log_in:
        return "538 5.7.11 Say STARTTLS first: a password must not be sent in clear"
    if dialogue.session.login or dialogue.sender is not None:
        return "503 5.5.1 Not now: already logged in, or a mail is under way"
    if mechanism not in ("PLAIN", "LOGIN"):
        return "504 5.5.4 PLAIN and LOGIN are what is offered"
    if door.peers and not door.peers.may_log_in(dialogue.peer, dialogue.loop.time()):
        return "454 4.7.0 Too many wrong logins from your address; try again in a minute"
    return None


async def _plain(dialogue: GuardedDialogue, initial: str) -> tuple[str, str]:
    said = _decoded(initial) if initial else await _ask(dialogue, "")
    parts = said.split("\0")
    if len(parts) != 3 or parts[0] not in ("", parts[1]):
        raise _Aborted("501 5.5.2 PLAIN is NUL, user name, NUL, password in base64")
    return parts[1], parts[2]


async def _login(dialogue: GuardedDialogue, initial: str) -> tuple[str, str]:
    name = _decoded(initial) if initial else await _ask(dialogue, "VXNlcm5hbWU6")
    return name, await _ask(dialogue, "UGFzc3dvcmQ6")


async def _ask(dialogue: GuardedDialogue, challenge: str) -> str:
    await dialogue.push(f"334 {challenge}")
    said = await dialogue.inbound.line()
    line = b"" if said is None else said.strip()
    if said is None or len(line) > _ANSWER_OCTETS:  # it may be a password: no reading on
        await dialogue.push("500 5.5.6 Line too long")
        raise ConnectionResetError("an answer without end")
    if line == b"*":
        raise _Aborted("501 5.7.0 Login taken back")
    return _decoded(line.decode("latin-1"))


def _decoded(text: str) -> str:
    try:
        return "" if text == "=" else b64decode(text.encode("ascii"), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise _Aborted("501 5.5.2 Not base64 of UTF-8") from None
