"""DKIM records in the DNS (RFC 6376 3.6.1): what ours must hold, and what stands at a selector.

Must never show anything of a private key.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ops.resolver import Answer, Known, Lookup


class KeyRecord(StrEnum):
    """What stands where our key should."""

    OURS = "ours"
    OTHER = "another key"
    REVOKED = "revoked"
    WRONG = "wrong"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KeyFound:
    """`told` is a sentence on `state`; `alias` where a CNAME led, "" without one."""

    state: KeyRecord
    told: str
    alias: str = ""
    testing: bool = False


def public_part(pem: str) -> tuple[str, str]:
    """The `k=` and `p=` of a private key. Raises ValueError for what is none."""
    private = load_pem_private_key(pem.encode(), None)
    if isinstance(private, Ed25519PrivateKey):
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return "ed25519", base64.b64encode(raw).decode()
    if not isinstance(private, RSAPrivateKey):
        raise ValueError("neither RSA nor Ed25519")  # noqa: TRY004 - a value from a file
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "rsa", base64.b64encode(der).decode()


def record_of(pem: str) -> str:
    """The TXT record for a private key. Raises ValueError for what is none."""
    kind, key = public_part(pem)
    return f"v=DKIM1; k={kind}; p={key}"


async def key_at(dns: Lookup, selector: str, domain: str, pem: str) -> KeyFound:
    """Whether the record of a selector holds the public part of `pem`."""
    name = f"{selector}._domainkey.{domain}"
    found = await dns.ask(name, "TXT")
    return _judged(name, found, public_part(pem))


async def selector_exists(dns: Lookup, selector: str, domain: str) -> bool | None:
    """Whether a provider's selector has a record, an alias or a key; None when it is not known."""
    found = await dns.ask(f"{selector}._domainkey.{domain}", "TXT")
    if found.known is Known.UNKNOWN:
        return None
    return bool(found.records) or bool(found.alias)


def _judged(name: str, found: Answer, ours: tuple[str, str]) -> KeyFound:
    if found.known is Known.UNKNOWN:
        return KeyFound(KeyRecord.UNKNOWN, f"{name} is not known: {found.why}", found.alias)
    if not found.records:
        if found.alias:
            return KeyFound(KeyRecord.MISSING, f"{name} leads to {found.alias}, where no record stands", found.alias)
        return KeyFound(KeyRecord.MISSING, f"{name} has no record")
    if len(found.records) > 1:
        return KeyFound(KeyRecord.WRONG, f"{name} has {len(found.records)} records; keep one", found.alias)
    return _compared(name, found, ours)


def _compared(name: str, found: Answer, ours: tuple[str, str]) -> KeyFound:
    tags = _tags(found.records[0])
    if "p" not in tags or tags.get("v", "DKIM1") != "DKIM1":
        return KeyFound(KeyRecord.WRONG, f"{name} holds no DKIM record", found.alias)
    if not tags["p"]:
        return KeyFound(KeyRecord.REVOKED, f"{name} says that the key is revoked (p= is empty)", found.alias)
    theirs = (tags.get("k", "rsa"), tags["p"])
    try:
        same = theirs[0] == ours[0] and base64.b64decode(theirs[1], validate=True) == base64.b64decode(ours[1])
    except binascii.Error:
        return KeyFound(KeyRecord.WRONG, f"the key in {name} is damaged: it is no base64", found.alias)
    if not same:
        return KeyFound(KeyRecord.OTHER, f"{name} holds another key than the one we sign with", found.alias)
    testing = "y" in tags.get("t", "").split(":")
    return KeyFound(KeyRecord.OURS, f"{name} holds our key", found.alias, testing)


def _tags(text: str) -> dict[str, str]:
    tags = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags[name.strip()] = "".join(value.split())
    return tags
