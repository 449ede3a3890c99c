"""Who may act: whoever gave the token, in a browser that still has its cookie. In memory, so a restart ends all.

The token is compared in constant time and kept nowhere else. Must never let a guesser try on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config.credentials import Secret

COOKIE: Final = "callpro_relay_session"
_LASTS: Final = 12 * 3600.0
_MOST: Final = 100
_TRIES: Final = 10
"""Wrong tokens in a minute, from anybody together, after which none is looked at: people do not share this page."""


@dataclass(slots=True)
class Session:
    """Somebody who gave the token: the `name` they typed, and what every form of theirs must carry (`csrf`). `told` is
    what the next page tells them once.
    """

    key: str
    name: str
    csrf: str
    until: float
    told: str = ""


class TooManyTries(Exception):
    """Nobody may try now."""


class Sessions:
    """`token` is None where nobody may act. `clock` gives unix seconds."""

    def __init__(self, token: Secret | None, clock: Callable[[], float]) -> None:
        self._token = token
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._wrong: deque[float] = deque(maxlen=_TRIES)

    @property
    def possible(self) -> bool:
        """Whether anybody can log in at all."""
        return self._token is not None

    def enter(self, token: str, name: str) -> Session | None:
        """A new session; None for a wrong token. Raises TooManyTries."""
        now = self._clock()
        if len(self._wrong) == _TRIES and now - self._wrong[0] < 60.0:
            raise TooManyTries
        if self._token is None or not _same(token, self._token.reveal()):
            self._wrong.append(now)
            return None
        while len(self._open) >= _MOST:
            self._open.pop(next(iter(self._open)))
        named = " ".join("".join(letter for letter in name if letter.isprintable()).split())[:60]
        made = Session(secrets.token_urlsafe(32), named, secrets.token_urlsafe(32), now + _LASTS)
        self._open[_mark(made.key)] = made
        return made

    def of(self, cookies: str) -> Session | None:
        """The session behind a Cookie header."""
        key = cookie(cookies, COOKIE)
        found = self._open.get(_mark(key)) if key else None
        if found is not None and found.until <= self._clock():
            self.leave(found)
            return None
        return found

    def leave(self, session: Session) -> None:
        self._open.pop(_mark(session.key), None)


def cookie(header: str, name: str) -> str:
    """One cookie's value; "" when there is none. Cookies of other programs on this host come along, whatever is in
    them: a browser does not tell ports apart.
    """
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((value for key, _, value in pairs if key == name), "")


def set_cookie(key: str) -> str:
    """The Set-Cookie header of a session. Not `Secure`: the page is plain HTTP on loopback."""
    return f"{COOKIE}={key}; Path=/; HttpOnly; SameSite=Strict; Max-Age={int(_LASTS) if key else 0}"


def right_form(session: Session, given: str) -> bool:
    """Whether a form carries what the session's own pages do."""
    return _same(given, session.csrf)


def _same(one: str, other: str) -> bool:
    """In a time that tells nothing, whatever their lengths."""
    return hmac.compare_digest(hashlib.sha256(one.encode()).digest(), hashlib.sha256(other.encode()).digest())


def _mark(key: str) -> str:
    """What sessions are found by, so that looking one up tells nothing of its key."""
    return hashlib.sha256(key.encode()).hexdigest()
