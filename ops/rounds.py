"""A vote on new rules among the workers of one relay: all go by them, or nobody does. Pure.

Must never say yes while one of them has not, nor when they read different files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ops.check import Checked
from ops.nodes import rules_hash


@dataclass(slots=True)
class Round:
    """`checked` is what the parent read, `left` are those who have not said yet whether they can go by it. `speaker`
    tells the log what became of it. It is over at `until` (monotonic seconds) at the latest.
    """

    number: int
    until: float
    checked: Checked
    speaker: int
    left: set[int] = field(default_factory=set)
    refusal: str | None = None
    silent: bool = False
    """The speaker is gone, or does not answer: somebody else must say it."""

    def vote(self, worker: int, refusal: str | None, rules: str | None) -> None:
        """It can go by the rules with this hash, or says why not. Once for each counts."""
        if worker not in self.left:
            return
        self.left.discard(worker)
        ours = rules_hash(self.checked.rules) if self.checked.rules else None
        if refusal is None and rules != ours:
            refusal = "the files changed while they were read; reload again"
        self.refusal = self.refusal or refusal

    def gone(self, worker: int) -> None:
        """It died; whoever takes its place goes by what is decided here."""
        self.left.discard(worker)
        self.silent |= worker == self.speaker

    def over(self, now: float) -> bool:
        """Nobody is waited for any longer."""
        return not self.left or now >= self.until

    def end(self) -> str | None:
        """Why nobody goes by them; None when all do."""
        self.silent |= self.speaker in self.left
        for worker in sorted(self.left):
            self.refusal = self.refusal or f"worker {worker} does not answer"
        if self.refusal is None and self.checked.rules is None:
            self.refusal = "there are errors in them, which `callpro-relay check` names"
        return self.refusal
