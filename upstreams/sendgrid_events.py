"""What SendGrid's signed event webhook says, as neutral events (provider page sendgrid.md, section 3). Pure.

Nothing is read from a body before its signature is found good, and nothing is believed that it does not cover.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from config.fields import Mistake
from routing.provider_events import EventReader, Post, ProviderEvent, Refusal, Told, moment, words
from upstreams.api_reply import parsed

if TYPE_CHECKING:  # the library is large, and only a relay with a webhook key needs it
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"

OLDEST: Final = 25 * 3600.0
"""Seconds that a signature counts. SendGrid tries again for 24 hours, and whether it signs anew then is not documented:
a shorter time would lose what was told while we were away. An hour more is for clocks. A request taken twice does no
harm: the whole body is signed, and each event is kept once.
"""
AHEAD: Final = 300.0
"""Seconds that SendGrid's clock may be ahead of ours."""

AGAIN: Final = 208
"""For a request that was taken before: nothing is kept, and only a 2xx stops SendGrid from sending it once more."""

_TOLD: Final = MappingProxyType({
    "delivered": Told.DELIVERED, "deferred": Told.DEFERRED, "bounce": Told.BOUNCED, "dropped": Told.DROPPED,
    "spamreport": Told.COMPLAINED,
})  # fmt: skip


def verification_key(text: str) -> EllipticCurvePublicKey:
    """The key as the settings page shows it: base64 of its DER. Raises Mistake."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise Mistake(
            "is not a verification key", "copy it from SendGrid's event webhook settings: one line, MFkw... to the ="
        )
    return key


def reader(webhook_key: str) -> EventReader:
    """Reads posts that are signed for this verification key. Raises Mistake."""
    key = verification_key(webhook_key)

    def read(headers: Mapping[str, str], body: bytes, now: float) -> Post | Refusal:
        signature, stamp = headers.get(SIGNATURE), headers.get(TIMESTAMP)
        if not signature or not stamp:
            return Refusal(401, "not signed")
        digest = hashlib.sha256(stamp.encode("utf-8", "replace"))
        digest.update(body)
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12) or not _signed(
            key, signature, digest.digest()
        ):
            return Refusal(401, "wrong signature")
        if not now - OLDEST < int(stamp) < now + AHEAD:
            return Refusal(403, "signed too long ago, or by a clock that is ahead")
        # The seal is of what is signed, not of the signature: one of ECDSA can be written in two ways.
        seal = hashlib.sha256(webhook_key.encode() + digest.digest()).hexdigest()
        return _post(body, seal, int(stamp) + OLDEST, now)

    return read


def _signed(key: EllipticCurvePublicKey, signature: str, digest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(signature, validate=True), digest, ECDSA(Prehashed(SHA256())))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _post(body: bytes, seal: str, until: float, now: float) -> Post | Refusal:
    said = parsed(body)
    if not isinstance(said, list):
        return Refusal(406, "not a list of events")
    events = tuple(event for each in said if (event := _event(each, now)) is not None)
    return Post(events, seal, until, AGAIN, ignored=len(said) - len(events))


def _event(said: Any, now: float) -> ProviderEvent | None:
    """One event; None for what is no news of a delivery."""
    told = _TOLD.get(words(said.get("event"))) if isinstance(said, dict) else None
    if told is None:
        return None
    reply = words(said.get("reason")) or words(said.get("response"))
    if told is Told.BOUNCED and said.get("type") == "blocked":
        reply = f"blocked: {reply}"
    return ProviderEvent(
        id=words(said.get("sg_event_id"), 200) or hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        mail=words(said.get("relay_id"), 100),
        recipient=words(said.get("email"), 320),
        at=moment(said.get("timestamp"), now),
        told=told,
        reply=reply,
    )
