"""What a way hangs on, as a short digest: whether relays on one spool have the same settings and secrets for it.

Must never let a secret be found by whoever reads the digest: it is slow to make and too short to tell one of many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Final

from config.credentials import Secret
from config.fields import Settings
from config.rules import RouteSettings, UpstreamRule

_ROUNDS: Final = 100_000
"""Of PBKDF2: some 50 ms."""
_OCTETS: Final = 4
"""Enough to tell a new password from the old one, and of no use to guess either by."""


def has_secret(settings: Settings) -> bool:
    """Whether an upstream has a login that could be refused, or locked. Another is known by its address alone."""
    return any(isinstance(value, Secret) for value in _values(settings))


def fingerprint(route: RouteSettings, upstream: UpstreamRule, salt: bytes) -> str:
    """Equal for equal settings and secrets of both, wherever the secrets are read from. Takes its time: in a thread."""
    text = "\0".join([upstream.kind, *map(_text, _values(upstream.settings)), *map(_text, _values(route))])
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt, _ROUNDS, _OCTETS).hex()


def _values(value: Any) -> Iterator[Any]:
    """All that a block holds, in the order of its fields, each block between its name and an end."""
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__
        for field in fields(value):
            yield from _values(getattr(value, field.name))
        yield None
    elif isinstance(value, tuple | list):
        yield len(value)
        for one in value:
            yield from _values(one)
    else:
        yield value


def _text(value: Any) -> str:
    return f"secret {value.reveal()}" if isinstance(value, Secret) else repr(value)
