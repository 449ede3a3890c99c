"""DKIM signatures (RFC 6376, RFC 8301, RFC 8463): relaxed/relaxed, SHA-256, over the final CRLF bytes.

8-bit parts are encoded first, so that no next hop has a reason to. Must never change anything else below its own
fields, and never show anything of a key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from config.rules import Dkim
from routing.addresses import ascii_domain
from routing.headers import Field, fields, header_end
from routing.transfer_encoding import seven_bit

SIGNED_FIELDS: Final = (
    "from",
    "to",
    "cc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-unsubscribe",
    "list-unsubscribe-post",
)
"""What a signature covers, as dns-authentication section 2 lists it."""

RSA_BITS_LEAST: Final = 1024

_NAME: Final = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*")
_LINE: Final = 72


class SigningKeyInvalid(ValueError):
    """A `dkim:` block cannot sign. The text says which and what to do, never anything of the key."""


@dataclass(frozen=True, slots=True, repr=False)
class _Key:
    domain: bytes
    selector: bytes
    private: RSAPrivateKey | Ed25519PrivateKey

    @property
    def algorithm(self) -> bytes:
        return b"rsa-sha256" if isinstance(self.private, RSAPrivateKey) else b"ed25519-sha256"

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(data, PKCS1v15(), SHA256())
        return self.private.sign(hashlib.sha256(data).digest())  # RFC 8463 3: the hash is what is signed


class Signer:
    """The keys of one route, parsed once. Raises SigningKeyInvalid."""

    __slots__ = ("_keys",)

    def __init__(self, settings: tuple[Dkim, ...]) -> None:
        self._keys = tuple(_parse(one) for one in settings)

    @property
    def algorithms(self) -> frozenset[str]:
        """What it signs with, as `a=` says it (RFC 6376 3.5)."""
        return frozenset(key.algorithm.decode() for key in self._keys)

    def sign(self, content: bytes, now: float) -> bytes:
        """`content`, its 8-bit parts encoded, with a DKIM-Signature for every key on top, the first key's first.

        `now` is in unix seconds. `content` must be as it goes over the wire, before dot-stuffing: a change afterwards
        breaks the signature.
        """
        if not self._keys:
            return content
        content = seven_bit(content)
        end = header_end(content)
        names, signed = _select(fields(content[:end]))
        body_hash = base64.b64encode(hashlib.sha256(canonical_body(content[end + 2 :])).digest())
        signatures = [_signature(key, names, signed, body_hash, int(now)) for key in self._keys]
        return b"".join((*signatures, content))


def canonical_body(body: bytes) -> bytes:
    """The body in relaxed form (RFC 6376 3.4.4): white space in runs and before line ends, empty lines at the end."""
    body = _one_space(body).replace(b" \r\n", b"\r\n").removesuffix(b" ")
    end = len(body) - _ending_crlf(body)
    return body[:end] + b"\r\n" if end else b""


def _ending_crlf(body: bytes) -> int:
    """Octets of the CRLF pairs at the end. No loop over them: a mail can end in millions, and the others wait."""
    tail = body[len(body.rstrip(b"\r\n")) :].replace(b"\r\n", b"\0")
    return 2 * (len(tail) - len(tail.rstrip(b"\0")))


def _one_space(octets: bytes) -> bytes:
    """Every run of white space as one space. Halving the runs is twenty times faster than a regular expression."""
    if b"\t" in octets:
        octets = octets.replace(b"\t", b" ")
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets


def canonical_field(name: str, value: bytes) -> bytes:
    """A field in relaxed form (RFC 6376 3.4.2), without the CRLF."""
    return name.lower().encode("ascii") + b":" + _one_space(value.replace(b"\r\n", b"")).strip(b" ")


def _select(present: tuple[Field, ...]) -> tuple[list[bytes], bytes]:
    """The names for h= and the canonical fields behind them. Of several of one name the last comes first (5.4.2)."""
    by_name: dict[str, list[Field]] = {}
    for field in present:
        by_name.setdefault(field.name.lower(), []).append(field)
    names: list[bytes] = []
    signed: list[bytes] = []
    for wanted in SIGNED_FIELDS:
        for field in reversed(by_name.get(wanted, ())):
            names.append(wanted.encode("ascii"))
            signed.append(canonical_field(field.name, field.value))
    # Once more than it occurs: a From added on the way breaks the signature (RFC 6376 8.15).
    return [b"from", *names], b"".join(field + b"\r\n" for field in signed)


def _signature(key: _Key, names: list[bytes], signed: bytes, body_hash: bytes, now: int) -> bytes:
    tags = [b"v=1; a=" + key.algorithm + b"; c=relaxed/relaxed; t=%d;" % now]
    tags.append(b"d=" + key.domain + b"; s=" + key.selector + b";")
    tags.extend(_wrapped_names(names))
    tags.extend((b"bh=" + body_hash + b";", b"b="))
    value = b"\r\n ".join(tags)
    seal = base64.b64encode(key.sign(signed + canonical_field("DKIM-Signature", value)))
    lines = [seal[at : at + _LINE] for at in range(0, len(seal), _LINE)]
    return b"DKIM-Signature: " + value + b"\r\n ".join(lines) + b"\r\n"


def _wrapped_names(names: list[bytes]) -> list[bytes]:
    lines = [b"h="]
    for place, name in enumerate(names):
        piece = name + (b";" if place == len(names) - 1 else b":")
        if len(lines[-1]) + len(piece) > _LINE:
            lines.append(b"")
        lines[-1] += piece
    return lines


def _parse(one: Dkim) -> _Key:
    domain, selector = ascii_domain(one.domain.lower()), one.selector.encode("utf-8", "replace")
    where = f"dkim for {one.domain!r}, selector {one.selector!r}, key {one.key.reference}"
    for label, name in (("domain", domain), ("selector", selector)):
        if not _NAME.fullmatch(name):
            raise SigningKeyInvalid(f"{where}: the {label} is not a DNS name; write it as it stands in the record")
    try:
        private = load_pem_private_key(one.key.reveal().encode("utf-8"), password=None)
    except TypeError:
        raise SigningKeyInvalid(f"{where}: the key has a password; store it without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyInvalid(f"{where}: not a private key in PEM; make one with openssl genrsa 2048") from None
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise SigningKeyInvalid(f"{where}: neither RSA nor Ed25519; make an RSA key of 2048 bits")
    if isinstance(private, RSAPrivateKey) and private.key_size < RSA_BITS_LEAST:
        raise SigningKeyInvalid(f"{where}: RSA with {private.key_size} bits; receivers want 2048 (RFC 8301)")
    return _Key(domain, selector, private)
