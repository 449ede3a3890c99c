"""The TLS context of one SMTP upstream: it takes up the server's last session again, and shares the trust store.

A resumed session spares the key exchange and the certificate chain of each new connection (RFC 8446 2.2); the server
was checked when the session was made. It must never offer a session to another host name, or one of another upstream.
"""

from __future__ import annotations

import ssl
from math import inf
from typing import Final

from upstreams.tls import Trust

_READ_EVERY: Final = 3600.0
"""Seconds; servers commonly take a session up again for one to ten hours."""


class ResumingContext(ssl.SSLContext):
    """Remembers one session per host name for one upstream. Event loops reach it through `wrap_bio` alone.

    The connections themselves are made by the shared context behind it, so this one stays empty (12 KB): used in any
    other way it trusts nobody, and every certificate is refused.
    """

    _shared: ssl.SSLContext
    _sessions: dict[str, ssl.SSLSession]
    _read_at: dict[str, float]

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As the shared context does it, with the remembered session where there is one."""
        remembered = session or self._sessions.get(str(server_hostname))
        return self._shared.wrap_bio(incoming, outgoing, server_side, server_hostname, remembered)

    def remember(self, host: str, tls: ssl.SSLObject, now: float) -> None:
        """Keep the session of an open connection to `host` (TLS 1.3: it arrives with the first replies). `now` counts
        seconds.

        A session that was taken up again stays the one for next time. A new one is read seldom, and once: in CPython
        3.11 each reading of `session` leaks a copy of it, 7 KB with its certificates.
        """
        if tls.session_reused or now < self._read_at.get(host, -inf) + _READ_EVERY:
            return
        self._read_at[host] = now
        session = tls.session
        if session is not None and session.has_ticket:
            self._sessions[host] = session


def resuming_context(trust: Trust) -> ResumingContext:
    """A context for one upstream: TLS 1.2 or later, system trust (`SSL_CERT_FILE` is honoured), names checked."""
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context._shared = trust.for_smtp()
    context._sessions = {}
    context._read_at = {}
    return context
