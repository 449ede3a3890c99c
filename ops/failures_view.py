"""Recipients that did not get their mail, or did not want it: per day and customer, or each with the last words. Pure.

A customer is the domain of the envelope sender. What others wrote must never become a formula in a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Final, Literal

from ops.queue_view import plain
from routing.mail import domain_of
from spool.contract import Settled, id_text
from spool.view import FailureLine

Shape = Literal["text", "csv", "json"]

_HOWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        Settled.FAILED: "failed",
        Settled.EXPIRED: "expired",
        Settled.DROPPED: "dropped",
        "provider_bounced": "bounced at the provider",
        "provider_dropped": "dropped by the provider",
        "provider_complained": "reported as spam",
    }
)
"""The columns, in their order, and what people read. Those of a provider are named like its events in the log."""
_EACH: Final = ("at", "customer", "route", "sender", "recipient", "mail", "how", "code", "status", "reply")


def write_failures(lines: Iterable[FailureLine], shape: Shape, *, each: bool) -> str:
    """As one of the functions below, with local times: a line for each recipient, or for each day and customer."""
    match shape:
        case "csv":
            return each_csv(lines) if each else failures_csv(lines)
        case "json":
            return each_json(lines) if each else failures_json(lines)
        case "text":
            return each_text(lines) if each else failures_text(lines)


def failures_text(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """A line for each day and customer. `zone` is the local one when left out."""
    counted = _by_day(lines, zone)
    told = []
    for (day, customer), counts in sorted(counted.items()):
        told.append(
            f"{day}  {plain(customer):<30}  "
            + ", ".join(f"{counts[how]} {words}" for how, words in _HOWS.items() if counts[how])
        )
    return "".join(f"{line}\n" for line in told) or "No failures.\n"


def failures_csv(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """`day,customer,failed,expired,dropped,provider_...`: recipients, a line for each day and customer."""
    counted = sorted(_by_day(lines, zone).items())
    return _csv(("day", "customer", *_HOWS), [[*key, *(str(counts[how]) for how in _HOWS)] for key, counts in counted])


def each_csv(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """A line for each recipient, with the upstream's last words."""
    return _csv(_EACH, [_each(line, zone) for line in lines])


def failures_json(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """A list of objects with the columns of `failures_csv`; counts are numbers."""
    counted = sorted(_by_day(lines, zone).items())
    rows = [
        {"day": day, "customer": customer, **{how: counts[how] for how in _HOWS}} for (day, customer), counts in counted
    ]
    return json.dumps(rows, indent=2) + "\n"


def each_json(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """A list of objects with the columns of `each_csv`."""
    return json.dumps([dict(zip(_EACH, _each(line, zone), strict=True)) for line in lines], indent=2) + "\n"


def each_text(lines: Iterable[FailureLine], zone: tzinfo | None = None) -> str:
    """A line for each recipient, and its reply below."""
    told = []
    for line in lines:
        at, _, _, sender, recipient, mail, how, *_, reply = _each(line, zone)
        told.append(f"{at}  {mail}  {plain(sender)} -> {plain(recipient)}  {_HOWS[how]}\n")
        told.append(f"    {plain(reply)}\n" if reply else "")
    return "".join(told) or "No failures.\n"


def _by_day(lines: Iterable[FailureLine], zone: tzinfo | None) -> dict[tuple[str, str], Counter[str]]:
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for line in lines:
        counted[_local(line.at, zone).date().isoformat(), _customer(line)][_how(line)] += 1
    return counted


def _each(line: FailureLine, zone: tzinfo | None) -> list[str]:
    last = line.last
    code = str(last.code) if last and last.code is not None else ""
    status, reply = (last.enhanced or "", " / ".join(last.reply.splitlines())) if last else ("", "")
    if line.told_by is not None:
        reply = " / ".join(line.words.splitlines())
    at, sender = _local(line.at, zone).isoformat(" ", "seconds"), line.sender or "<>"
    return [
        at,
        _customer(line),
        line.route,
        sender,
        line.recipient,
        id_text(line.mail),
        _how(line),
        code,
        status,
        reply,
    ]


def _how(line: FailureLine) -> str:
    return line.how if line.told_by is None else f"provider_{line.how}"


def _customer(line: FailureLine) -> str:
    return domain_of(line.sender) or "<>"


def _local(at: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(zone)


def _csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A cell that begins like a formula is text for a spreadsheet with an apostrophe before it."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
