"""One TLS client context per upstream: certificates and names are always checked, against the system's trust.

`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by OpenSSL itself. There is no switch to skip the check.
"""

from __future__ import annotations

import ssl


def client_context() -> ssl.SSLContext:
    """A context for connections to one upstream. Keep it: loading the trust store costs tens of milliseconds."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
