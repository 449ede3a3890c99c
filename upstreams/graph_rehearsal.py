"""Whether an app may send as a mailbox, asked with a mail that names nobody: Graph refuses that (microsoft-graph.md 2).

What else is wrong it tells in place of that, as far as it looked. No source says in which order it does, so a good
answer is a good sign and no proof. Must never name a recipient, so that nothing can be sent.
"""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from typing import Final

from routing.outcome import Hint, Outcome, Stage, Who, Word
from upstreams.graph_client import GraphClient, GraphRequest
from upstreams.graph_errors import outcome_of

PERMISSION: Final = "Mail.Send"
_NOBODY: Final = "ErrorInvalidRecipients"
_SCOPED: Final = Hint(
    Who.CUSTOMER,
    "The token carries no Mail.Send, so the app has its right by RBAC for Applications or none at all: the customer's "
    "admin runs Test-ServicePrincipalAuthorization for this mailbox; a change may take two hours.",
    "In het token staat geen Mail.Send, dus heeft de app zijn recht via RBAC for Applications of helemaal niet: de "
    "beheerder van de klant voert Test-ServicePrincipalAuthorization uit voor deze mailbox; een wijziging kan twee uur "
    "duren.",
)


async def rehearse_as(client: GraphClient, mailbox: str) -> Outcome:
    """SENT when Graph speaks of nothing but the missing recipients; else its own refusal."""
    roles = await client.roles()
    if isinstance(roles, Outcome):
        return roles
    message = f"From: {mailbox}\r\nSubject: check\r\n\r\ncheck\r\n" if "@" in mailbox else "Subject: check\r\n\r\n\r\n"
    body, headers = base64.b64encode(message.encode()), {"Content-Type": "text/plain"}
    answer = await client.ask(GraphRequest(mailbox, f"check {mailbox}", "POST", "sendMail", 202, body, headers))
    outcome = answer if isinstance(answer, Outcome) else outcome_of(answer, time.time(), "")
    if outcome.enhanced == _NOBODY:
        what = f"in a mail of {mailbox} Graph misses the recipients, and nothing else that it looked at"
        return Outcome(Word.SENT, f"{what}; {_rights(roles)}", Stage.REQUEST, outcome.code)
    if outcome.word is Word.SENT:
        return Outcome(Word.UNKNOWN, "Graph took a mail that names nobody, so nothing is known", Stage.REQUEST, 202)
    if outcome.code == 403 and PERMISSION not in roles and outcome.enhanced == "ErrorAccessDenied":
        return replace(outcome, hint=_SCOPED)
    return outcome


def _rights(roles: tuple[str, ...]) -> str:
    if PERMISSION in roles:
        return "its token says Mail.Send, which is every mailbox of the tenant unless a policy limits it"
    return "its token says no Mail.Send, so its right is scoped (RBAC for Applications)"
