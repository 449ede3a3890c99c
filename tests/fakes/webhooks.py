"""The other half of the look-alikes of SendGrid and Mailgun: they sign with keys of their own and post what happened.

sendgrid = SendGridWebhook()               # webhook_key=sendgrid.key
await post(port, "/webhooks/our-sendgrid", *sendgrid.signed([sendgrid.event("delivered", relay_id)]))
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Signed = tuple[dict[str, str], bytes]


@dataclass
class SendGridWebhook:
    """An account with the signed event webhook switched on (provider page sendgrid.md, section 3)."""

    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def key(self) -> str:
        """The verification key as the settings page shows it."""
        der = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def event(self, name: str, relay_id: str, **more: Any) -> dict[str, Any]:
        return {
            "email": "jan@example.org", "timestamp": int(time.time()), "event": name, "relay_id": relay_id,
            "sg_event_id": secrets.token_urlsafe(16), "sg_message_id": "look-alike.filter0001.recvd-1",
            "smtp-id": "<1@acme.nl>", "category": ["acme.nl"], **more,
        }  # fmt: skip

    def signed(self, events: Any, at: float | None = None) -> Signed:
        """Header fields and body; the body ends in CRLF, which is signed too."""
        return self.signed_octets(json.dumps(events).encode() + b"\r\n", at)

    def signed_octets(self, body: bytes, at: float | None = None) -> Signed:
        stamp = str(int(time.time() if at is None else at))
        signature = self.private.sign(stamp.encode() + body, ec.ECDSA(SHA256()))
        return {
            "Content-Type": "application/json",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": stamp,
        }, body


@dataclass
class MailgunWebhook:
    """An account's webhooks (provider page mailgun.md, section 4)."""

    key: str = "look-alike-signing-key"

    def event(self, name: str, relay_id: str, **more: Any) -> dict[str, Any]:
        return {
            "event": name, "id": secrets.token_urlsafe(16), "timestamp": time.time(), "recipient": "jan@example.org",
            "user-variables": {"relay_id": relay_id}, "message": {"headers": {"message-id": "1@acme.nl"}}, **more,
        }  # fmt: skip

    def seal(self, at: float | None = None) -> dict[str, str]:
        stamp, token = str(int(time.time() if at is None else at)), secrets.token_hex(25)
        digest = hmac.new(self.key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
        return {"timestamp": stamp, "token": token, "signature": digest}

    def signed(self, event: Any, at: float | None = None, seal: Mapping[str, str] | None = None) -> Signed:
        """Header fields and body; with the `seal` of another post it is one that was forged."""
        said = {"signature": dict(seal or self.seal(at)), "event-data": event}
        return {"Content-Type": "application/json"}, json.dumps(said).encode()


async def post(port: int, path: str, headers: Mapping[str, str], body: bytes, method: str = "POST") -> int:
    """Post it to 127.0.0.1; the status of the answer."""
    fields = {"Host": "relay.test", "Content-Length": str(len(body)), **headers}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return status(await say(port, head.encode("latin-1") + b"\r\n" + body))


async def say(port: int, octets: bytes) -> bytes:
    """Send these octets and read all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(octets)
        await writer.drain()
        return await asyncio.wait_for(reader.read(), 60)
    finally:
        writer.close()


def status(answer: bytes) -> int:
    """The status of an HTTP/1.1 answer."""
    assert answer.startswith(b"HTTP/1.1 "), answer
    return int(answer[9:12])
