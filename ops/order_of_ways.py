"""When mail of a route takes which of its upstreams, and what brings it back, in sentences for `route`.

Must say what `delivery.choice` and the lanes do, no more and no less.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from config.rules import Canary, RouteSettings
from ops.queue_view import age_text

Role = Literal["via", "else via", "canary"]


def role_of(settings: RouteSettings, name: str) -> Role:
    if name not in settings.via:
        return "canary"
    return "via" if name == settings.via[0] else "else via"


def used_when(settings: RouteSettings, name: str, fallback_after: float) -> Iterator[str]:
    """For one of the route's upstreams; nothing for the first of `via`. `fallback_after` is in seconds."""
    if settings.canary is not None and name == settings.canary.via:
        yield from _on_trial(settings.canary)
    elif name != settings.via[0]:
        yield from _instead_of(settings.via[: settings.via.index(name)], settings.spill_after, fallback_after)


def _instead_of(before: tuple[str, ...], spill_after: float | None, fallback_after: float) -> Iterator[str]:
    yield f"when {before[0]} is" if len(before) == 1 else f"when {', '.join(before)} are, each for a reason of its own,"
    yield "- on hold for this route after `config`, until a probe of it succeeds"
    yield f"- not reached for {age_text(fallback_after)}, until a probe reaches it"
    yield "- too small for the mail: for that mail alone"
    if spill_after is not None:
        yield f"- by its pace not free within {age_text(spill_after)}: for as long as that is so"
    yield "never after `unknown`: the mail may have been delivered already"


def _on_trial(canary: Canary) -> Iterator[str]:
    mails = [f"{canary.percent} of 100 mails"] if canary.percent else []
    mails += [f"mail to none but {', '.join(canary.recipients)}"] if canary.recipients else []
    yield f"first for {', and for '.join(mails)}"
    yield "not while on hold, not reached, or without a free slot or room in its pace: then `via`, without a wait"
    yield "after `config`, a failed connect or `too large` the same mail goes on to `via`; after `unknown` never"
    yield "a probe that succeeds ends a hold, and one that reaches it an outage"
