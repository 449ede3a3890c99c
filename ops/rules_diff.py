"""What new rules change for each customer, in words: route by route, with the upstreams that it uses. Pure.

Must never show a secret: of one that changed it says so, and where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from config.credentials import Secret
from config.fields import Settings
from config.rules import Route, UpstreamRule

_SHOWN: Final = 20
"""Details of one route; a route with more has been written anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """One route: `how` is added, removed or changed; `what` has a line for each value, such as `via: a -> a, b`."""

    route: str
    how: str
    what: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Routes and upstreams by name, as far as they decide what becomes of mail."""

    routes: Mapping[str, Route]
    upstreams: Mapping[str, UpstreamRule]


def changes(old: RuleSet, new: RuleSet) -> tuple[Change, ...]:
    """What `new` does to each customer, in the order of the routes' names. A moved line or comment is no change."""
    found = []
    for name in sorted(old.routes.keys() | new.routes.keys()):
        if name not in new.routes:
            found.append(Change(name, "removed"))
        elif name not in old.routes:
            found.append(Change(name, "added", (f"via: {_text(new.routes[name].settings.via)}",)))
        else:
            what = tuple(_of_route(name, old, new))
            if what:
                more = len(what) - _SHOWN
                shown = what if more <= 0 else (*what[:_SHOWN], f"and {more} more")
                found.append(Change(name, "changed", shown))
    return tuple(found)


def changes_text(found: Sequence[Change]) -> str:
    """A line for each customer, and one below for each value."""
    if not found:
        return "No customer changes.\n"
    lines = []
    for change in found:
        lines += [f"{change.route}: {change.how}", *(f"    {line}" for line in change.what)]
    count = len(found)
    return "\n".join([*lines, f"{count} {'customer changes' if count == 1 else 'customers change'}"]) + "\n"


def _of_route(name: str, old: RuleSet, new: RuleSet) -> Iterator[str]:
    before, after = old.routes[name].settings, new.routes[name].settings
    yield from _differences(before, after, "")
    for upstream in dict.fromkeys((*before.upstreams, *after.upstreams)):
        if upstream in before.upstreams and upstream in after.upstreams:
            yield from _of_upstream(old.upstreams[upstream], new.upstreams[upstream])


def _of_upstream(old: UpstreamRule, new: UpstreamRule) -> Iterator[str]:
    path = f"upstream {old.name} "
    if old.kind != new.kind:
        yield f"{path}type: {old.kind} -> {new.kind}"
        return
    yield from _differences(old.settings, new.settings, path)
    yield from _differences(old.pace, new.pace, f"{path}pace.")


def _differences(old: Settings, new: Settings, path: str) -> Iterator[str]:
    """By YAML key. Both are of one class."""
    for each in fields(old):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if before == after:
            continue
        key = f"{path}{each.metadata.get('key') or each.name}"
        pairs = _pairs(before, after)
        if pairs is None:
            yield f"{key}: {_change(before, after)}"
        for suffix, one, other in pairs or ():
            yield from _differences(one, other, f"{key}{suffix}.")


def _pairs(old: Any, new: Any) -> list[tuple[str, Settings, Settings]] | None:
    """Blocks that can be compared value by value."""
    if isinstance(old, Settings) and type(old) is type(new):
        return [("", old, new)]
    lists = isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new)
    if lists and all(isinstance(one, Settings) for one in (*old, *new)):
        return [(f"[{number}]", one, other) for number, (one, other) in enumerate(zip(old, new, strict=True))]
    return None


def _change(old: Any, new: Any) -> str:
    if isinstance(old, Secret) and isinstance(new, Secret) and old.reference == new.reference:
        return f"another value behind {new.reference}" if not new.literal else "another value"
    return f"{_text(old)} -> {_text(new)}"


def _text(value: Any) -> str:
    if value is None or value == ():
        return "not set"
    if isinstance(value, Secret):
        return "a literal" if value.literal else value.reference
    if isinstance(value, tuple):
        return ", ".join(_text(one) for one in value)
    if isinstance(value, Settings):
        shown = [(each.name, getattr(value, each.name), each.default) for each in fields(value)]
        return "{" + ", ".join(f"{name}: {_text(one)}" for name, one, default in shown if one != default) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
