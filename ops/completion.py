"""`completion`: what a shell may offer after Tab, found from the parser itself, the rules and the spool.

Must never print an error into somebody's command line: where nothing can be read, nothing is offered.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from config.rules import Rules
    from ops.queue_options import Add, Commands

FILES: Final = ":files"
"""Printed alone: the shell is to offer names of files."""
_MOST_IDS: Final = 50
_FILE_WORDS: Final = frozenset(("FILE", "FOLDER", "CONFIG", "MESSAGE"))

# A shell's own part is small: it hands over the words up to the cursor and offers what comes back, a line each, with
# what it means behind a tab.
_BASH: Final = r"""# bash completion for callpro-relay
_callpro_relay() {
    local line=${COMP_LINE:0:COMP_POINT} words current found candidate prefix
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    found=$("${words[0]}" completion words -- "${words[@]:1}" 2>/dev/null) || return 0
    COMPREPLY=()
    if [[ $found == ":files" ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return 0
    fi
    prefix=
    [[ $COMP_WORDBREAKS == *@* && $current == *[@:=]* ]] && prefix=${current%"${current##*[@:=]}"}
    while IFS=$'\t' read -r candidate _; do
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$prefix"}")
    done <<<"$found"
}
complete -F _callpro_relay callpro-relay
"""
_ZSH: Final = r"""#compdef callpro-relay
_callpro_relay() {
    local -a lines described
    local line
    lines=("${(@f)$(${words[1]} completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ $lines[1] == ":files" ]]; then
        _files
        return
    fi
    for line in $lines; do
        described+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    (( $#described )) && _describe -V callpro-relay described
}
compdef _callpro_relay callpro-relay
"""
_FISH: Final = r"""# fish completion for callpro-relay
function __callpro_relay
    set -l words (commandline -opc) (commandline -ct)
    set -l found (command $words[1] completion words -- $words[2..] 2>/dev/null)
    if test "$found" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found
    end
end
complete -c callpro-relay -f -k -a '(__callpro_relay)'
"""
SCRIPTS: Final[Mapping[str, str]] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that fits where the cursor is, and what it means."""

    word: str
    meaning: str = ""


def add_completion(commands: Commands, add: Add, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Give the command line `completion`; `parser` makes the whole command line anew."""

    def run(asked: argparse.Namespace) -> int:
        if asked.shell in SCRIPTS:
            print(SCRIPTS[asked.shell], end="")
            return 0
        found = complete(parser(), asked.words)
        lines = [FILES] if found is None else [f"{one.word}\t{one.meaning}".rstrip() for one in found]
        print("".join(f"{line}\n" for line in lines), end="")
        return 0

    made = add(commands, "completion", run, "print what makes a shell complete this command's words")
    made.add_argument("shell", choices=(*SCRIPTS, "words"), help="your shell; `words` is what its script asks")
    made.add_argument("words", nargs="*", metavar="WORD", help="after `words --`: the words up to the cursor")


def complete(parser: argparse.ArgumentParser, words: Sequence[str]) -> Sequence[Candidate] | None:
    """What may stand in the place of the last of `words`, which follow the program's name; None for files' names."""
    *before, current = words or ("",)
    place = _Place(parser)
    for word in before:
        place.pass_by(word)
    found = list(place.candidates(current))
    if place.wants_file:
        return None
    return [one for one in found if one.word.startswith(current)]


class _Place:
    """Where on a command line the cursor is."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._positionals = _positionals(parser)
        self._value_of: argparse.Action | None = None
        self._config = _default_config(parser)
        self.wants_file = False

    def pass_by(self, word: str) -> None:
        """Take note of a word that stands before the cursor."""
        if self._value_of is not None:
            if "--config" in self._value_of.option_strings:
                self._config = Path(word)
            self._value_of = None
        elif word.startswith("-") and word != "-":
            option, equals, value = word.partition("=")
            action = self._options().get(option)
            if action is not None and action.nargs != 0 and not equals:
                self._value_of = action
            elif equals and option == "--config":
                self._config = Path(value)
        elif self._positionals:
            action = self._positionals[0]
            if isinstance(action.choices, Mapping) and word in action.choices:
                self._parser = action.choices[word]
                self._positionals = _positionals(self._parser)
                self._config = _default_config(self._parser) if self._config is None else self._config
            elif action.nargs not in ("*", "+"):
                self._positionals = self._positionals[1:]

    def candidates(self, current: str) -> Iterator[Candidate]:
        """All that fits here, and perhaps more than begins with `current`."""
        if self._value_of is not None:
            yield from self._values(self._value_of, current)
        elif current.startswith("-") or not self._positionals:
            for action in self._parser._actions:
                for name in action.option_strings:
                    if name.startswith("--") or len(action.option_strings) == 1:
                        yield Candidate(name, _meaning(action))
        else:
            yield from self._values(self._positionals[0], current)

    def _options(self) -> dict[str, argparse.Action]:
        return {name: action for action in self._parser._actions for name in action.option_strings}

    def _values(self, action: argparse.Action, current: str) -> Iterator[Candidate]:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield Candidate(choice.dest, choice.help or "")
        elif action.choices is not None:
            yield from (Candidate(str(choice)) for choice in action.choices)
        else:
            yield from self._known(str(action.metavar or action.dest).upper(), current)

    def _known(self, word: str, current: str) -> Iterator[Candidate]:
        """What the rules and the spool know for a value that is called `word`."""
        if word in _FILE_WORDS:
            self.wants_file = True
        elif word in ("ID", "IDS"):
            yield from _waiting(self._config)
        elif word in ("ROUTE", "ADDRESS", "ADDRESS|@DOMAIN", "CUSTOMER", "DOMAIN"):
            for name, domain in _senders(self._config):
                if word == "ROUTE":
                    yield Candidate(name)
                elif word in ("CUSTOMER", "DOMAIN"):
                    yield Candidate(domain)
                elif "@" in current:
                    yield Candidate(f"{current.partition('@')[0]}@{domain}")
                else:
                    yield Candidate(f"@{domain}" if "@DOMAIN" in word else f"info@{domain}")


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]


def _default_config(parser: argparse.ArgumentParser) -> Path | None:
    found = parser.get_default("config")
    return found if isinstance(found, Path) else None


def _meaning(action: argparse.Action) -> str:
    return "" if action.help in (None, argparse.SUPPRESS) else str(action.help)


def _rules(config: Path | None) -> Rules | None:
    from config.loading import load_rules
    from config.problems import ConfigInvalid
    from upstreams import SHAPES

    if config is None:
        return None
    try:
        return load_rules(config.parent, SHAPES, outside_unit=True)
    except (ConfigInvalid, OSError):
        return None


def _senders(config: Path | None) -> Iterator[tuple[str, str]]:
    """Each route's name, and the domain of its senders."""
    rules = _rules(config)
    for route in rules.routes if rules else ():
        domain = route.name.rpartition("@")[2].removeprefix("*.")
        if domain not in ("*", "<>"):
            yield route.name, domain


def _waiting(config: Path | None) -> Iterator[Candidate]:
    """The ids of mail that waits, oldest first."""
    from config.problems import ConfigInvalid
    from ops.queue_options import open_view
    from spool.contract import SpoolUnavailable, SpoolUnusable, id_text
    from spool.view import Filter

    if config is None:
        return
    with contextlib.suppress(ConfigInvalid, SpoolUnusable, SpoolUnavailable, OSError):
        with contextlib.closing(open_view(config)) as view:
            lines = view.list(Filter(), _MOST_IDS)
        for line in lines:
            yield Candidate(id_text(line.id), f"{line.sender or '<>'}, route {line.route}")
