"""The numbers of all workers of one relay in one scrape, each with the label `worker`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

_UP: Final = "callpro_relay_worker_up"


def merged(own: Iterable[Metric], number: int, others: Mapping[int, bytes | None]) -> list[Metric]:
    """Our families with theirs in them; every number says by `worker` whose it is."""
    found = {family.name: family for family in labelled(own, number)}
    for text in others.values():
        for family in text_string_to_metric_families((text or b"").decode()):
            found.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            ).samples += family.samples
    for worker, there in sorted({number: True, **{one: text is not None for one, text in others.items()}}.items()):
        found[_UP].add_sample(_UP, {"worker": str(worker)}, float(there))
    return [*found.values()]


def labelled(families: Iterable[Metric], number: int) -> list[Metric]:
    """The same, said by this worker."""
    found = []
    for family in families:
        made = Metric(family.name, family.documentation, family.type)
        made.samples = [one._replace(labels={**one.labels, "worker": str(number)}) for one in family.samples]
        found.append(made)
    return found
