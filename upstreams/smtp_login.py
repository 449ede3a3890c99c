"""Login with a user name and a password: one mechanism, chosen from EHLO, tried once.

A wrong password must count as one failed login at the customer's server, or it locks the account.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field

import aiosmtplib

from config.credentials import Secret
from routing.outcome import Hint, Outcome, Stage, Who, Word


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """AUTH PLAIN (RFC 4616) where offered, else AUTH LOGIN."""

    username: str = field(repr=False)
    password: Secret

    async def log_in(self, client: aiosmtplib.SMTP) -> Outcome | None:
        """See `smtp_session.Login`."""
        offered = client.server_auth_methods
        if "plain" in offered:
            await client.auth_plain(self.username, self.password.reveal())
        elif "login" in offered:
            await client.auth_login(self.username, self.password.reveal())
        else:
            return not_offered(offered, "PLAIN nor LOGIN")
        return None

    def scrub(self, text: str) -> str:
        """See `smtp_session.Login`."""
        secret = self.password.reveal()
        return scrubbed(text, secret, f"\0{self.username}\0{secret}")


def not_offered(offered: list[str], wanted: str) -> Outcome:
    """The outcome of a server whose EHLO names no mechanism we have."""
    says = f"the server offers AUTH {' '.join(offered).upper()}" if offered else "the server offers no login"
    return Outcome(
        Word.CONFIG,
        f"{says}, neither {wanted}" if offered else says,
        Stage.LOGIN,
        hint=Hint(
            Who.CUSTOMER,
            "Ask the customer for the host and port meant for logging in (often 587), or leave out "
            "`username` and `password`.",
            "Vraag de klant om de host en poort die bedoeld zijn om in te loggen (vaak 587), of laat "
            "`username` en `password` weg.",
        ),
    )


def scrubbed(text: str, *secrets: str) -> str:
    """`text` with each secret, as it is or in base64, replaced by ***."""
    for secret in secrets:
        for form in (secret, b64encode(secret.encode()).decode()):
            text = text.replace(form, "***")
    return text
