"""A certificate authority for look-alike servers; the relay trusts it through SSL_CERT_FILE and nothing else."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Certificates for loopback names. `bundle` is the file to name in SSL_CERT_FILE."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = folder / "test-authority.pem"
        self._ca.cert_pem.write_to_path(str(self.bundle))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """A server's context with a certificate for `names` (default: localhost and 127.0.0.1)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
        return context

    def server_files(self, folder: Path, *names: str) -> tuple[Path, Path]:
        """The PEM files of a certificate for `names` (default: localhost and 127.0.0.1), and of its key."""
        made = self._ca.issue_cert(*(names or ("localhost", "127.0.0.1")))
        chain, key = folder / "chain.pem", folder / "key.pem"
        made.cert_chain_pems[0].write_to_path(str(chain))
        made.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return chain, key

    def expired_context(self) -> ssl.SSLContext:
        """A server's context with a certificate that was good until yesterday."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        yesterday = datetime.now(UTC) - timedelta(days=1)
        made = self._ca.issue_cert("localhost", not_before=yesterday - timedelta(days=90), not_after=yesterday)
        made.configure_cert(context)
        return context
