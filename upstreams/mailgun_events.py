"""What Mailgun's webhook says, as neutral events (provider page mailgun.md, section 4). Pure.

The signature covers a time and a token and not the body: who may use a token twice may say anything. So every token
must be taken once, which is what the seal is for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from config.credentials import Secret
from routing.provider_events import EventReader, Post, ProviderEvent, Refusal, Told, moment, words
from upstreams.api_reply import json_object

OLDEST: Final = 9 * 3600.0
"""Seconds that a token counts. Mailgun tries again for 8 hours, and whether it signs anew then is not documented: a
shorter time would lose what was told while we were away. An hour more is for clocks.
"""
AHEAD: Final = 300.0
"""Seconds that Mailgun's clock may be ahead of ours."""

LARGEST: Final = 256 << 10
"""Octets of a body, which is one event: it is parsed before it is believed."""

NEVER: Final = 406
"""The one refusal after which Mailgun does not try again."""


def reader(signing_key: Secret) -> EventReader:
    """Reads posts that are signed with this webhook signing key."""

    def read(_headers: Mapping[str, str], body: bytes, now: float) -> Post | Refusal:
        if len(body) > LARGEST:
            return Refusal(NEVER, "larger than an event is")
        said = json_object(body)
        seal = _object_at(said, "signature")
        stamp, token, given = (seal.get(name) for name in ("timestamp", "token", "signature"))
        if not (isinstance(stamp, str) and isinstance(token, str) and isinstance(given, str)):
            return Refusal(NEVER if said is None else 401, "not signed")
        mark = _signature(signing_key, stamp, token)
        if not hmac.compare_digest(mark.encode(), given.lower().encode("utf-8", "replace")):
            return Refusal(401, "wrong signature")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12 and now - OLDEST < int(stamp) < now + AHEAD):
            return Refusal(NEVER, "signed too long ago, or by a clock that is ahead")
        event = _event(_object_at(said, "event-data"), now)
        events = () if event is None else (event,)
        return Post(events, mark, int(stamp) + OLDEST, NEVER, ignored=1 - len(events))

    return read


def _signature(key: Secret, stamp: str, token: str) -> str:
    signed = f"{stamp}{token}".encode("utf-8", "replace")
    return hmac.new(key.reveal().encode(), signed, hashlib.sha256).hexdigest()


def _object_at(said: dict[str, Any] | None, name: str) -> dict[str, Any]:
    found = said.get(name) if said else None
    return found if isinstance(found, dict) else {}


def _event(said: dict[str, Any], now: float) -> ProviderEvent | None:
    """The event; None for what is no news of a delivery."""
    told = _told(said)
    if told is None:
        return None
    status = _object_at(said, "delivery-status")
    return ProviderEvent(
        id=words(said.get("id"), 200) or hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        mail=words(_object_at(said, "user-variables").get("relay_id"), 100),
        recipient=words(said.get("recipient"), 320),
        at=moment(said.get("timestamp"), now),
        told=told,
        reply=_reply(status),
    )


def _told(said: dict[str, Any]) -> Told | None:
    match said.get("event"), said.get("severity"):
        case "delivered", _:
            return Told.DELIVERED
        case "failed", "temporary":
            return Told.DEFERRED
        case "failed", _:
            return Told.BOUNCED
        case "complained", _:
            return Told.COMPLAINED
    return None


def _reply(status: dict[str, Any]) -> str:
    """The far server's code and words; Mailgun's own where that server said none."""
    code, said = status.get("code"), words(status.get("message")) or words(status.get("description"))
    shown = str(code) if isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 999 else ""
    return said if said.startswith(shown) else f"{shown} {said}".rstrip()
