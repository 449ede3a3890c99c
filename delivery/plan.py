"""The rules made ready to deliver by: the table, live upstreams and signers.

Everything that can fail is done here, before anything is swapped. Must never connect to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from config.rules import Dkim, Route, Rules, UpstreamRule
from routing.mail import NULL_SENDER
from routing.table import Table
from upstreams.base import Host, Kinds, Upstream
from upstreams.traits import traits_of

if TYPE_CHECKING:
    from routing.signing import Signer


@dataclass(frozen=True, slots=True)
class Plan:
    """What delivery goes by until the next reload. All mappings are by the name that ops gave.

    `signers` is by route and upstream, and has only the pairs where we sign. `rules` are the entries that `upstreams`
    were built from. `host` is who reports of undelivered mail come from.
    """

    table: Table
    routes: Mapping[str, Route]
    upstreams: Mapping[str, Upstream]
    signers: Mapping[tuple[str, str], Signer]
    rules: Mapping[str, UpstreamRule] = field(default_factory=dict)
    host: Host = Host("localhost")

    def match(self, sender: str, route: str) -> str | None:
        """The name of the route that mail of this sender leaves by, when it came in by `route`.

        A report of ours has the null sender and goes the way of the mail it is about, unless a rule names `<>`.
        """
        found = self.table.match(sender)
        if found is not None:
            return found.name
        return route if sender == NULL_SENDER and route in self.routes else None


def build_plan(rules: Rules, kinds: Kinds, host: Host, previous: Plan | None) -> Plan:
    """The plan for `rules`. Upstreams of `previous` with an equal entry are used on, with their connections.

    Raises what a kind's builder or a key raises (ValueError with a sentence for ops); `previous` is untouched then.
    """
    return Plan(
        table=Table(rules.routes),
        routes={route.name: route for route in rules.routes},
        signers=_signers(rules),
        upstreams={name: _upstream(rule, kinds, host, previous) for name, rule in rules.upstreams.items()},
        rules=dict(rules.upstreams),
        host=host,
    )


def _signers(rules: Rules) -> dict[tuple[str, str], Signer]:
    """A signer for each way that takes a signature of ours. A key is read once for a route, for that takes time."""
    made: dict[tuple[Dkim, ...], Signer] = {}
    signers: dict[tuple[str, str], Signer] = {}
    for route in rules.routes:
        for name in route.settings.upstreams:
            traits = traits_of(rules.upstreams[name].settings)
            wanted = tuple(dkim for dkim in route.settings.dkim if traits.takes_signature(always=dkim.always))
            if wanted:
                from routing.signing import Signer  # 9 MB with the library behind it, only where somebody signs

                signers[route.name, name] = made[wanted] = made.get(wanted) or Signer(wanted)
    return signers


def _upstream(rule: UpstreamRule, kinds: Kinds, host: Host, previous: Plan | None) -> Upstream:
    old = previous.rules.get(rule.name) if previous and previous.host == host else None
    if previous and old and (old.kind, old.settings) == (rule.kind, rule.settings):
        return previous.upstreams[rule.name]
    return kinds[rule.kind].build(rule.name, rule.settings, host)
