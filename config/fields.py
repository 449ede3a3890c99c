"""How a block of settings says what it takes: typed fields with a sentence each.

A settings class is a frozen, slotted dataclass deriving from `Settings`; its annotations are all the reader needs
(`config.reading`), and the JSON Schema and the documentation come from the same place. This file must never know a
brand, a file or a line number.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field
from typing import Any, dataclass_transform
from urllib.parse import urlsplit


class Duration(float):
    """A length of time in seconds, written `90s`, `5m`, `2h`, `3d` (a bare number is seconds)."""

    __slots__ = ()


class Size(int):
    """A number of octets, written `10GB`, `35MB`, `64KB` (powers of 1024; a bare number is octets)."""

    __slots__ = ()


class Mistake(ValueError):
    """A text that cannot be read. `wrong` and `mend` are halves of one sentence for ops: what it is, what to write."""

    def __init__(self, wrong: str, mend: str) -> None:
        super().__init__(f"{wrong}; {mend}")
        self.wrong = wrong
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong inside a block: `key` is relative to the block (`password`, `from[1]`, or "" for all of it)."""

    key: str
    wrong: str
    mend: str
    warning: bool = False


@dataclass_transform(frozen_default=True, kw_only_default=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Base of every block. Annotations may be: str, int, float, bool, Duration, Size, Secret, pathlib.Path,
    ipaddress.IPv4Address, `Literal[...]`, another Settings class, `tuple[X, ...]` of those, and `X | None`.
    A `tuple[X, ...]` also takes a single X.
    """

    def faults(self) -> Iterator[Fault]:
        """What is wrong between fields that are each right alone. Called once, after every field has been read."""
        return iter(())

    def loopback(self) -> bool:
        """True when nothing in this block leaves the machine; only then may a secret stand in the file itself.

        The fields that say where a block goes are `host`, `base_url` and `authority`: all that are set must be
        loopback, and at least one must be set. A kind that goes elsewhere by other fields overrides this.
        """
        ways = [getattr(self, name, None) for name in ("host", "base_url", "authority")]
        return any(ways) and all(is_loopback(str(way)) for way in ways if way)


def is_loopback(way: str) -> bool:
    """True when a host (or the host of a URL) is `localhost`, a name under it, or in 127.0.0.0/8 or ::1."""
    try:
        host = (urlsplit(way).hostname or "") if "://" in way else way.strip("[]").lower()
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def setting(
    *,
    default: Any = MISSING,
    doc: str,
    minimum: float | None = None,
    maximum: float | None = None,
    key: str | None = None,
    example: str | None = None,
    check: Callable[[Any], object] | None = None,
) -> Any:
    """A field of a settings block.

    `doc` is one sentence for the person who edits the YAML. `minimum`/`maximum` bound numbers. `key` is the YAML key
    where it is not a Python name (`from`). `example` is a value for the documentation and for error messages.
    `check` is handed each value that was read and raises Mistake for one that will not do; with `names.domain` the
    normal form takes its place.
    """
    metadata = {"doc": doc, "minimum": minimum, "maximum": maximum, "key": key, "example": example, "check": check}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)
