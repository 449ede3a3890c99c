"""What a kind brings to the conformance suite: how to build it beside its look-alike, and what its provider page says.

A kind's cases are `CASES` in tests/conformance/cases/KIND.py. A case must never say of itself that it passes: it only
tells what can be done to it, and which word the provider page gives for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from routing.outcome import Word
from tests.fakes.authority import Authority
from upstreams.base import Kind, Upstream


class Trouble(Enum):
    """What the other side does at a step instead of going on."""

    STALL = "say nothing more, until we go"
    CUT = "hang up"


@dataclass(frozen=True, slots=True)
class Step:
    """A moment at which the other side may fall silent or hang up, with the word for each.

    None where that cannot happen, or (silence) where the time-out is longer than a test may last; `why` says which.
    `large` wants a mail of many megabytes, so that it happens within the content.
    """

    name: str
    stalled: Word | None
    cut: Word | None
    large: bool = False
    cancelled: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Documented:
    """An answer of the provider page: `said` as the look-alike's script takes it, at `step`, and its word.

    `hint` are words that the hint must hold, so that it is the right one.
    """

    said: Any
    step: str
    word: Word
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a case is built. `timeout` is in seconds, for each step of the upstream; a kind may round it up."""

    authority: Authority
    folder: Path
    timeout: float = 30.0


class Place:
    """A look-alike that listens and the upstream that leads to it."""

    upstream: Upstream

    def script(self, step: str, said: Any) -> None:
        """From now on at `step`: a documented answer, or a `Trouble` (which happens once)."""
        raise NotImplementedError

    def delivered(self) -> list[str]:
        """The recipients who got a mail so far, one entry for each mail, as the look-alike read them."""
        raise NotImplementedError

    def stalled(self) -> bool:
        """Whether the look-alike has fallen silent."""
        return False

    def release(self) -> None:
        """Take back a scripted trouble."""

    def open_connections(self) -> int:
        """Connections open now."""
        return 0

    def secrets(self, step: str) -> tuple[str, ...]:
        """Every form of the secret that the look-alike has read at `step`, or () when it has read none yet."""
        return ()

    def refuse(self, recipients: tuple[str, ...]) -> None:
        """From now on refuse these recipients, and no others."""
        raise NotImplementedError

    async def hang_up(self) -> None:
        """Close the connections that are kept."""

    async def leave(self) -> None:
        """Stop listening."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way of a kind. `limit` is how many recipients the provider page lets one mail have.

    `echoes` are the steps at which an answer may quote a secret, each with a refusal that quotes a text ({} without a
    secret). `refuses` is False where all recipients are taken or none; `remote` for a kind without a connection.
    """

    name: str
    open: Callable[[Setting], AbstractAsyncContextManager[Place]]
    limit: int
    replies: tuple[Documented, ...]
    steps: tuple[Step, ...]
    echoes: Mapping[str, Callable[[str], Any]]
    refuses: bool = True
    remote: bool = True


def cases_of(kind: str) -> tuple[Case, ...]:
    """The cases that a kind brings. Raises AssertionError, which says what is missing, when there are none."""
    module = f"tests.conformance.cases.{kind}"
    try:
        cases: tuple[Case, ...] = import_module(module).CASES
    except ModuleNotFoundError as missing:
        if missing.name != module:
            raise
        raise AssertionError(f"the kind {kind} has no cases: write tests/conformance/cases/{kind}.py") from None
    return cases


def incomplete(case: Case) -> list[str]:
    """What a case leaves out that every kind has to bring."""
    words = {documented.word for documented in case.replies}
    wrong = [
        f"no documented answer means {word}" for word in (Word.CONFIG, Word.RETRY, Word.REJECT) if word not in words
    ]
    if not case.remote:
        return []
    wrong += [] if case.steps else ["no step at which the other side may fall silent"]
    wrong += [f"step {step.name} without a word or a reason" for step in case.steps if not _told(step)]
    return wrong


def _told(step: Step) -> bool:
    return bool(step.why) or (step.stalled is not None and step.cut is not None and step.cancelled)


def all_cases(kinds: Mapping[str, Kind]) -> list[Case]:
    """The cases of every kind that has some; test_kinds.py finds those that have none."""
    found: list[Case] = []
    for kind in kinds:
        try:
            found += cases_of(kind)
        except AssertionError:
            continue
    return found
