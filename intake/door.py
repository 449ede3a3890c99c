"""What one listener asks of its clients: an address, TLS, a login. Made once, shared by its connections.

Must never let in a client that no `allow` network names, nor tell a right name from a wrong one.
"""

from __future__ import annotations

import hmac
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.network import Network, client, network
from config.relay_settings import Listen, ListenTls, PerPeer
from intake.peers import Peers

_PEERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Door:
    """`context` is there when TLS is offered, `users` (name -> password) when a login is asked for."""

    allow: tuple[Network, ...]
    peers: Peers | None = None
    context: ssl.SSLContext | None = None
    tls_first: bool = False
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    plain_login: bool = False
    """A login may be said without TLS: there is none, and nothing leaves the machine."""
    _verdicts: dict[str, bool] = field(init=False, default_factory=dict, repr=False, compare=False)
    """By address: few clients make many connections."""

    def allows(self, peer: Any) -> bool:
        """Whether a client may speak at all. `peer` is the socket's peer name."""
        if not peer:
            return False
        allowed = self._verdicts.get(peer[0])
        if allowed is None:
            address = client(str(peer[0]))
            allowed = any(address in found for found in self.allow)
            if len(self._verdicts) < _PEERS:
                self._verdicts[peer[0]] = allowed
        return allowed

    @property
    def guarded(self) -> bool:
        """It asks more than an address."""
        return bool(self.peers or self.context or self.users)

    def knows(self, name: str, password: str) -> bool:
        """Whether the login is right, in the same time for every wrong one."""
        right = self.users.get(name, "")
        return hmac.compare_digest(right.encode(), password.encode()) and bool(right)


def door_of(listen: Listen, *, loopback: bool) -> Door:
    """The door of a listener. Raises OSError (`ssl.SSLError` is one) with a sentence for ops when its certificate
    cannot be used.
    """
    return Door(
        tuple(network(text) for text in listen.allow),
        Peers(listen.per_peer or PerPeer()) if listen.per_peer or listen.users else None,
        server_context(listen.tls) if listen.tls else None,
        bool(listen.tls and listen.tls.required),
        {user.name: user.password.reveal() for user in listen.users},
        loopback and listen.tls is None,
    )


def server_context(tls: ListenTls) -> ssl.SSLContext:
    """TLS 1.2 and up with our certificate. The key is handed to OpenSSL through memory that no file names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with os.fdopen(os.memfd_create("key"), "wb") as key:
        key.write(tls.key.reveal().encode())
        key.flush()
        try:
            context.load_cert_chain(tls.certificate, f"/proc/self/fd/{key.fileno()}", password="")
        except OSError as error:
            raise OSError(f"tls: {_wrong(tls.certificate, error)}") from None
    return context


def _wrong(certificate: Path, error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return f"{certificate} cannot be read ({error.strerror}); the relay's own user must be able to"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key is not that of {certificate}; name the two that belong together"
    return f"{certificate} and its key cannot be used ({error.reason}); both are PEM, the key without a password"
