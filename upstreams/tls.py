"""The TLS client contexts of a process: certificates and names are always checked, against the system's trust.

`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by OpenSSL itself. There is no switch to skip the check.
"""

from __future__ import annotations

import os
import ssl
from threading import Lock


class Trust:
    """The system's trust, loaded at the first use and shared by all upstreams: a copy costs 0.9 MB and 30 ms.

    Sharing is safe because a context holds no secret: there are no client certificates, and OpenSSL resumes a client's
    session only when it is handed one (smtp_tls.py keeps those, each upstream its own). There are two contexts because
    an HTTP client sets its protocol names (ALPN, RFC 7301) on the one it uses, and an SMTP server may refuse them.
    """

    __slots__ = ("_http", "_lock", "_smtp", "seen")

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        """When the certificates of servers end (unix seconds), by host and port, as each was shown last."""
        self._http: ssl.SSLContext | None = None
        self._smtp: ssl.SSLContext | None = None
        self._lock = Lock()

    def saw(self, place: str, tls: ssl.SSLObject | None) -> None:
        """Note the certificate of an open connection to `place`."""
        shown = tls.getpeercert() if tls is not None else None
        if shown and "notAfter" in shown:
            self.seen[place] = float(ssl.cert_time_to_seconds(str(shown["notAfter"])))

    def for_http(self) -> ssl.SSLContext:
        """The context of all HTTP clients. The first call reads the trust store: make it in a thread."""
        with self._lock:
            self._http = self._http or _client_context()
            return self._http

    def for_smtp(self) -> ssl.SSLContext:
        """The context of all SMTP clients; see `for_http`."""
        with self._lock:
            self._smtp = self._smtp or _client_context()
            return self._smtp


class TrustUnusable(Exception):
    """The trust that was asked for cannot be had; OpenSSL itself would go on with none, and every server seem wrong."""


def require_trust() -> None:
    """Raises TrustUnusable, with a sentence for ops, when SSL_CERT_FILE is set and holds no certificate."""
    path = os.environ.get("SSL_CERT_FILE")
    if path is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise TrustUnusable(f"SSL_CERT_FILE={path} {why}; name a PEM file of authorities, or unset it") from None


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
