"""Keys that tests sign with: made once in a process, for making one takes a while."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class TestKey:
    """A private key as PEM, and the TXT record that stands for it."""

    __test__ = False
    pem: str
    record: str


@cache
def rsa_key(name: str) -> TestKey:
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TestKey(pem, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")
