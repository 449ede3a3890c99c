"""Everything that can be known wrong about the configuration before a mail comes, at once: `check` and every reload.

Reads files only: no DNS, no connection. Must never show a secret.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.loading import Kinds, load_relay, load_rules
from config.problems import ConfigInvalid, Problem, by_place
from config.relay_settings import Relay
from config.rules import Place, PlacedTest, Route, Rules
from config.shapes import shapes_of
from ops.authentication import authentication_problems
from ops.terminal import Paint, plain
from routing.mail import NULL_SENDER
from routing.table import Table
from upstreams.traits import traits_of

SECRETS_FOLDER: Final = "secrets"
_CREDENTIAL_NAME: Final = re.compile("[ -9;-~]{1,240}")
"""What systemd takes behind `secrets_` as a name: printable ASCII without a colon, 255 octets in all."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read. `relay` and `rules` are None when an error stands in their files (a failed test is one)."""

    relay: Relay | None
    rules: Rules | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if not problem.warning)

    @property
    def good(self) -> bool:
        """True when the relay can work with this; there may be warnings."""
        return not self.errors


def check(path: Path, kinds: Kinds, *, outside_unit: bool = False) -> Checked:
    """Read relay.yaml at `path` and the rules beside it, and run their tests. Never raises for what ops wrote.

    `outside_unit`: see `config.loading.load_rules`; never for a relay that is going to send.
    """
    problems: list[Problem] = []
    relay, rules = None, None
    try:
        relay = load_relay(path, problems, outside_unit=outside_unit)
    except ConfigInvalid as invalid:
        problems += invalid.problems
    try:
        rules = load_rules(path.parent, kinds, problems, outside_unit=outside_unit)
    except ConfigInvalid as invalid:
        problems += invalid.problems
    if rules is not None:
        found = tuple(_look_closer(rules, str(path.parent / "routes.yaml")))
        problems += found
        rules = rules if all(problem.warning for problem in found) else None
    if relay is not None and rules is not None:
        problems += _half_webhooks(relay, rules, str(path))
        problems += _alerts_without_a_route(relay, rules, str(path))
    if outside_unit:
        problems += _not_for_systemd(path.parent / SECRETS_FOLDER)
    if relay is not None:
        problems += _too_many_workers(relay.workers, len(os.sched_getaffinity(0)), str(path))
    return Checked(relay, rules, by_place(problems))


def secrets_beside(config: Path) -> None:
    """Outside its unit there are no credentials; root can read the folder that the unit loads them from, beside
    relay.yaml, and so find a name that is misspelt before a restart does.
    """
    folder = config.parent / SECRETS_FOLDER
    if "CREDENTIALS_DIRECTORY" not in os.environ and os.access(folder, os.R_OK | os.X_OK):
        os.environ["CREDENTIALS_DIRECTORY"] = str(folder.absolute())


def _not_for_systemd(folder: Path) -> Iterator[Problem]:
    """What our unit's LoadCredential= passes over in there, or does not start with. None where we may not look."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        place = Place(entry.path, 1)
        if not _CREDENTIAL_NAME.fullmatch(entry.name):
            yield Problem(
                place, "", "has a name that systemd starts no unit with", "use letters, digits, - _ and . only"
            )
        elif entry.is_symlink():
            yield Problem(place, "", "is a link, which systemd does not load from a folder", "put a copy there")


def render_text(checked: Checked, paint: Paint = plain) -> str:
    """One line for each problem, and a last line that sums up."""
    warnings = len(checked.problems) - len(checked.errors)
    lines = [_line(problem, paint) for problem in checked.problems]
    told = [paint(_counted(len(checked.errors), "error"), "red") if checked.errors else paint("good", "green")]
    if checked.rules is not None:
        rules = checked.rules
        told += [_counted(len(rules.routes), "route"), _counted(len(rules.upstreams), "upstream")]
        told += [_counted(len(rules.tests), "test") + (" passed" if rules.tests else "")]
    told += [_counted(warnings, "warning")] if warnings else []
    return "\n".join([*lines, ", ".join(told)])


def _line(problem: Problem, paint: Paint) -> str:
    place = str(problem.place)
    return paint(place, "yellow" if problem.warning else "red") + str(problem).removeprefix(place)


def render_json(checked: Checked) -> str:
    """`{"good": bool, "problems": [{"file", "line", "path", "wrong", "mend", "warning"}]}`."""
    problems = [
        {
            "file": problem.place.file,
            "line": problem.place.line,
            "path": problem.path,
            "wrong": problem.wrong,
            "mend": problem.mend,
            "warning": problem.warning,
        }
        for problem in checked.problems
    ]
    return json.dumps({"good": checked.good, "problems": problems}, ensure_ascii=False)


def _counted(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _look_closer(rules: Rules, file: str) -> Iterator[Problem]:
    if not rules.routes:  # a file cut short, not a wish
        yield Problem(Place(file, 1), "routes", "has no route at all, so all mail would be refused for good", "add one")
    yield from _failed_tests(rules)
    yield from _bad_keys(rules)
    yield from _unused(rules)
    yield from _no_way_for_reports(rules)
    for route in rules.routes:
        yield from authentication_problems(rules, route)


def _failed_tests(rules: Rules) -> Iterator[Problem]:
    table = Table(rules.routes)
    for test in rules.tests:
        found = table.match(test.settings.from_)
        wrong = _contradicted(test, found)
        if wrong is not None:
            mend = "mend the route, or the test"
            yield Problem(test.place, f"tests: {test.settings.from_}", wrong, mend)


def _contradicted(test: PlacedTest, found: Route | None) -> str | None:
    wanted = test.settings.via
    if found is None:
        return f"is refused, for no route takes it, and should leave via {_names(wanted)}" if wanted else None
    leaves = f"leaves via {_names(found.settings.via)} (route {found.name}, {found.place})"
    if test.settings.refused:
        return f"{leaves}, and should be refused"
    return None if found.settings.via == wanted else f"{leaves}, and should leave via {_names(wanted)}"


def _names(via: tuple[str, ...]) -> str:
    return ", then ".join(via)


def _bad_keys(rules: Rules) -> Iterator[Problem]:
    for route in (route for route in rules.routes if route.settings.dkim):
        from routing.signing import Signer, SigningKeyInvalid  # 9 MB, only where somebody signs

        found: set[str] = set()
        for dkim in route.settings.dkim:
            try:
                known = bool(dkim.key.reveal())  # empty: only the running unit can read it
                found |= Signer((dkim,)).algorithms if known else {"not known"}
            except SigningKeyInvalid as invalid:
                wrong, _, mend = str(invalid).rpartition("; ")
                yield Problem(route.place, f"route {route.name}", wrong, mend)
        if found == {"ed25519-sha256"}:
            wrong, mend = "has an Ed25519 key only, which large receivers do not read", "add a block with an RSA key"
            yield Problem(route.place, f"route {route.name}, dkim", wrong, mend, True)


def _no_way_for_reports(rules: Rules) -> Iterator[Problem]:
    """Said once: the mend is one route, however many customers need it."""
    null_route = Table(rules.routes).match(NULL_SENDER)
    asked = (null_route,) if null_route else rules.routes
    stuck = [route for route in asked if not any(_takes_null_sender(rules, name) for name in route.settings.via)]
    if stuck:
        others = f", as those of {_counted(len(stuck) - 1, 'other route')}" if stuck[1:] else ""
        what = "its mail" if null_route else "reports on its undelivered mail"
        mailboxes = " and ".join(stuck[0].settings.via)
        wrong = f"{what} cannot leave{others}: a mailbox ({mailboxes}) sends nothing from the null sender"
        mend = 'let `from: "<>"` go by an upstream of another kind'
        yield Problem(stuck[0].place, f"route {stuck[0].name}", wrong, mend, True)


def _takes_null_sender(rules: Rules, upstream: str) -> bool:
    return traits_of(rules.upstreams[upstream].settings).null_sender


def _half_webhooks(relay: Relay, rules: Rules, file: str) -> Iterator[Problem]:
    """Events need a listener and a key: one without the other hears nothing. Kinds name such a key `webhook_...`."""
    keys = [
        (upstream, name)
        for upstream in rules.upstreams.values()
        for shape in shapes_of(type(upstream.settings))
        if (name := shape.name).startswith("webhook_") and getattr(upstream.settings, name) is not None
    ]
    if relay.webhooks is None:
        for upstream, name in keys:
            wrong, mend = "is of no use, as nothing listens", "add `webhooks:` to relay.yaml, or leave it out"
            yield Problem(upstream.place, f"upstreams.{upstream.name}.{name}", wrong, mend, True)
    elif not keys:
        mend = "give an upstream its webhook key (docs/webhooks.md), or leave it out"
        yield Problem(Place(file, 1), "webhooks", "listens for nobody, as no upstream has a webhook key", mend, True)


def _too_many_workers(workers: int, processors: int, file: str) -> Iterator[Problem]:
    if workers > max(1, processors):
        wrong = f"{workers} processes share {processors} processors, and more of them than processors bring nothing"
        yield Problem(Place(file, 1), "workers", wrong, f"write {processors} or fewer", True)


def _alerts_without_a_route(relay: Relay, rules: Rules, file: str) -> Iterator[Problem]:
    """An alert by mail leaves by the rules like every mail."""
    mail = relay.alerts.mail if relay.alerts else None
    table = Table(rules.routes)
    for sender in mail.from_ if mail else ():
        if table.match(sender) is None:
            wrong, mend = f"no route takes {sender}, so no alert leaves by it", "add a route for it, or name another"
            yield Problem(Place(file, 1), "alerts.mail.from", wrong, mend, True)


def _unused(rules: Rules) -> Iterator[Problem]:
    used = {name for route in rules.routes for name in route.settings.upstreams}
    for name, upstream in rules.upstreams.items():
        if name not in used:
            yield Problem(
                upstream.place, f"upstreams.{name}", "no route uses it", "name it in `via`, or remove it", True
            )
