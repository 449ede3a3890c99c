"""Recipients asked for in groups, for APIs that refuse a whole request for one bad address.

A group that was refused was not sent to anybody, so asking for its halves repeats nothing: the good ones get the mail,
the bad one is found. Must never ask again for a recipient that may have been served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from routing.outcome import Outcome, Results, Stage, Word

Group = tuple[str, ...]

REQUESTS_LIMIT: Final = 40
"""Most requests in one send: one bad address among a thousand is found in 21."""

_LATER: Final = Outcome(
    Word.RETRY, "not asked for yet: the other side refuses several recipients of this mail", Stage.PREPARE
)
_NOT_ASKED: Final = Outcome(Word.RETRY, "not asked for: the request before it came to no answer", Stage.PREPARE)


async def ask_in_groups(
    recipients: Group,
    ask: Callable[[Group], Awaitable[Results]],
    one_is_bad: Callable[[Outcome], bool],
    apart: Callable[[Group], Iterable[Group]] = lambda group: (group,),
) -> Results:
    """An outcome for each recipient. `apart` says who may share a request, `ask` makes one, `one_is_bad` tells a
    refusal of all, before any was served, that may be meant for one of them.

    The first answer that is about the way ends it: the recipients that are left get the same.
    """
    results: Results = {}
    waiting = list(reversed(list(apart(recipients))))
    asked = 0
    while waiting:
        group = waiting.pop()
        answered = await ask(group)
        asked += 1
        if len(group) > 1 and all(map(one_is_bad, answered.values())):
            waiting += reversed([part for half in _halves(group) for part in apart(half)])
        else:
            results |= answered
        stop = _about_the_way(answered) or (_LATER if asked >= REQUESTS_LIMIT else None)
        if stop is not None:
            return results | {each: stop for group in waiting for each in group}
    return results


def _halves(group: Group) -> tuple[Group, Group]:
    middle = len(group) // 2
    return group[:middle], group[middle:]


def _about_the_way(answered: Results) -> Outcome | None:
    """What the recipients that were not asked for get, or None to go on."""
    for outcome in answered.values():
        if outcome.word is Word.UNKNOWN:
            return _NOT_ASKED
        if outcome.word not in (Word.SENT, Word.REJECT):
            return outcome
    return None
