"""Refusals of mail after mail by a server's policy: so many in a row mean a block on us, not so many bad mails.

Those before they count have bounced; what comes after them is kept. Must never take a refused address for a block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from routing.outcome import Hint, Outcome, Results, Who, Word

BLOCKED_AFTER: Final = 20
"""Mails in a row, none delivered between them."""

_HINT: Final = Hint(
    Who.US,
    f"{BLOCKED_AFTER} mails in a row were refused by that server's policy: our address or the sender is on a block "
    "list, or the mail looks like spam. Ask where the reply says. The mail is kept, and one is tried now and then.",
    f"{BLOCKED_AFTER} mails achter elkaar zijn door het beleid van die server geweigerd: ons adres of de afzender "
    "staat op een blokkeerlijst, of de mail lijkt op spam. Vraag het na waar het antwoord naar verwijst. De mail "
    "blijft bewaard, en af en toe wordt er een geprobeerd.",
)


class Streak:
    """The mails that one upstream refused by policy (554 5.7.x, smtp-login.md 3) since it took one of a route."""

    __slots__ = ("_refused",)

    def __init__(self) -> None:
        self._refused: set[int] = set()

    def judged(self, mail: int, results: Results) -> Results:
        """What a send of that mail came to: the same, or `config` in place of a refusal once there are too many."""
        for outcome in results.values():
            if outcome.word is Word.SENT:
                self._refused.clear()
                return results
        if all(map(_by_policy, results.values())):
            if len(self._refused) < BLOCKED_AFTER:
                self._refused.add(mail)
            if len(self._refused) == BLOCKED_AFTER:
                return {each: replace(one, word=Word.CONFIG, hint=_HINT) for each, one in results.items()}
        return results


def _by_policy(outcome: Outcome) -> bool:
    return outcome.word is Word.REJECT and outcome.code == 554 and (outcome.enhanced or "").startswith("5.7.")
