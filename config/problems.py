"""What is wrong with the configuration, all of it at once: each problem with its place, its path and its mend.

Must never carry the value of a secret: whoever notes a problem on a secret names the key only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from config.fields import Fault, Mistake
from config.rules import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` is the key inside the file (`upstreams.acme-login.port`); `wrong` and `mend` make one sentence."""

    place: Place
    path: str
    wrong: str
    mend: str
    warning: bool = False

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.place}  {'warning: ' if self.warning else ''}{path}{self.wrong}; {self.mend}"


class ConfigInvalid(Exception):
    """The configuration has errors. `problems` holds all of them, and the warnings, by file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Problems:
    """Collects while reading goes on, so that ops see every mistake in one run."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, place: Place, path: str, wrong: str, mend: str) -> None:
        """Note an error."""
        self._found.append(Problem(place, path, wrong, mend))

    def warn(self, place: Place, path: str, wrong: str, mend: str) -> None:
        """Note something that works, but that ops should know."""
        self._found.append(Problem(place, path, wrong, mend, warning=True))

    def mistake(self, place: Place, path: str, mistake: Mistake) -> None:
        """Note a text that could not be read."""
        self.add(place, path, mistake.wrong, mistake.mend)

    def fault(self, place: Place, path: str, fault: Fault) -> None:
        """Note what a block found wrong with itself."""
        self._found.append(Problem(place, path, fault.wrong, fault.mend, fault.warning))

    def found(self) -> tuple[Problem, ...]:
        """Everything noted, once each, by file and line."""
        return by_place(self._found)

    def settle(self) -> tuple[Problem, ...]:
        """The warnings, when there is nothing worse. Raises ConfigInvalid otherwise."""
        found = self.found()
        if not all(problem.warning for problem in found):
            raise ConfigInvalid(found)
        return found


def by_place(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems once each, by file (in the order met) and line."""
    unique = tuple(dict.fromkeys(problems))
    files = {file: number for number, file in enumerate(dict.fromkeys(problem.place.file for problem in unique))}
    return tuple(sorted(unique, key=lambda problem: (files[problem.place.file], problem.place.line)))
