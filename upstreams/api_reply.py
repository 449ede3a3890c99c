"""What the answers of HTTP APIs share: their JSON, their words without our secrets, and how long they ask to wait.

Must never raise on anything an answer holds, nor let a part of a secret out.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from config.credentials import Secret
from routing.outcome import Hint, Word
from upstreams.http_client import Reply
from upstreams.smtp_login import scrubbed

LONGEST_WAIT: Final = 3600.0
REPLY_SHOWN: Final = 500


def parsed(octets: bytes) -> Any:
    """What the JSON says; None when it is something else (a gateway answers otherwise), or is nested without end."""
    try:
        return json.loads(octets)
    except (ValueError, RecursionError):
        return None


def json_object(octets: bytes) -> dict[str, Any] | None:
    """The JSON object that these are; None when they are something else."""
    read = parsed(octets)
    return read if isinstance(read, dict) else None


def member(reply: Reply, name: str) -> Any:
    """One member of the JSON object that the body is; None without it."""
    return (json_object(reply.body) or {}).get(name)


def words(value: object) -> str:
    """A text of an answer on one line, fit for logs and the spool; "" when it is no text."""
    return " ".join(value.encode("utf-8", "replace").decode("utf-8").split()) if isinstance(value, str) else ""


def told(reply: Reply, message: object, *secrets: str) -> str:
    """Status and `message` (the body itself when that says nothing), at most REPLY_SHOWN characters.

    Each secret is taken out before the text is cut, or half of one could stay.
    """
    said = words(message) or words(reply.body.decode("utf-8", "replace"))
    return scrubbed(f"{reply.status} {said}", *filter(None, secrets)).strip()[:REPLY_SHOWN]


def verdict(
    status: int, table: Mapping[int, tuple[Word, Hint | None]], wrong: Hint | None, elsewhere: Hint
) -> tuple[Word, Hint | None]:
    """What a refusal's status means: by the provider's `table`, else by its class. `wrong` is for a request that is not
    understood, `elsewhere` for what no API of that provider would say.
    """
    if status in table:
        return table[status]
    if status >= 500:
        return Word.RETRY, None
    return (Word.REJECT, wrong) if status >= 400 else (Word.CONFIG, elsewhere)


def bounded(seconds: float, longest: float = LONGEST_WAIT) -> float:
    """A stated wait between a second and `longest`: clocks differ, and nobody is to be waited for for ever."""
    return min(max(seconds, 1.0), longest)


def is_key(key: Secret) -> bool:
    """True when it may be an API key: one word of printable ASCII."""
    text = key.reveal()
    return text.isascii() and text.isprintable() and " " not in text


def basic(user: str, password: str) -> str:
    """The value of Authorization for a user and a password (RFC 7617 2)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")
